"""Where a user's registry logins are kept: auth.json, Docker's config, bootc's files, credential helpers.

containers-auth.json(5) is the format and the search order; registries.conf(5) may name helpers to be asked
besides. Rules of this file: a place that was named explicitly must be there and be right; a broken file is an
error, never "no credentials" (CVE-2021-41092: what fails must not fall through to another login); no secret
read here appears in a message or a repr, but where a login comes from does.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final

from ..errors import AuthConfigError, DocumentError
from ..image import hub
from ..image.given import of_declared_types
from ..image.strictjson import as_object, as_text, load_object
from ..record import dataclass
from . import helpers as credential_helpers
from .helpers import HELPER_S, HelperFailed
from .home import User
from .reading import read_file
from .registries import AUTH_FILES

BOOTC: Final = (
    Path("/run/ostree/auth.json"),
    Path("/etc/ostree/auth.json"),
    Path("/usr/lib/ostree/auth.json"),
)
MAX_FILE = 4 << 20
_TOKEN_USER = "<token>"  # docker-credential-helpers: the secret is an identity token
_TRUSTED = "LAYERTEE_TRUSTED_REALMS"  # hosts, separated by blanks or commas
# Free-form maps of the two formats, keyed by host names.
_MAPS = frozenset({"auths", "credHelpers", "HttpHeaders", "plugins", "aliases", "proxies", "features"})


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and password, or an identity token for the token service; ``source`` says where it was."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Raises AuthConfigError for what no request can carry, TypeError for what is no text."""
        of_declared_types(self)
        for what, text in (
            ("user name", self.username),
            ("password", self.password),
            ("identity token", self.identity_token),
        ):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise AuthConfigError(f"the {what} of a login is not UTF-8") from None


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """Where a login may come from: a file and the key in it, or a helper that is asked for ``key``.

    ``whence`` is the file, or what names the helper.
    """

    whence: str
    key: str
    helper: str = ""

    def __str__(self) -> str:
        if self.helper:
            return f"docker-credential-{self.helper} ({self.whence}), asked for {self.key}"
        return f"{self.whence}, key {self.key}"


@dataclass(frozen=True, slots=True)
class _Candidate:
    source: CredentialSource
    entry: Mapping[str, object] | None = None  # of a file


@dataclass(frozen=True, slots=True)
class _File:
    """``named``: by somebody, so that it has to exist. ``legacy``: its whole content is the auths."""

    path: Path
    named: bool = False
    legacy: bool = False


class Credentials:
    """The logins of one user, looked up when a registry asks.

    ``authfile``: only this file. ``login``: this login, for whatever registry. ``helpers``: who is asked, in
    that order; ``containers-auth.json`` are the files. ``trusted_realms``: hosts (``host`` or ``host:port``)
    of token services that may be sent the credentials of registries which name them, besides those that
    LAYERTEE_TRUSTED_REALMS names in ``env``. ``user``: whose files, that of ``env`` if None. ``system``: of
    these the first there is, for root, after root's own files. A helper has ``helper_s`` seconds to answer.
    """

    def __init__(
        self,
        authfile: str | Path | None = None,
        *,
        login: Login | None = None,
        helpers: Sequence[str] = (AUTH_FILES,),
        trusted_realms: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        user: User | None = None,
        system: Sequence[Path] = BOOTC,
        helper_s: float = HELPER_S,
    ) -> None:
        self._env = dict(os.environ if env is None else env)
        named = self._env.get(_TRUSTED, "").replace(",", " ").split()
        self.trusted_realms = frozenset(host.lower() for host in (*trusted_realms, *named))
        self._login = login
        self._helpers = tuple(helpers)
        self._explicit = authfile if authfile is not None else self._env.get("REGISTRY_AUTH_FILE") or None
        self._user = user
        self._system = system
        self._helper_s = helper_s
        self._disabled = False

    @classmethod
    def no_credentials(cls) -> Credentials:
        """Never logs in, whatever files there are."""
        found = cls(env={})
        found._disabled = True
        return found

    async def lookup(self, registry: str, repository: str) -> Login | None:
        """The login for ``registry/repository``: most specific key of the first file that has one.

        A helper that fails is passed over where another one of registries.conf, or the files, has a login.
        Raises AuthConfigError when a file is malformed or one named explicitly is missing, HelperFailed.
        """
        if self._disabled or self._login is not None:
            return self._login
        host = _host(registry)
        failed: HelperFailed | None = None
        for helper in self._helpers:
            try:
                async for candidate in self._candidates(helper, host, repository):
                    if login := await self._take(candidate):
                        return login
            except HelperFailed as exc:
                failed = failed or exc
        if failed is not None:
            raise failed
        return None

    async def explain(self, registry: str, repository: str) -> list[CredentialSource]:
        """Where ``lookup`` would look until it has a login, in that order; no helper is run for it.

        Empty where nothing is there for ``registry``. Raises AuthConfigError.
        """
        if self._disabled:
            return []
        if self._login is not None:
            return [CredentialSource(self._login.source or "the caller", registry)]
        found = []
        for helper in self._helpers:
            async for candidate in self._candidates(helper, _host(registry), repository):
                found.append(candidate.source)
                if candidate.entry is not None:
                    return found
        return found

    async def _candidates(self, helper: str, host: str, repository: str) -> AsyncIterator[_Candidate]:
        """What may have the login, of one of the helpers."""
        if helper != AUTH_FILES:
            yield _Candidate(CredentialSource("credential-helpers of registries.conf", host, helper))
            return
        for file in await asyncio.to_thread(self._files):
            config = await asyncio.to_thread(_load, file)
            if config is None:
                continue
            try:
                for candidate in _in_file(config, str(file.path), host, repository):
                    yield candidate
            except DocumentError as exc:
                raise AuthConfigError(f"{file.path}: {exc}") from exc

    async def _take(self, candidate: _Candidate) -> Login | None:
        source = candidate.source
        if candidate.entry is not None:
            try:
                return _decode(candidate.entry, source)
            except DocumentError as exc:
                raise AuthConfigError(f"{source.whence}: {exc}") from exc
        env = self._env
        if self._user is not None and self._user.home is not None:
            env = env | {"HOME": str(self._user.home)}  # where the helper has its own files
        keys = (hub.LOGIN_KEY, source.key) if source.key == hub.NAME else (source.key,)
        for key in keys:
            if answer := await credential_helpers.ask(source.helper, key, env, source.whence, self._helper_s):
                return _login(*answer, str(source))
        return None

    def _files(self) -> list[_File]:
        """Candidate files in order. Blocks."""
        if self._explicit is not None:
            return [_File(Path(self._explicit), named=True)]
        if self._user is None:
            self._user = User.of(self._env)
        user = self._user
        found = [_File(session_file(user))]
        if user.config is not None:
            found.append(_File(user.config / "containers/auth.json"))
        if docker := self._env.get("DOCKER_CONFIG"):
            found.append(_File(Path(docker, "config.json")))
        elif user.home is not None:
            found.append(_File(user.home / ".docker/config.json"))
        if user.home is not None:
            found.append(_File(user.home / ".dockercfg", legacy=True))
        if user.uid == 0:
            found += [_File(path) for path in self._system if os.path.exists(path)][:1]
        return found


def session_file(user: User) -> Path:
    """The file that is looked at first: it lasts as long as the machine runs, or the session."""
    of_session = user.runtime / "containers" if user.runtime else Path(f"/run/containers/{user.uid}")
    return of_session / "auth.json"


def parse_logins(raw: bytes, path: Path) -> dict[str, object]:
    """What the file ``path`` says. Raises AuthConfigError, without a secret in it."""
    if not raw.strip():
        return {}  # podman and skopeo take an empty file for an empty configuration
    try:
        return load_object(raw, "credentials file", limit=MAX_FILE, maps=_MAPS)
    except DocumentError as exc:
        raise AuthConfigError(f"{path}: {exc}") from exc


def _host(registry: str) -> str:
    if not credential_helpers.HOST.fullmatch(registry):
        raise AuthConfigError(f"{registry!r:.200} is not a registry host")
    return as_key(registry)


def _load(file: _File) -> dict[str, object] | None:
    path = file.path
    try:
        raw = read_file(path, MAX_FILE, named=file.named)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise AuthConfigError(f"credentials file {path} does not exist") from exc
    except OSError as exc:
        raise AuthConfigError(f"credentials file {path} cannot be read: {exc.strerror}") from exc
    if raw is None:
        return None
    found = parse_logins(raw, path)
    return {"auths": found} if file.legacy else found


def section(config: Mapping[str, object], key: str) -> dict[str, object]:
    found = config.get(key)
    return {} if found is None else as_object(found, key)


def as_key(key: str) -> str:
    """A key as ``host[:port]`` or ``host/path``, in the form it is compared in.

    Keys with a scheme come from ``docker login``: their path is the API's (``/v1/``), not a namespace.
    """
    scheme, found, rest = key.partition("://")
    if found and scheme in ("http", "https"):
        key = rest.partition("/")[0]
    host, slash, path = key.rstrip("/").partition("/")
    host = host.lower()
    return (hub.NAME if host in hub.NAMES | hub.API_HOSTS else host) + slash + path


def _in_file(config: Mapping[str, object], path: str, host: str, repository: str) -> Iterable[_Candidate]:
    """The helper that the file has for the registry, the entry, the helper for all: those that there are."""
    helpers = section(config, "credHelpers")
    helper = next((name for key, name in helpers.items() if as_key(key) == host), None)
    if helper is not None:
        yield _Candidate(CredentialSource(path, host, as_text(helper, "credHelpers")))
    entries: dict[str, tuple[str, object]] = {}
    for key, entry in section(config, "auths").items():
        entries.setdefault(as_key(key), (key, entry))
    wanted = f"{host}/{repository}"
    while wanted:
        if wanted in entries:
            key, entry = entries[wanted]
            found = as_object(entry, "auths entry")
            if found.get("identitytoken") or found.get("auth"):  # else Docker's marker for "ask the helper"
                yield _Candidate(CredentialSource(path, key), found)
        wanted = wanted.rpartition("/")[0]
    store = config.get("credsStore")
    if store is not None and store != "":
        yield _Candidate(CredentialSource(path, host, as_text(store, "credsStore")))


def _decode(entry: Mapping[str, object], source: CredentialSource) -> Login | None:
    """The login in one ``auths`` entry."""
    key = source.key
    token = entry.get("identitytoken")
    if token:
        return Login(identity_token=as_text(token, f"identitytoken of {key}"), source=str(source))
    try:
        encoded = as_text(entry["auth"], f"auth of {key}").encode("ascii")
        # Line breaks are of no account to Go's decoder, and many tools write them.
        decoded = base64.b64decode(encoded.translate(None, b"\r\n"), validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise DocumentError(f"auth of {key} is not base64") from None  # the cause would show the value
    username, colon, password = decoded.partition(":")
    if not colon:
        raise DocumentError(f"auth of {key} is not user:password")
    return _login(username, password.strip("\0"), str(source))


def _login(username: str, secret: str, source: str) -> Login | None:
    if username == _TOKEN_USER:
        return Login(identity_token=secret, source=source)
    return Login(username, secret, source=source) if username or secret else None
