"""Logging in and out: a login that its registry takes is kept where podman and skopeo look for it.

The helpers of registries.conf are asked to keep it, in their order, the files being one of them; the first
that does is enough. What is kept was tried at the registry before.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..aio import in_thread
from ..config import helpers
from ..config.helpers import HelperFailed
from ..config.loginfile import (
    LoginKey,
    helper_of,
    hosts_of_helpers,
    login_file,
    refuse_store,
    with_login,
    without_login,
)
from ..config.logins import MAX_FILE, Credentials, Login
from ..config.reading import read_file
from ..config.registries import AUTH_FILES
from ..disk.files import disk_error
from ..disk.rewriting import rewrite
from ..errors import LayerteeError

if TYPE_CHECKING:
    from .network import Network

_BY_CONF = "credential-helpers of registries.conf"


class Logins:
    """Where this user's logins are written. ``authfile`` in place of the file that podman would take."""

    def __init__(self, network: Network, authfile: Path | None = None) -> None:
        self._network = network
        self._authfile = authfile

    async def check(self, wanted: LoginKey, login: Login) -> bool:
        """Whether the registry takes ``login``: False where it did not ask for one, as one without users.

        Raises Unauthorized for a login that it does not take, or is not told; RegistryBlocked, and what a
        request raises.
        """
        registry = await self._network.registry_of(wanted.host, Credentials(login=login))
        return await registry.check_login()

    async def known(self, wanted: LoginKey) -> Login | None:
        """The login that a pull would send now. Raises AuthConfigError."""
        configured = await self._network.registries()
        named = self._authfile or os.environ.get("REGISTRY_AUTH_FILE")
        if named and not await in_thread(os.path.lexists, named):  # the first login makes it
            return None
        found = Credentials(self._authfile, helpers=configured.credential_helpers)
        return await found.lookup(wanted.host, wanted.path)

    async def keep(self, wanted: LoginKey, login: Login) -> str:
        """Have ``login`` kept; where, for a person.

        Raises AuthConfigError (HelperFailed), UnsafePath, LocalError, NoSpace: what the first failed with.
        """
        failed: list[LayerteeError] = []
        configured = await self._network.registries()
        for helper in configured.credential_helpers:
            try:
                return await self._keep(helper, wanted, login)
            except LayerteeError as exc:
                failed.append(exc)
        raise failed[0]

    async def forget(self, wanted: LoginKey) -> list[str]:
        """Remove the login for ``wanted`` wherever it is written; from where, for a person: empty for none.

        Raises as ``keep``.
        """
        found = []
        configured = await self._network.registries()
        for helper in configured.credential_helpers:
            if helper != AUTH_FILES:
                if not wanted.path and await helpers.erase(helper, wanted.key, os.environ, _BY_CONF):
                    found.append(f"docker-credential-{helper}")
                continue
            if (where := await self._forget_in_file(wanted)) is not None:
                found.append(where)
        return found

    async def forget_all(self) -> list[str]:
        """Remove all logins of the file, and those that its helpers have of registries which it names."""
        path = await in_thread(login_file, self._authfile)
        raw = await in_thread(_read, path)
        if raw is None:
            return []
        found = []
        if await in_thread(rewrite, path, lambda now: without_login(now, path, None), limit=MAX_FILE):
            found.append(str(path))
        for key, name in hosts_of_helpers(raw, path).items():
            if await helpers.erase(name, key, os.environ, str(path)):
                found.append(f"docker-credential-{name}")
        return found

    # --- inside ---

    async def _forget_in_file(self, wanted: LoginKey) -> str | None:
        path = await in_thread(login_file, self._authfile)
        raw = await in_thread(_read, path)
        name = helper_of(raw, path, wanted)
        if name is not None:
            gone = await helpers.erase(name, wanted.key, os.environ, str(path))
            return f"docker-credential-{name}" if gone else None
        gone = raw is not None and await in_thread(
            rewrite, path, lambda now: without_login(now, path, wanted), limit=MAX_FILE
        )
        return str(path) if gone else None

    async def _keep(self, helper: str, wanted: LoginKey, login: Login) -> str:
        pair = (login.username, login.password)
        if helper != AUTH_FILES:
            if wanted.path:
                raise HelperFailed(f"{_BY_CONF} keep logins for whole registries, not for {wanted.key}")
            await helpers.store(helper, wanted.key, pair, os.environ, _BY_CONF)
            return f"docker-credential-{helper}"
        path = await in_thread(login_file, self._authfile)
        raw = await in_thread(_read, path)
        name = helper_of(raw, path, wanted)
        if name is not None:
            await helpers.store(name, wanted.key, pair, os.environ, str(path))
            return f"docker-credential-{name}"
        refuse_store(raw, path)
        await in_thread(rewrite, path, lambda now: with_login(now, path, wanted, login), limit=MAX_FILE)
        return str(path)


def _read(path: Path) -> bytes | None:
    """The file's bytes; None where there is none. Raises LocalError."""
    try:
        return read_file(path, MAX_FILE, named=False)
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
