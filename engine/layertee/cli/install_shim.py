"""``layertee install-shim``: the command, and what ``layertee doctor`` says of it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..config.policy import Verdict, read_policy
from ..errors import PolicyRefused
from ..skopeo.check import find_skopeo
from ..skopeo.shim import first_on_path, is_shim, remove
from ..skopeo.shim import install as install_shim
from .main import EXIT_OK
from .output import warn

_BY_DEFAULT = {
    Verdict.ACCEPT: "accept",
    Verdict.REJECT: "reject",
    Verdict.SIGNATURES: "signatures are checked by the real skopeo",
}


def install(args: argparse.Namespace) -> int:
    """``args``: ``dir``, ``skopeo`` (None: as on PATH), ``force``, ``remove``, ``options`` to bake in."""
    if args.remove:
        return _remove(args.dir)
    path = os.environ.get("PATH", os.defpath)
    done = install_shim(
        args.dir,
        python=Path(sys.executable),
        path=path,
        skopeo=args.skopeo,
        options=args.options,
        force=args.force,
    )
    print(f"installed {done.path}")
    if done.kept is not None:
        print(f"what was there before is {done.kept}")
    if done.real is None:
        warn(["there is no skopeo on PATH: until there is, only experimental-image-proxy will work"])
    else:
        print(f"everything but experimental-image-proxy goes to {done.real}")
    first = first_on_path(path, shims=True)
    if first is None or not os.path.samefile(first, done.path):
        before = f" before {first.parent}" if first is not None else ""
        print(f"clients will use it once {done.path.parent} is on their PATH{before}")
    return EXIT_OK


def report() -> list[str]:
    """Which skopeo clients start, which one judges signatures, and what the policy says; a line each."""
    first = first_on_path(os.environ.get("PATH", os.defpath), shims=True)
    if first is None:
        lines = ["image-proxy: there is no skopeo on PATH, which is what clients start"]
    else:
        which = "the shim: clients get layertee" if is_shim(first) else "not the shim: see install-shim"
        lines = [f"image-proxy: skopeo on PATH is {first}, {which}"]
    real = find_skopeo()
    lines.append(f"  the real one, for signatures and other transports: {real or 'there is none'}")
    try:
        policy = read_policy()
        lines.append(f"  policy: {policy.path}; by default: {_BY_DEFAULT[policy.default]}")
    except PolicyRefused as exc:
        lines.append(f"  no image will be opened: {exc}")
    return lines


def _remove(directory: Path) -> int:
    there = is_shim(directory / "skopeo")
    restored = remove(directory)
    if restored is not None:
        print(f"{restored} is again what it was before")
    else:
        print(f"removed {directory / 'skopeo'}" if there else f"there is no shim in {directory}")
    return EXIT_OK
