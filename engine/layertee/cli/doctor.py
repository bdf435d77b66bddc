"""``layertee doctor``: what runs on this machine, and in which state the store is."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config.policy import no_policy, read_policies
from ..config.registries import Registries
from ..config.registries_d import SignatureConfig
from ..config.requirements import Verdict, verdict
from ..config.storage import storage_files
from ..config.trustfile import read_trust
from ..core.loading import core_report
from ..disk.files import is_directory
from ..disk.space import KeepFree, free_space, human
from ..disk.trusted import refuse_reachable
from ..errors import LocalError, PolicyRefused, RegistriesConfError, UnsafePath
from ..skopeo.find import find_skopeo, first_on_path, is_shim, search_path
from ..store.store import Store
from .exits import EXIT_ERROR, EXIT_OK
from .output import say, warn
from .shared import root_of

_BY_DEFAULT = {
    Verdict.ACCEPT: "accept",
    Verdict.REJECT: "reject",
    Verdict.SIGNATURES: "signatures decide",
}


def doctor(args: argparse.Namespace) -> int:
    """Raises StoreCorrupt, LocalError; for an image also InvalidReference, RegistriesConfError."""
    if args.image is not None or args.json:
        from .doctor_image import doctor_image

        return doctor_image(args)
    say(*core_report().split("\n"))
    say(*skopeo_report(args.policy, args.trust_file))
    say(*configuration_report())
    root = root_of(args)
    say(f"store: {root}")
    if not is_directory(root):
        say("  not there yet; the first pull makes it")
        return EXIT_OK
    with Store.open(root, create=False) as store:
        free, floor = free_space(root, KeepFree.usual())
        say(f"  {human(free)} free, {human(floor)} of it stay free for the system")
        say(f"  {len(store.images.all())} images, {len(store.catalog.pairs())} pairs in the map")
        if store.rebuild_reason:
            say(f"  the map is incomplete: {store.rebuild_reason}; run: layertee verify")
        warn(store.warnings)
        return EXIT_ERROR if store.rebuild_reason else EXIT_OK


def configuration_report() -> list[str]:
    """Which files about registries are read; a line each."""
    try:
        files = [*Registries.read().files, *SignatureConfig.read().files, *storage_files()]
    except (RegistriesConfError, LocalError) as exc:
        return [f"configuration: images cannot be found by it: {exc}"]
    if not files:
        return ["configuration: no registries.conf, no registries.d, no storage.conf"]
    return ["configuration, in the order in which it is read:", *(f"  {path}" for path in files)]


def skopeo_report(policy_file: Path | None = None, trust_file: Path | None = None) -> list[str]:
    """Which skopeo clients start, and what the policy says; a line each."""
    first = first_on_path(search_path(), shims=True)
    if first is None:
        lines = ["image-proxy: there is no skopeo on PATH, which is what clients start"]
    else:
        which = "the shim: clients get layertee" if is_shim(first) else "not the shim: see install-shim"
        lines = [f"image-proxy: skopeo on PATH is {first}, {which}"]
    real = find_skopeo()
    lines.append(f"  the real one, for other transports: {real or 'there is none'}")
    try:
        policies = read_policies(policy_file)
        for policy in policies:
            lines.append(f"  policy: {policy.path}; by default: {_BY_DEFAULT[verdict(policy.default)]}")
        if len(policies) > 1:
            lines.append("    both hold: older programs look only into ~/.config and /etc for it")
        if not policies:
            lines.append(f"  image-proxy will open no image, pull takes any: {no_policy()}")
        trust = read_trust(trust_file, check=refuse_reachable)
        lines += [f"  policy, besides: {path}" for path in trust.files]
    except (PolicyRefused, UnsafePath) as exc:
        lines.append(f"  no image will be opened: {exc}")
    return lines
