"""What several commands share: the engine's options as they were typed, and the store."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..disk.files import disk_error, is_directory
from ..disk.keeping import KeepPartials
from ..disk.space import KeepFree
from ..errors import NotFound
from ..image.holding import Basis
from ..image.placename import parse_place
from ..image.platform import Platform
from ..options import Budget, Options
from ..store.layout import is_unfinished
from ..store.store import Store, default_root
from ..transfer.limits import FetchLimits, RangeMode
from .output import tell
from .policyargs import policy_of
from .secrets import given_login


def options_of(args: argparse.Namespace, *, places_by_default: Sequence[str] = ()) -> Options:
    """How the engine is to behave, of any command that has one.

    Raises InvalidReference, AuthConfigError.
    """
    creds = given_login(args)
    return Options(
        platform=_platform(args),
        authfile=args.authfile if creds is None else None,
        credentials=creds,
        anonymous=args.no_creds,
        trusted_realms=tuple(args.trusted_realms),
        tls_verify=args.tls_verify,
        registries_conf=args.registries_conf,
        cert_dir=args.cert_dir,
        places=tuple(parse_place(text) for text in args.places or places_by_default),
        trust=Basis(args.trust),
        limits=FetchLimits(
            max_connections=args.max_connections,
            ranges=RangeMode(args.ranges),
            max_rate=args.max_rate,
            stall_s=args.stall_timeout,
            patience_s=args.patience,
        ),
        keep_free=args.keep_free or KeepFree.usual(),
        keep_partials=args.keep_partials or KeepPartials.usual(),
        zstd_window=args.zstd_window,
        user_agent_prefix=args.user_agent_prefix,
        keep_signatures=getattr(args, "keep_signatures", False),
        policy=policy_of(args),
        budget=Budget(
            max_output=args.max_output,
            deadline_s=args.deadline,
            min_rate=args.min_rate,
        ),
    )


def root_of(args: argparse.Namespace) -> Path:
    """Where the store is that is meant. Raises LocalError."""
    root: Path | None = args.store
    return root or default_root()


def open_store(args: argparse.Namespace) -> Store:
    """The store, which must be there. Raises NotFound, StoreCorrupt, LocalError."""
    store = _open_if_there(args)
    if store is None:
        raise NotFound(f"{_none_in(root_of(args))}; the first pull makes it").with_hint("store-place")
    return store


def _open_if_there(args: argparse.Namespace) -> Store | None:
    """The store; None where none was made yet. Raises StoreCorrupt, LocalError."""
    root = root_of(args)
    if not is_directory(root) or is_unfinished(root):
        return None
    return Store.open(root, create=False)


@contextmanager
def store_or_nothing(args: argparse.Namespace) -> Iterator[Store | None]:
    """The store for a command that finds nothing in one that was not made yet, and says so.

    Raises StoreCorrupt, LocalError.
    """
    store = _open_if_there(args)
    if store is None:
        tell(f"layertee: {_none_in(root_of(args))} yet; the first pull makes it")
        yield None
        return
    with store:
        yield store


def _none_in(root: Path) -> str:
    return f"there is no store in {root}"


@contextmanager
def look_into(root: Path, private: bool = True) -> Iterator[Store]:
    """The store in ``root`` for a command that changes nothing: where none is, an empty one elsewhere.

    Raises StoreCorrupt, LocalError.
    """
    if is_directory(root / "layertee"):
        with Store.open(root, create=False, private=private) as store:
            yield store
        return
    try:
        scratch = TemporaryDirectory(prefix="layertee-")
    except OSError as exc:
        raise disk_error(exc, "making a directory in", os.environ.get("TMPDIR") or "/tmp") from exc
    with scratch, Store.open(Path(scratch.name) / "store") as store:
        yield store


def _platform(args: argparse.Namespace) -> Platform | None:
    """``--platform``, or skopeo's three options for its parts; None where nothing is given."""
    if args.platform is not None:
        return Platform.parse(args.platform)
    if not (args.override_os or args.override_arch or args.override_variant):
        return None
    host = Platform.host()
    variant = args.override_variant or (None if args.override_arch else host.variant)
    return Platform(args.override_os or host.os, args.override_arch or host.architecture, variant)
