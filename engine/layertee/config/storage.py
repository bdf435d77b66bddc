"""Where podman's, buildah's and skopeo's images are on this machine.

containers-storage.conf(5). Only what says where layers are is read: nothing here is about mounting or
creating. The first file found is the configuration; the environment is put over it; stores that are
shared and read-only (additional image stores) come after the machine's own. What the file says wrongly
is an error, and not the default in its place: the user would look for the reason elsewhere.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import InvalidReference, LocalError, NoHome, StoreCorrupt
from ..image.reference_storage import StorageReference
from .home import User
from .reading import read_file

MAX_CONF: Final = 1 << 20
_SYSTEM_CONFS: Final = (
    Path("/etc/containers/storage.conf"),
    Path("/usr/share/containers/storage.conf"),
)
_ROOT_GRAPHROOT: Final = Path("/var/lib/containers/storage")
# Where a layer is unpacked, beneath the root of a store, by its driver.
TREES: Final = {"overlay": "overlay/{}/diff", "vfs": "vfs/dir/{}"}
_OLD_NAMES: Final = {"overlay2": "overlay"}
# One keeps the images apart from the containers, the other names a store more.
_STORE_OPTIONS: Final = frozenset({"imagestore", "additionalimagestore"})


@dataclass(frozen=True, slots=True)
class StorageRoots:
    """The directories that hold layers and images, the machine's own first.

    ``driver`` is None where nothing names one: whatever is there, then.
    """

    roots: tuple[Path, ...]
    driver: str | None

    @property
    def drivers(self) -> tuple[str, ...]:
        """The drivers to look for."""
        return (self.driver,) if self.driver else tuple(TREES)


@dataclass(frozen=True, slots=True)
class _Conf:
    driver: str | None = None
    graphroot: Path | None = None
    stores: tuple[Path, ...] = ()


def find_roots(
    reference: StorageReference,
    *,
    environ: Mapping[str, str] = os.environ,
    uid: int | None = None,
    system_confs: tuple[Path, ...] = _SYSTEM_CONFS,
) -> StorageRoots:
    """Where the store that ``reference`` means is; it need not be there.

    A reference with a graphroot says all of it, and no configuration is read. Raises InvalidReference
    for a driver or option that cannot be read here, StoreCorrupt and LocalError for the configuration, NoHome
    where the store would be in a home that there is not. Blocks.
    """
    if reference.graphroot is not None:
        conf = _Conf(reference.driver, reference.graphroot, _stores_in(reference.options))
    else:
        conf = _configured(environ, User.of(environ, uid), system_confs)
    driver = _OLD_NAMES.get(conf.driver, conf.driver) if conf.driver else None
    if driver is not None and driver not in TREES:
        raise InvalidReference(
            f"{reference.store} uses the storage driver {driver!r:.40}; layers can be read from"
            f" {' and '.join(TREES)}"
        )
    assert conf.graphroot is not None
    return StorageRoots(tuple(dict.fromkeys((conf.graphroot, *conf.stores))), driver)


def _configured(environ: Mapping[str, str], user: User, system_confs: tuple[Path, ...]) -> _Conf:
    found = _found(environ, user, system_confs)
    conf = _parsed(*found, environ, user) if found else _Conf()
    graphroot = conf.graphroot
    if graphroot is None and user.uid == 0:
        graphroot = _ROOT_GRAPHROOT
    elif graphroot is None:
        graphroot = user.data_for("podman's store") / "containers/storage"
    options = tuple(environ.get("STORAGE_OPTS", "").split(","))
    driver = environ.get("STORAGE_DRIVER") or conf.driver
    return _Conf(driver, graphroot, conf.stores + _stores_in(options))


def _found(
    environ: Mapping[str, str], user: User, system_confs: tuple[Path, ...]
) -> tuple[Path, bytes, bool] | None:
    """The file that counts and what is in it, if there is one, and whether it speaks for this user."""
    if named := environ.get("CONTAINERS_STORAGE_CONF"):
        path = Path(named)
        return path, _content(path, named=True) or b"", True
    places = []
    # Root's own is looked at only where the environment says where it is.
    if user.config is not None and (user.uid != 0 or os.path.isabs(environ.get("XDG_CONFIG_HOME", ""))):
        places.append((user.config / "containers/storage.conf", True))
    for path, own in (*places, *((path, user.uid == 0) for path in system_confs)):
        if (raw := _content(path, named=False)) is not None:
            return path, raw, own
    return None


def _content(path: Path, *, named: bool) -> bytes | None:
    try:
        return read_file(path, MAX_CONF, named=named)
    except OSError as exc:
        raise LocalError(f"{path}: {exc.strerror}", path=str(path)) from exc


def _parsed(path: Path, raw: bytes, own: bool, environ: Mapping[str, str], user: User) -> _Conf:
    storage = _table(_toml(path, raw).get("storage"), path, "storage")
    options = _table(storage.get("options"), path, "storage.options")

    def paths(what: str, values: list[object]) -> list[Path]:
        found = [_path(value, path, what, environ, user) for value in values]
        return [value for value in found if value is not None]

    # The system's graphroot is root's; what others use, it says in another field.
    graphroots = paths("graphroot", [storage.get("graphroot")]) if own else []
    if user.uid != 0:
        graphroots += paths("rootless_storage_path", [storage.get("rootless_storage_path")])
    listed = options.get("additionalimagestores", [])
    if not isinstance(listed, list):
        raise StoreCorrupt(f"{path}: additionalimagestores is not a list", path=str(path))
    stores = paths("imagestore", [storage.get("imagestore")]) if own else []
    stores += paths("additionalimagestores", listed)
    driver = storage.get("driver") or None
    if driver is not None and not isinstance(driver, str):
        raise StoreCorrupt(f"{path}: driver is not a string", path=str(path))
    return _Conf(driver, next(iter(graphroots), None), tuple(stores))


def _toml(path: Path, raw: bytes) -> dict[str, object]:
    if len(raw) > MAX_CONF:
        raise StoreCorrupt(f"{path} is larger than {MAX_CONF} bytes", path=str(path))
    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as exc:
        raise StoreCorrupt(f"{path} is not TOML: {exc}", path=str(path)) from exc


def _table(value: object, path: Path, what: str) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise StoreCorrupt(f"{path}: {what} is not a table", path=str(path))
    return value


def _path(value: object, conf: Path, what: str, environ: Mapping[str, str], user: User) -> Path | None:
    """A path as the file has it, with the three names that may be in it; None for an empty one."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise StoreCorrupt(f"{conf}: {what} is not a string", path=str(conf))
    if "$HOME" in value and user.home is None:
        raise NoHome(
            f"{conf}: {what} has $HOME in it, and user {user.uid} has no home: set HOME", path=str(conf)
        )
    known = {"HOME": str(user.home), "UID": str(user.uid), "USER": environ.get("USER", "")}
    for name, meaning in known.items():
        value = value.replace(f"${name}", meaning)
    if not value.startswith("/") or "\0" in value:
        raise StoreCorrupt(f"{conf}: {what} {value!r:.200} is not an absolute path", path=str(conf))
    return Path(value)


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
