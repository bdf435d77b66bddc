"""``layertee install-shim``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..skopeo.find import first_on_path, is_shim, search_path
from ..skopeo.shim import install as install_shim
from ..skopeo.shim import remove
from . import image_proxy
from .arguments import parse
from .exits import EXIT_OK
from .output import say, warn


def install(args: argparse.Namespace) -> int:
    """``args``: ``dir``, ``skopeo`` (None: as on PATH), ``force``, ``remove``, ``options`` to bake in.

    Raises LocalError, and for options that image-proxy would refuse what it would answer them with.
    """
    image_proxy.check(parse(["image-proxy", *args.options]))
    if args.remove:
        return _remove(args.dir)
    path = search_path()
    done = install_shim(
        args.dir,
        python=Path(sys.executable),
        path=path,
        skopeo=args.skopeo,
        options=args.options,
        force=args.force,
    )
    say(f"installed {done.path}")
    if done.kept is not None:
        say(f"what was there before is {done.kept}")
    if done.real is None:
        warn(["there is no skopeo on PATH: until there is, only experimental-image-proxy will work"])
    else:
        say(f"everything but experimental-image-proxy goes to {done.real}")
    first = first_on_path(path, shims=True)
    if first is None or not os.path.samefile(first, done.path):
        before = f" before {first.parent}" if first is not None else ""
        say(f"clients will use it once {done.path.parent} is on their PATH{before}")
    return EXIT_OK


def _remove(directory: Path) -> int:
    there = is_shim(directory / "skopeo")
    restored = remove(directory)
    if restored is not None:
        say(f"{restored} is again what it was before")
    else:
        say(f"removed {directory / 'skopeo'}" if there else f"there is no shim in {directory}")
    return EXIT_OK
