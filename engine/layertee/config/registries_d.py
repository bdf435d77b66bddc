"""Where the signatures of an image are looked for: registries.d, read and merged.

containers-registries.d(5), as the newest containers/image reads it. Nothing is fetched from there by this
module; it says where that would be. Rules of this file: what two files say of one namespace is an error, not
a matter of order; the most specific namespace that sets a value holds for it, value by value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from ..errors import RegistriesConfError
from ..image.strictjson import printable
from ..record import dataclass
from .home import User
from .policyscopes import docker_scopes
from .reading import read_file
from .search import ADMIN, VENDOR, Search

if TYPE_CHECKING:
    from ..image.reference import Reference

LIMIT = 64 << 10  # such files have some hundred bytes; a mebibyte of YAML takes ten seconds to read
_DEFAULT = "default-docker"


@dataclass(frozen=True, slots=True)
class Namespace:
    """What ``path`` says of one namespace; None where it says nothing."""

    path: Path
    lookaside: str | None
    attachments: bool | None


@dataclass(frozen=True, slots=True)
class SignaturePlaces:
    """Where the signatures of one image are. ``lookaside`` is a URL, without the image's own part.

    ``attachments``: whether sigstore signatures beside the image, in its registry, count. The files that say
    so are None where it is the default.
    """

    lookaside: str
    lookaside_file: Path | None
    attachments: bool
    attachments_file: Path | None


class SignatureConfig:
    """All files of registries.d, merged."""

    def __init__(self, files: tuple[Path, ...], namespaces: Mapping[str, Namespace], fallback: str) -> None:
        self.files = files
        self._namespaces = namespaces
        self._fallback = fallback

    @classmethod
    def read(
        cls,
        directory: Path | None = None,
        *,
        env: Mapping[str, str] | None = None,
        user: User | None = None,
        admin: Path = ADMIN,
        vendor: Path = VENDOR,
    ) -> SignatureConfig:
        """As this process finds it, or in ``directory`` alone. Raises RegistriesConfError. Blocks."""
        env = os.environ if env is None else env
        user = user or User.of(env)
        search = Search.of(
            "registries", "", "", env={}, user=user, suffix=".yaml", admin=admin, vendor=vendor
        )
        if directory is not None:
            search = Search((), (directory,), None, ".yaml")
        files: list[Path] = []
        found: dict[str, Namespace] = {}
        try:
            paths = list(search.drop_ins())
        except OSError as exc:
            raise RegistriesConfError(f"{exc.filename} cannot be read: {exc.strerror}") from exc
        for path in paths:
            files.append(path)
            for name, namespace in _load(path):
                if name in found:
                    raise RegistriesConfError(
                        f"{path}: {name} is also in {found[name].path}; keep one of them"
                    )
                found[name] = namespace
        home = user.home or Path("/")
        default = Path("/var/lib/containers") if user.uid == 0 else home / ".local/share/containers"
        return cls(tuple(files), found, f"file://{quote(str(default))}/sigstore")

    def places(self, image: Reference) -> SignaturePlaces:
        """Where the signatures of ``image`` are looked for."""
        namespaces = [
            self._namespaces[name] for name in (*docker_scopes(image), _DEFAULT) if name in self._namespaces
        ]
        lookaside = next((each for each in namespaces if each.lookaside), None)
        attached = next((each for each in namespaces if each.attachments is not None), None)
        return SignaturePlaces(
            lookaside.lookaside if lookaside and lookaside.lookaside else self._fallback,
            lookaside.path if lookaside else None,
            bool(attached and attached.attachments),
            attached.path if attached else None,
        )


def _load(path: Path) -> Iterator[tuple[str, Namespace]]:
    import yaml  # on few machines only

    try:
        raw = read_file(path, LIMIT, named=False)
    except OSError as exc:
        raise RegistriesConfError(f"{path} cannot be read: {exc.strerror}") from exc
    if raw is None:
        return
    if len(raw) > LIMIT:
        raise RegistriesConfError(f"{path} is larger than {LIMIT} bytes")
    try:
        loader = yaml.SafeLoader(raw)
        try:
            node = loader.get_single_node()
            twice = _repeated_key(node)
            document = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        what = getattr(exc, "problem", None) or str(exc)
        raise RegistriesConfError(f"{where}: this is not YAML: {printable(what, 300)}") from exc
    except (RecursionError, ValueError) as exc:
        raise RegistriesConfError(f"{path} cannot be read as YAML") from exc
    if twice is not None:
        _fail(path, f"{twice} is there twice in one table")
    if document is None:
        return
    table = _table(document, path, "it")
    if table.get(_DEFAULT) is not None:
        yield _DEFAULT, _namespace(_table(table[_DEFAULT], path, _DEFAULT), path, _DEFAULT)
    for name, value in _table(table.get("docker") or {}, path, "docker").items():
        yield name, _namespace(_table(value or {}, path, name), path, name)


def _repeated_key(root: Any) -> str | None:
    """A key that one table below ``root``, a node of YAML, has twice: PyYAML would take the later one."""
    todo, seen = [root], set()
    while todo:
        node = todo.pop()
        if node is None or id(node) in seen or isinstance(node.value, str):
            continue
        seen.add(id(node))  # an alias is the same node again, even within itself
        if node.id != "mapping":
            todo += node.value
            continue
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        if len(keys) != len(set(keys)):
            return next(key for key in keys if keys.count(key) > 1)
        todo += [part for pair in node.value for part in pair]
    return None


def _namespace(table: dict[str, Any], path: Path, name: str) -> Namespace:
    for key in ("lookaside", "lookaside-staging", "sigstore", "sigstore-staging"):
        if not isinstance(table.get(key, ""), str | None):
            _fail(path, f"{name}: {key} is not a text")
    attachments = table.get("use-sigstore-attachments")
    if not isinstance(attachments, bool | None):
        _fail(path, f"{name}: use-sigstore-attachments is neither true nor false")
    return Namespace(path, table.get("lookaside") or table.get("sigstore") or None, attachments)


def _table(value: object, path: Path, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        _fail(path, f"{what} is not a table of texts")
    return dict(value)


def _fail(path: Path, what: str) -> NoReturn:
    raise RegistriesConfError(f"{path}: {printable(what, 300)}")
