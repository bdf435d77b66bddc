"""``--sandbox``: what a command needs of the machine, found out of its arguments and of the configuration.

The rest is given away (sandbox/) before anything of an image, a registry or a client is read.
"""

from __future__ import annotations

import argparse
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..config.home import User
from ..disk.files import is_directory
from ..disk.outputs import output_at, output_directory_at
from ..disk.trusted import refuse_reachable
from ..errors import LayerteeError
from ..image.placename import PlaceKind, PlaceName, parse_place
from ..image.reference import ArchiveReference, LayoutReference, parse_reference
from ..image.reference_storage import StorageReference, parse_storage
from ..sandbox.enter import Sandbox, SandboxError, enter
from ..sandbox.landlock import Rules
from .shared import root_of
from .targets import DirectoryTarget, refuse_one_file_for_two, target_of

log = logging.getLogger(__name__)

_RESULTS: Final = ("digestfile", "metrics_file")
_MAKES_A_STORE: Final = ("pull", "import", "image-proxy")
# Programs and their libraries. What else is in PATH, and this Python, comes on top.
_PROGRAMS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
_ETC: Final = tuple(
    f"/etc/{name}"
    for name in (
        *("containers", "layertee", "docker", "ostree"),
        *("ssl", "pki", "ca-certificates", "crypto-policies", "gcrypt"),
        *("resolv.conf", "hosts", "host.conf", "gai.conf", "nsswitch.conf", "protocols", "services"),
        *("passwd", "group", "subuid", "subgid", "machine-id", "os-release"),
        # mimetypes, which aiohttp imports, reads each of those that is there.
        *(
            "mime.types",
            "httpd/mime.types",
            "httpd/conf/mime.types",
            "apache/mime.types",
            "apache2/mime.types",
        ),
        *(
            "localtime",
            "ld.so.cache",
            "ld.so.preload",
            "ld.so.conf",
            "ld.so.conf.d",
            "locale.conf",
            "selinux",
        ),
    )
)
# Who resolves names here may replace the files of the first four at any time: so, directories.
_STATE: Final = (
    *("/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/run/nscd", "/run/ostree"),
    *("/run/containers", "/var/lib/sss", "/var/lib/containers/sigstore", "/var/cache/containers"),
    *("/proc", "/sys/devices/system/cpu", "/sys/fs/cgroup", "/sys/kernel/mm"),
)
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_ENVIRONMENT: Final = ("SSL_", "DOCKER_", "REGISTRY_", "CONTAINERS_", "LAYERTEE_")
# Where keys and signatures are, in files that only administrators write; not in their comments.
_CONFIGURATION: Final = ("policy.json", "trust.toml")
_DROP_INS: Final = ("registries.d", "registries.rootful.d", "registries.rootless.d", "trust.d")
_SUFFIXES: Final = (".json", ".toml", ".yaml")
_URL: Final = "file:///"
_MOST: Final = 1 << 20
# Too much for a file that happens to name it.
_WIDE: Final = frozenset(("/", "/etc", "/root", "/home", "/var", "/run", "/proc", "/dev", "/boot"))


def confine(args: argparse.Namespace) -> None:
    """Do what ``--sandbox`` says, for good. Raises SandboxError, UnsafePath, LocalError."""
    mode = Sandbox(args.sandbox)
    if mode is Sandbox.OFF:
        return
    found = enter(rules_for(args), mode)
    for what in found.lacking:
        log.warning("the sandbox is not complete: %s", what)
    log.info("sandbox: Landlock %d, filter of system calls: %s", found.landlock, found.seccomp)


def rules_for(args: argparse.Namespace) -> Rules:
    """What ``args`` need of the machine. A store that the command would make is made. Blocks.

    Raises InvalidReference, UnsafePath, LocalError.
    """
    if args.command == "pull":
        refuse_one_file_for_two(args)  # before a store is made
    user = User.of()
    serves = args.command == "serve"
    written = [*_stores(args), *_written(args)]
    given = os.environ.get("TMPDIR")
    # Where layers of podman's store are put together, too.
    kept = [Path(name) for name in ([given] if given else ["/tmp", "/var/tmp"])]
    own_cache = getattr(args, "cache", None)
    if own_cache is not None:
        _make(own_cache, private=False)
        kept.append(own_cache)
    named = [*_named(args), *_places(args)]
    return Rules(
        read=(*_configured(args, user), *map(str, named), *(map(str, written) if serves else ())),
        run=tuple(_programs()),
        write=(*map(str, kept), *(() if serves else map(str, written))),
        devices=_DEVICES,
        connects=not (serves or args.command == "import" or (args.command == "verify" and not args.image)),
        listens=serves,
        asks=serves and "NOTIFY_SOCKET" in os.environ,
        speaks=serves and os.environ.get("NOTIFY_SOCKET", "").startswith("@"),
        gives_to=tuple(_owners(args)),
    )


def _stores(args: argparse.Namespace) -> Iterator[Path]:
    """The store, and what ``--to`` names. Raises SandboxError for what another program would write."""
    target = target_of(args) if args.command == "pull" else None
    changes = not getattr(args, "dry_run", False)
    if isinstance(target, StorageReference):
        raise SandboxError(
            f"{target.store} is written by skopeo, which mounts: that is not possible in a sandbox, and takes"
            " --sandbox off"
        ).with_hint("")
    if isinstance(target, LayoutReference):
        yield _made(target.path, changes=changes)
        return
    if not hasattr(args, "store"):
        return
    root = root_of(args)
    if changes and args.command in _MAKES_A_STORE:
        _make(root, private=True)
    yield root
    if isinstance(target, DirectoryTarget):
        yield _made(target.path, changes=changes, outside=root)
    elif target is not None:
        yield from _result(target.path)


def _result(path: Path) -> Iterator[Path]:
    """What a file that is to be written takes. One that cannot be, the command refuses."""
    try:
        found = output_at(path, streams=True)
    except LayerteeError:
        return
    if not found.is_stream:  # a descriptor is open, and devices have a rule
        yield _beside(found.target)


def _owners(args: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """Those of files that are to be replaced, which the new ones are given to."""
    target = target_of(args) if args.command == "pull" else None
    archive = target.path if isinstance(target, ArchiveReference) else None
    for path in (archive, *(getattr(args, name, None) for name in _RESULTS)):
        with suppress(LayerteeError):
            if path is not None and (old := output_at(path, streams=True).old) is not None:
                yield old.st_uid, old.st_gid


def _beside(path: Path) -> Path:
    """Where a file, or a directory, can be put in place of what has its name; that alone in a usual place."""
    parent = path.absolute().parent
    return parent if not _is_wide(parent) else path


def _written(args: argparse.Namespace) -> Iterator[Path]:
    if args.command == "prepare":
        yield args.ostree_repo
    for name in _RESULTS:
        file = getattr(args, name, None)
        if file is not None:
            yield from _result(file)


def _made(path: Path, *, changes: bool, outside: Path | None = None) -> Path:
    """The directory that an image is to be written into. LocalError for one in ``outside``, a store."""
    where = output_directory_at(path, outside=[outside] if outside else [])
    if changes:
        _make(where, private=False)
    return where


def _make(path: Path, *, private: bool) -> None:
    """A directory as the store would make it, since rules are for what is there."""
    if is_directory(path):
        return
    if private:
        refuse_reachable(path, absent=True)
    try:
        path.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    except OSError:
        return  # what becomes of it, the command says


def _is_wide(path: Path | str) -> bool:
    return os.path.normpath(path) in _WIDE


def _programs() -> Iterator[str]:
    yield from _PROGRAMS
    yield from (sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(sys.executable))
    directories = [*sys.path, *os.environ.get("PATH", os.defpath).split(os.pathsep)]
    directories += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    yield from (name for name in directories if os.path.isabs(name) and not _is_wide(name))
    yield os.path.dirname(
        os.path.dirname(os.path.realpath(__file__))
    )  # an installation that is edited in place


def _configured(args: argparse.Namespace, user: User) -> Iterator[str]:
    yield from _ETC
    yield from _STATE
    directories = ["/etc/containers", "/etc/layertee", "/usr/share/containers"]
    if user.config is not None:
        directories += [f"{user.config}/containers", f"{user.config}/layertee"]
    yield from directories
    if user.home is not None:
        yield from (f"{user.home}/.docker", f"{user.home}/.dockercfg")
    if user.data is not None:
        yield f"{user.data}/containers/sigstore"
    if user.cache is not None:
        yield from (f"{user.cache}/containers", f"{user.cache}/sigstore-python")
    if user.runtime is not None:
        yield f"{user.runtime}/containers"
    from_environment = [
        value
        for name, value in os.environ.items()
        if name.startswith(_ENVIRONMENT) and os.path.isabs(value) and not _is_wide(value)
    ]
    yield from from_environment
    files = [f"{directory}/{name}" for directory in directories for name in _CONFIGURATION]
    files += [path for path in from_environment if path.endswith(_SUFFIXES)]
    folders = [f"{directory}/{name}" for directory in directories for name in _DROP_INS]
    if _has_policies(args):
        files += [str(path) for path in (args.policy, args.trust_file) if path]
        folders += [str(args.registries_d)] if args.registries_d else []
    for path in [*files, *(path for folder in folders for path in _listed(folder))]:
        yield from _paths_in(path)
    if _has_policies(args) and args.trust_file:
        yield str(args.trust_file.absolute().parent)  # its keys are named from there


def _has_policies(args: argparse.Namespace) -> bool:
    """Whether it is a command that may ask for signatures."""
    return hasattr(args, "trust_file")


def _named(args: argparse.Namespace) -> Iterator[Path]:
    """What options name, in the words of the command line or as paths."""
    for name, value in vars(args).items():
        if name in ("store", "to", "cache", *_RESULTS):
            continue
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, Path) and not _is_wide(one):
                yield one
                if args.command == "serve":  # certificates are renewed while it runs
                    yield from (
                        at for at in (one.absolute().parent, one.resolve().parent) if not _is_wide(at)
                    )
    with_stdin = os.fstat(0)
    if stat.S_ISREG(with_stdin.st_mode):
        yield Path("/proc/self/fd/0")


def _places(args: argparse.Namespace) -> Iterator[Path]:
    """What the image, and places for layers, have on this machine."""
    named = getattr(args, "images", None) or [getattr(args, "image", None)]
    for image in (*named, getattr(args, "source", None)):
        if image:
            yield from _paths_of(parse_reference, image)
    texts = list(getattr(args, "places", None) or ())
    if args.command == "image-proxy":
        texts += [args.client_repo] if ":" in args.client_repo else []
        yield from _paths_of(parse_place, "auto")
        if args.client_repo.startswith("/"):
            yield Path(args.client_repo)
    for text in texts:
        yield from _paths_of(parse_place, text)


def _paths_of(parse: Callable[[str], object], text: str) -> Iterator[Path]:
    """The paths in a name, and those that it stands for. A name that is none is the command's to refuse."""
    try:
        found = parse(text)
        if isinstance(found, PlaceName | StorageReference):
            yield from _usual_paths(found)
    except LayerteeError:
        return
    path = found if isinstance(found, Path) else getattr(found, "path", None)
    if isinstance(path, Path):
        yield path


def _usual_paths(found: PlaceName | StorageReference) -> Iterator[Path]:
    """What a place means that is said without a path. Raises LayerteeError for a wrong configuration."""
    from ..config.storage import find_roots
    from ..places.blobinfocache import default_path
    from ..places.find import COMPOSEFS_REPO, OSTREE_REPOS

    if isinstance(found, PlaceName) and found.kind is PlaceKind.BLOB_INFO_CACHE:
        yield (found.path or default_path()).parent  # SQLite looks for what belongs to it
    if isinstance(found, PlaceName) and found.kind is PlaceKind.AUTO:
        yield from (*OSTREE_REPOS, COMPOSEFS_REPO)
        found = parse_storage("containers-storage:")
    if isinstance(found, StorageReference):
        yield default_path().parent
        yield from find_roots(found).roots


def _listed(folder: str) -> Iterable[str]:
    try:
        return [f"{folder}/{name}" for name in sorted(os.listdir(folder))]
    except OSError:
        return ()


def _paths_in(file: str) -> Iterator[str]:
    """The absolute paths that a file of the configuration names. One that cannot be read names none."""
    try:
        with open(file, "rb") as opened:
            text = opened.read(_MOST).decode("utf-8", "replace")
    except (OSError, ValueError):
        return
    lines = [line for line in text.replace("\\/", "/").split("\n") if not line.lstrip().startswith("#")]
    for line in lines:
        words = line.replace("'", '"').split('"')  # in any of the formats, a path stands by itself in quotes
        words += [word.partition("file://")[2] for word in [*words, *line.split()] if _URL in word]
        for word in words:
            if word.startswith("/") and "\0" not in word and not _is_wide(word):
                yield word
