"""Which file a login is written to, and what it then says: containers-auth.json(5), as podman has it.

Rules of this file: nothing else in a file is changed; a file that cannot be read as one is not written over;
a secret goes into a file only where the file leaves the registry's logins to no helper.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import AuthConfigError, DocumentError, InvalidReference
from ..image.reference import Reference, parse_reference
from ..image.strictjson import as_text
from ..record import dataclass
from .home import User
from .logins import Login, as_key, parse_logins, section, session_file


@dataclass(frozen=True, slots=True)
class LoginKey:
    """What a login is for: a registry, or what is below ``key``, ``host/namespace``, in it."""

    key: str
    host: str

    @property
    def path(self) -> str:
        """What of the key is below the host; empty for the whole registry."""
        return self.key.partition("/")[2]

    @classmethod
    def parse(cls, text: str) -> LoginKey:
        """``host[:port][/namespace]``; of a URL its host counts, as for podman. Raises InvalidReference."""
        scheme, found, rest = text.partition("://")
        bare = rest.partition("/")[0] if found and scheme in ("http", "https") else text
        host, slash, path = bare.partition("/")
        try:
            named = parse_reference(f"docker://{host}/{path or 'x'}")
        except InvalidReference as exc:
            raise InvalidReference(f"{text!r:.200} is not a registry, like quay.io or host:5000") from exc
        plain = isinstance(named, Reference) and named.digest is None and named.tag == "latest"
        if not plain or not isinstance(named, Reference) or ":" in path or (slash and not path):
            raise InvalidReference(f"{text!r:.200} is not a registry, nor host/namespace")
        if "." not in host and ":" not in host and host != "localhost":
            raise InvalidReference(
                f"{text!r:.200} is not a registry: there is neither a dot nor a port in it"
            )
        return cls(f"{named.registry}{slash}{path}", named.registry)


def login_file(
    authfile: Path | None = None, *, env: Mapping[str, str] | None = None, user: User | None = None
) -> Path:
    """The file that 'podman login' writes: ``authfile``, or what the environment says.

    Raises AuthConfigError where XDG_RUNTIME_DIR is not there. Blocks.
    """
    env = os.environ if env is None else env
    if authfile is not None:
        return authfile
    if named := env.get("REGISTRY_AUTH_FILE"):
        return Path(named)
    if docker := env.get("DOCKER_CONFIG"):
        return Path(docker, "config.json")
    user = user or User.of(env)
    if user.runtime is not None and not user.runtime.is_dir():
        problem = f"XDG_RUNTIME_DIR is {user.runtime}, which is not there: make it, or unset the variable"
        raise AuthConfigError(problem).with_hint("another-authfile")
    return session_file(user)


def helper_of(raw: bytes | None, path: Path, wanted: LoginKey) -> str | None:
    """The helper that the file leaves the registry's logins to; None where they stand in the file.

    Raises AuthConfigError.
    """
    if wanted.path:  # helpers know registries
        return None
    host = as_key(wanted.host)
    found = hosts_of_helpers(raw, path).items()
    return next((name for key, name in found if as_key(key) == host), None)


def refuse_store(raw: bytes | None, path: Path) -> None:
    """Raise AuthConfigError where the file leaves all logins to a program that podman does not ask."""
    store = parse_logins(raw or b"", path).get("credsStore")
    if store is not None and store != "":
        problem = f"{path} leaves all logins to a helper (credsStore), which podman and skopeo do not ask"
        raise AuthConfigError(problem).with_hint("another-authfile")


def with_login(raw: bytes | None, path: Path, wanted: LoginKey, login: Login) -> bytes:
    """The file's bytes with ``login`` in it, in place of what it had for the same. Raises AuthConfigError."""
    if ":" in login.username:
        raise AuthConfigError("a user name cannot have a colon in it: what follows would be the password")
    config = parse_logins(raw or b"", path)
    auths = _without(config, path, wanted)
    encoded = base64.b64encode(f"{login.username}:{login.password}".encode()).decode("ascii")
    auths[wanted.key] = {"auth": encoded}
    return _encoded({**config, "auths": auths})


def without_login(raw: bytes | None, path: Path, wanted: LoginKey | None) -> bytes | None:
    """The file's bytes without the login for ``wanted``, or without any; None where it has none of it.

    Raises AuthConfigError.
    """
    config = parse_logins(raw or b"", path)
    left = _without(config, path, wanted) if wanted is not None else {}
    if len(left) == len(_section(config, path)):
        return None
    return _encoded({**config, "auths": left})


def hosts_of_helpers(raw: bytes | None, path: Path) -> dict[str, str]:
    """The helpers of the file by the registries that they are for. Raises AuthConfigError."""
    found = _section(parse_logins(raw or b"", path), path, "credHelpers")
    try:
        return {key: as_text(name, "credHelpers") for key, name in found.items()}
    except DocumentError as exc:
        raise AuthConfigError(f"{path}: {exc}") from exc


def _section(config: Mapping[str, object], path: Path, name: str = "auths") -> dict[str, object]:
    try:
        return section(config, name)
    except DocumentError as exc:
        raise AuthConfigError(f"{path}: {exc}") from exc


def _without(config: Mapping[str, object], path: Path, wanted: LoginKey) -> dict[str, object]:
    """What the file has of logins, but for those of the same registry or namespace, however it is written."""
    same = as_key(wanted.key)
    return {key: entry for key, entry in _section(config, path).items() if as_key(key) != same}


def _encoded(config: Mapping[str, object]) -> bytes:
    return json.dumps(config, indent="\t", ensure_ascii=False).encode()
