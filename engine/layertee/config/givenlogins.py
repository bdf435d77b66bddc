"""Logins that a program gives by itself, in place of all files and helpers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from ..errors import AuthConfigError, LayerteeError
from .logins import Credentials, CredentialSource, Login, as_key

SOURCE = "the options of the program"


class GivenCredentials(Credentials):
    """``given`` by registry: a mapping, whose keys are those of auth.json, or a function of ``host[:port]``.

    A mapping is read as files are: the most specific key counts. A function is called in a thread.
    """

    def __init__(
        self,
        given: Mapping[str, Login] | Callable[[str], Login | None],
        *,
        trusted_realms: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(trusted_realms=trusted_realms, env=env)
        self._given = given
        self._by_key = {as_key(key): key for key in given} if isinstance(given, Mapping) else {}

    async def lookup(self, registry: str, repository: str) -> Login | None:
        """Raises AuthConfigError where the function fails, or what is given is no Login."""
        given = self._given
        if isinstance(given, Mapping):
            key = self._key(registry, repository)
            return None if key is None else _login(given[key], key)
        try:
            found = await asyncio.to_thread(given, registry)
        except LayerteeError:
            raise
        except Exception as exc:  # its text may hold what is secret
            raise AuthConfigError(
                f"the function that gives credentials failed for {registry}: {type(exc).__name__}"
            ) from exc
        return None if found is None else _login(found, registry)

    async def explain(self, registry: str, repository: str) -> list[CredentialSource]:
        if not isinstance(self._given, Mapping):
            return [CredentialSource(SOURCE, registry)]
        key = self._key(registry, repository)
        return [] if key is None else [CredentialSource(SOURCE, key)]

    def _key(self, registry: str, repository: str) -> str | None:
        wanted = f"{as_key(registry)}/{repository}"
        while wanted and wanted not in self._by_key:
            wanted = wanted.rpartition("/")[0]
        return self._by_key.get(wanted)


def _login(given: object, key: str) -> Login:
    if not isinstance(given, Login):
        raise AuthConfigError(f"credentials for {key} are a {type(given).__name__}, and not a Login")
    return Login(given.username, given.password, given.identity_token, f"{SOURCE}, for {key}")
