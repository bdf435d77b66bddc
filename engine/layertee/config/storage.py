"""Where podman's, buildah's and skopeo's images are on this machine.

containers-storage.conf(5), as the newest containers/storage reads it: files as search.py finds them, each put
over those before it, key by key; the environment over them; stores that are shared and read-only (additional
image stores) after the machine's own. Only what says where layers are is read. What a file says wrongly is an
error, and not the default in its place: the user would look for the reason elsewhere.

Older tools, until podman 5, take no graphroot from the system's files for a user without root's rights. Where
there is one, that user's usual place is looked into as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import InvalidReference, LocalError, NoHome, StoreCorrupt
from ..image.strictjson import printable
from ..record import dataclass
from .home import User
from .reading import read_file
from .search import ADMIN, VENDOR, Search
from .tomlfile import NotToml, parse_toml

if TYPE_CHECKING:
    from ..image.reference_storage import StorageReference

VARIABLE: Final = "CONTAINERS_STORAGE_CONF"
OVERRIDE: Final = "CONTAINERS_STORAGE_CONF_OVERRIDE"
MAX_CONF: Final = 1 << 20
_ROOT_GRAPHROOT: Final = Path("/var/lib/containers/storage")
_NAME = re.compile(r"\$(?:\{(?P<braced>[A-Za-z0-9_]*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
# Where a layer is unpacked, beneath the root of a store, by its driver.
TREES: Final = {"overlay": "overlay/{}/diff", "vfs": "vfs/dir/{}"}
_OLD_NAMES: Final = {"overlay2": "overlay"}
# One keeps the images apart from the containers, the other names a store more.
_STORE_OPTIONS: Final = frozenset({"imagestore", "additionalimagestore"})


@dataclass(frozen=True, slots=True)
class StorageRoots:
    """The directories that hold layers and images, the machine's own first.

    ``driver`` is None where nothing names one: whatever is there, then. ``named`` are those of the roots that
    somebody added by name, and that should be there.
    """

    roots: tuple[Path, ...]
    driver: str | None
    named: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def drivers(self) -> tuple[str, ...]:
        """The drivers to look for."""
        return (self.driver,) if self.driver else tuple(TREES)


@dataclass(frozen=True, slots=True)
class _Said:
    """A path as ``file`` has it under ``key``."""

    value: str
    key: str
    file: Path


@dataclass(frozen=True, slots=True)
class _Conf:
    """What files say so far, as they say it: paths may have variables in them."""

    driver: str = ""
    graphroot: _Said | None = None
    imagestore: _Said | None = None
    rootless: _Said | None = None
    stores: tuple[_Said, ...] = ()
    appends: bool = False
    """Once a list of stores was marked to be appended, later ones are as well."""
    files: tuple[Path, ...] = ()


def find_roots(
    reference: StorageReference,
    *,
    environ: Mapping[str, str] = os.environ,
    uid: int | None = None,
    admin: Path = ADMIN,
    vendor: Path = VENDOR,
) -> StorageRoots:
    """Where the store that ``reference`` means is; it need not be there.

    A reference with a graphroot says all of it, and no configuration is read. Raises InvalidReference
    for a driver or option that cannot be read here, StoreCorrupt and LocalError for the configuration, NoHome
    where the store would be in a home that there is not. Blocks.
    """
    if reference.graphroot is not None:
        named = _stores_in(reference.options)
        roots: tuple[Path, ...] = (reference.graphroot, *named)
        driver = reference.driver or ""
    else:
        roots, named, driver = _configured(environ, User.of(environ, uid), admin, vendor)
    driver = _OLD_NAMES.get(driver, driver)
    if driver and driver not in TREES:
        raise InvalidReference(
            f"{reference.store} uses the storage driver {driver!r:.40}; layers can be read from"
            f" {' and '.join(TREES)}"
        )
    return StorageRoots(tuple(dict.fromkeys(roots)), driver or None, named)


def storage_files(
    *, environ: Mapping[str, str] = os.environ, admin: Path = ADMIN, vendor: Path = VENDOR
) -> tuple[Path, ...]:
    """The files that say where the store is, in the order in which they are read. Raises as find_roots."""
    return _read(environ, User.of(environ), admin, vendor).files


def _configured(
    environ: Mapping[str, str], user: User, admin: Path, vendor: Path
) -> tuple[tuple[Path, ...], tuple[Path, ...], str]:
    conf = _read(environ, user, admin, vendor)
    expand = _Expansion(environ, user)
    is_root = user.uid == 0
    roots = []
    if conf.graphroot:
        roots.append(expand(conf.graphroot))
    elif conf.rootless and not is_root:
        roots.append(expand(conf.rootless))
    elif is_root:
        roots.append(_ROOT_GRAPHROOT)
    else:
        roots.append(user.data_for("podman's store") / "containers/storage")
    named = [_literal(conf.imagestore)] if conf.imagestore else []
    if (options := environ.get("STORAGE_OPTS")) is not None:  # in place of all that the files say of the kind
        named += _stores_in(tuple(options.split(",")))
    else:
        named += map(_literal, conf.stores)
    roots += named
    if conf.graphroot and not is_root:
        if conf.rootless:
            roots.append(expand(conf.rootless))
        elif user.data is not None:
            roots.append(user.data / "containers/storage")
    return tuple(roots), tuple(named), environ.get("STORAGE_DRIVER") or conf.driver


def _read(environ: Mapping[str, str], user: User, admin: Path, vendor: Path) -> _Conf:
    search = Search.of("storage.conf", VARIABLE, OVERRIDE, env=environ, user=user, admin=admin, vendor=vendor)
    confs = [_Conf()]
    try:
        for candidate in search.candidates(lambda path: path in confs[-1].files):
            confs.append(_over(confs[-1], candidate.path, named=candidate.named))
    except OSError as exc:
        raise LocalError(f"{exc.filename} cannot be read: {exc.strerror}", path=str(exc.filename)) from exc
    return confs[-1]


class _Expansion:
    """Paths with variables as Go's os.ExpandEnv knows them, and ``$UID``: those of graph roots only."""

    def __init__(self, environ: Mapping[str, str], user: User) -> None:
        self._environ = environ
        self._user = user

    def __call__(self, said: _Said) -> Path:
        """Raises StoreCorrupt for what is no path, NoHome."""

        def variable(found: re.Match[str]) -> str:
            name = found["braced"] or found["bare"] or ""
            if name != "HOME" or self._environ.get("HOME"):
                return self._environ.get(name, "")
            if self._user.home is None:
                raise NoHome(
                    f"{said.file}: {said.key} has $HOME in it, and user {self._user.uid} has no home:"
                    " set HOME",
                    path=str(said.file),
                )
            return str(self._user.home)

        return _literal(said, _NAME.sub(variable, said.value.replace("$UID", str(self._user.uid))))


def _literal(said: _Said, value: str | None = None) -> Path:
    """The path as it stands there, or as ``value`` is after its variables. Raises StoreCorrupt."""
    value = said.value if value is None else value
    if not value.startswith("/") or "\0" in value:
        raise StoreCorrupt(
            f"{said.file}: {said.key} {said.value!r:.200} is not an absolute path", path=str(said.file)
        )
    return Path(os.path.normpath(value))


def _over(conf: _Conf, path: Path, *, named: bool) -> _Conf:
    """``conf`` with what the file at ``path`` says put over it; the same where it is not there."""

    def refusal(what: str) -> StoreCorrupt:
        return StoreCorrupt(what, path=str(path))

    try:
        raw = read_file(path, MAX_CONF, named=named)
    except OSError as exc:
        raise LocalError(f"{path} cannot be read: {exc.strerror}", path=str(path)) from exc
    if raw is None:
        return conf
    if len(raw) > MAX_CONF:
        raise refusal(f"{path} is larger than {MAX_CONF} bytes")
    try:
        document = parse_toml(raw).data
    except NotToml as exc:
        where = path if exc.line is None else f"{path}:{exc.line}"
        raise refusal(f"{where}: this is not TOML: {printable(str(exc))}") from exc
    storage = _table(_value(document, "storage"), path, "storage")
    options = _table(_value(storage, "options"), path, "storage.options")

    def text(key: str, before: str) -> str:
        value = _value(storage, key)
        if value is not None and not isinstance(value, str):
            raise refusal(f"{path}: {key} is not a text")
        return before if value is None else value  # an empty one takes back what was said before

    def place(key: str, before: _Said | None) -> _Said | None:
        if _value(storage, key) is None:
            return before
        value = text(key, "")
        return _Said(value, key, path) if value else None

    stores, appends = conf.stores, conf.appends
    listed = _value(options, "additionalimagestores")
    if listed is not None:
        values, attribute = _listed(listed, path)
        appends = appends if attribute is None else attribute
        said = tuple(_Said(value, "additionalimagestores", path) for value in values if value)
        stores = (*stores, *said) if appends else said
    return replace(
        conf,
        driver=text("driver", conf.driver),
        graphroot=place("graphroot", conf.graphroot),
        imagestore=place("imagestore", conf.imagestore),
        rootless=place("rootless_storage_path", conf.rootless),
        stores=stores,
        appends=appends,
        files=(*conf.files, path),
    )


def _listed(value: object, path: Path) -> tuple[tuple[str, ...], bool | None]:
    """The texts of a list, and its attribute ``append``: ``["/a", {append=true}]``."""
    key = "additionalimagestores"
    if not isinstance(value, list):
        raise StoreCorrupt(f"{path}: {key} is not a list", path=str(path))
    texts, append = [], None
    for item in value:
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, dict) and all(k == "append" and type(on) is bool for k, on in item.items()):
            append = item.get("append", append)
        else:
            raise StoreCorrupt(f"{path}: {key} has {item!r:.100} in it, which is no path", path=str(path))
    return tuple(texts), append


def _value(table: Mapping[str, Any], key: str) -> Any:
    """The value under ``key``, else under a key that differs in case only, as Go's decoder finds it."""
    if key in table:
        return table[key]
    return next((value for name, value in table.items() if name.lower() == key), None)


def _table(value: object, path: Path, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise StoreCorrupt(f"{path}: {what} is not a table", path=str(path))
    return value


def _stores_in(options: tuple[str, ...]) -> tuple[Path, ...]:
    """Stores named by driver options, like ``overlay.imagestore=/mnt/images``; others do not matter here."""
    found = []
    for option in options:
        key, _, value = option.strip().partition("=")
        name = key.lower().rpartition(".")[2]
        if name not in _STORE_OPTIONS:
            continue
        if not value.startswith("/"):
            raise InvalidReference(f"storage option {option!r:.200}: {value!r:.200} is not an absolute path")
        found.append(Path(value))
    return tuple(found)
