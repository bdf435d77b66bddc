"""Where a user's registry logins are kept: auth.json, Docker's config, credential helpers.

containers-auth.json(5) is the format and the search order. Rules of this file: a place
that was named explicitly must be there and be right; a broken place is an error, never
"no credentials" (CVE-2021-41092: what fails must not fall through to another login);
no value read here appears in a message or a repr.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..aio import start_process
from ..errors import AuthConfigError, DocumentError
from ..image import hub
from ..image.strictjson import as_object, as_text, load_object
from .home import User
from .reading import read_file

_MAX_FILE = 4 << 20
_HELPER = re.compile(r"[a-z0-9-]+")
_HELPER_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")  # a newline here fooled git's helpers (CVE-2020-5260)
HELPER_S: Final = 30.0
_HELPER_OUTPUT = 64 << 10
_DRAIN_S = 1.0
_HELPER_ENV = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "DOCKER_CONFIG", "DBUS_SESSION_BUS_ADDRESS"}
)
_TOKEN_USER = "<token>"  # docker-credential-helpers: the secret is an identity token
_NOT_FOUND = b"credentials not found"  # docker-credential-helpers, credentials/error.go; the rest varies
_TRUSTED = "LAYERTEE_TRUSTED_REALMS"  # hosts, separated by blanks or commas
# Free-form maps of the two formats, keyed by host names.
_MAPS = frozenset({"auths", "credHelpers", "HttpHeaders", "plugins", "aliases", "proxies", "features"})


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and password, or an identity token for the token service."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


class Credentials:
    """The logins of one user, looked up when a registry asks.

    ``authfile``: only this file. ``login``: this login, for whatever registry. ``trusted_realms``: hosts
    (``host`` or ``host:port``) of token services that may be sent the credentials of registries which name
    them, besides those that LAYERTEE_TRUSTED_REALMS names in ``env``. ``user``: whose files, that of ``env``
    if None. A credential helper has ``helper_s`` seconds to answer.
    """

    def __init__(
        self,
        authfile: str | Path | None = None,
        *,
        login: Login | None = None,
        trusted_realms: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        user: User | None = None,
        helper_s: float = HELPER_S,
    ) -> None:
        self._env = dict(os.environ if env is None else env)
        named = self._env.get(_TRUSTED, "").replace(",", " ").split()
        self.trusted_realms = frozenset(host.lower() for host in (*trusted_realms, *named))
        self._login = login
        self._explicit = authfile if authfile is not None else self._env.get("REGISTRY_AUTH_FILE") or None
        self._user = user
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

        Raises AuthConfigError when a file is malformed, one named explicitly is missing, or a
        credential helper fails.
        """
        if self._disabled:
            return None
        if self._login is not None:
            return self._login
        if not _HELPER_HOST.fullmatch(registry):
            raise AuthConfigError(f"{registry!r:.200} is not a registry host")
        host = _normal(registry)
        for path, named in await asyncio.to_thread(self._files):
            config = await asyncio.to_thread(_load, path, named)
            if config is None:
                continue
            login = await self._from_file(config, path, host, repository)
            if login is not None:
                return login
        return None

    def _files(self) -> list[tuple[Path, bool]]:
        """Candidate files in order, and whether somebody named each, so that it has to exist. Blocks."""
        if self._explicit is not None:
            return [(Path(self._explicit), True)]
        if self._user is None:
            self._user = User.of(self._env)
        user = self._user
        of_session = user.runtime / "containers" if user.runtime else Path(f"/run/containers/{user.uid}")
        found = [of_session / "auth.json"]
        if user.config is not None:
            found.append(user.config / "containers/auth.json")
        if docker := self._env.get("DOCKER_CONFIG"):
            found.append(Path(docker, "config.json"))
        elif user.home is not None:
            found.append(user.home / ".docker/config.json")
        return [(path, False) for path in found]

    async def _from_file(
        self, config: Mapping[str, object], path: Path, host: str, repository: str
    ) -> Login | None:
        try:
            auths = _section(config, "auths")
            helpers = _section(config, "credHelpers")
            store = config.get("credsStore")
            helper = next((name for key, name in helpers.items() if _normal(key) == host), None)
            if helper is not None and (login := await self._ask(as_text(helper, "credHelpers"), host, path)):
                return login
            if login := _from_auths(auths, host, repository):
                return login
            if store is not None and store != "":
                return await self._ask(as_text(store, "credsStore"), host, path)
        except DocumentError as exc:
            raise AuthConfigError(f"{path}: {exc}") from exc
        return None

    async def _ask(self, helper: str, host: str, path: Path) -> Login | None:
        env = self._env
        if self._user is not None and self._user.home is not None:
            env = env | {"HOME": str(self._user.home)}  # where the helper has its own files
        for server in (hub.LOGIN_KEY, host) if host == hub.NAME else (host,):
            if login := await _run_helper(helper, server, env, path, self._helper_s):
                return login
        return None


def _load(path: Path, named: bool) -> dict[str, object] | None:
    try:
        raw = read_file(path, _MAX_FILE, named=named)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise AuthConfigError(f"credentials file {path} does not exist") from exc
    except OSError as exc:
        raise AuthConfigError(f"credentials file {path} cannot be read: {exc.strerror}") from exc
    if raw is None:
        return None
    if not raw.strip():
        return {}  # podman and skopeo take an empty file for an empty configuration
    try:
        return load_object(raw, "credentials file", limit=_MAX_FILE, maps=_MAPS)
    except DocumentError as exc:
        raise AuthConfigError(f"{path}: {exc}") from exc


def _section(config: Mapping[str, object], key: str) -> dict[str, object]:
    found = config.get(key)
    return {} if found is None else as_object(found, key)


def _normal(key: str) -> str:
    """A key as ``host[:port]`` or ``host/path``, in the form it is compared in.

    Keys with a scheme come from ``docker login``: their path is the API's (``/v1/``), not a namespace.
    """
    scheme, found, rest = key.partition("://")
    if found and scheme in ("http", "https"):
        key = rest.partition("/")[0]
    host, slash, path = key.rstrip("/").partition("/")
    host = host.lower()
    return (hub.NAME if host in hub.NAMES | hub.API_HOSTS else host) + slash + path


def _from_auths(auths: Mapping[str, object], host: str, repository: str) -> Login | None:
    entries: dict[str, object] = {}
    for key, entry in auths.items():
        entries.setdefault(_normal(key), entry)
    wanted = f"{host}/{repository}"
    while True:
        if wanted in entries and (login := _decode(as_object(entries[wanted], "auths entry"), wanted)):
            return login
        if "/" not in wanted:
            return None
        wanted = wanted.rpartition("/")[0]


def _decode(entry: Mapping[str, object], key: str) -> Login | None:
    """The login in one ``auths`` entry; an empty entry is Docker's marker for "ask the helper"."""
    token = entry.get("identitytoken")
    if token:
        return Login(identity_token=as_text(token, f"identitytoken of {key}"))
    auth = entry.get("auth")
    if not auth:
        return None
    try:
        decoded = base64.b64decode(as_text(auth, f"auth of {key}").encode("ascii"), validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise DocumentError(f"auth of {key} is not base64") from None  # the cause would show the value
    username, colon, password = decoded.partition(":")
    if not colon:
        raise DocumentError(f"auth of {key} is not user:password")
    return _login(username, password.rstrip("\0"))


def _login(username: str, secret: str) -> Login | None:
    if username == _TOKEN_USER:
        return Login(identity_token=secret)
    return Login(username, secret) if username or secret else None


async def _run_helper(
    helper: str, server: str, env: Mapping[str, str], path: Path, limit_s: float
) -> Login | None:
    """Ask ``docker-credential-<helper> get`` for ``server``; None when it has nothing."""
    if not _HELPER.fullmatch(helper):
        raise AuthConfigError(f"{path}: {helper!r:.100} is not the name of a credential helper")
    program = f"docker-credential-{helper}"
    directories = [d for d in env.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(d)]
    found = shutil.which(program, path=os.pathsep.join(directories)) if directories else None
    if found is None:
        raise AuthConfigError(f"{path} names the credential helper {program}, which is not installed")
    clean = {k: v for k, v in env.items() if k in _HELPER_ENV or k.startswith(("XDG_", "LC_"))}
    status, output = await _converse(found, server, clean, limit_s)
    if status != 0:
        if output.lstrip().lower().startswith(_NOT_FOUND):
            return None
        raise AuthConfigError(f"credential helper {program} failed for {server} (exit status {status})")
    try:
        answer = load_object(output, f"answer of {program}", limit=_HELPER_OUTPUT)
        username = as_text(answer.get("Username"), f"Username from {program}")
        secret = as_text(answer.get("Secret"), f"Secret from {program}")
    except DocumentError as exc:
        raise AuthConfigError(f"credential helper for {server}: {exc}") from exc
    return _login(username, secret)


async def _converse(program: str, server: str, env: dict[str, str], limit_s: float) -> tuple[int, bytes]:
    """Run ``program get`` with ``server`` on its input; its exit status and output.

    Its group dies with it when it takes more than ``limit_s`` seconds or says more than 64 KiB.
    """
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await start_process(program, "get", stdin=pipe, stdout=pipe, stderr=null, env=env, cwd="/")
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the environment
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise AuthConfigError(f"credential helper {program} cannot be run: {why}") from exc
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(limit_s):
            with contextlib.suppress(ConnectionError):  # it need not read its input
                process.stdin.write(server.encode() + b"\n")
                await process.stdin.drain()
            process.stdin.close()
            output = b""
            while chunk := await process.stdout.read(4096):
                output += chunk
                if len(output) > _HELPER_OUTPUT:
                    raise AuthConfigError(f"credential helper {program} answered more than 64 KiB")
            return await process.wait(), output
    except TimeoutError as exc:
        raise AuthConfigError(f"credential helper {program} did not answer in {limit_s:.0f} s") from exc
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            with contextlib.suppress(TimeoutError):  # what is left in the pipe keeps its transport open
                async with asyncio.timeout(_DRAIN_S):
                    while await process.stdout.read(_HELPER_OUTPUT):
                        pass
            await process.wait()
