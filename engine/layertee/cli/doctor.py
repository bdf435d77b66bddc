"""``layertee doctor``: what runs on this machine, and in which state the store is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config.policy import no_policy, read_policies
from ..config.registries import Registries
from ..config.registries_d import SignatureConfig
from ..config.requirements import Verdict, verdict
from ..config.storage import storage_files
from ..config.trustfile import read_trust
from ..core.loading import core_name, core_report
from ..disk.files import is_directory
from ..disk.space import KeepFree, free_space, human
from ..disk.trusted import refuse_reachable
from ..errors import LocalError, PolicyRefused, RegistriesConfError, UnsafePath
from ..record import dataclass
from ..sandbox.enter import Support, support
from ..skopeo.find import find_skopeo, first_on_path, is_shim, search_path
from ..store.store import Store
from ..version import __version__
from .config import mistakes_of_process
from .exits import EXIT_ERROR, EXIT_OK
from .libraries import library_warnings
from .output import counted, print_json, say, tell, warn
from .shared import root_of

_BY_DEFAULT = {
    Verdict.ACCEPT: "accept",
    Verdict.REJECT: "reject",
    Verdict.SIGNATURES: "signatures decide",
}


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The store in ``root``: whether it was made yet, and then what is in it. Sizes in bytes.

    ``incomplete``: why the map does not have all that it could, None for one that has.
    """

    root: Path
    made: bool
    free: int | None = None
    floor: int | None = None
    n_images: int = 0
    n_pairs: int = 0
    incomplete: str | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, root: Path) -> StoreFacts:
        """Raises StoreCorrupt, LocalError."""
        if not is_directory(root):
            return cls(root, False)
        with Store.open(root, create=False) as store:
            free, floor = free_space(root, KeepFree.usual())
            counts = len(store.images.all()), len(store.catalog.pairs())
            return cls(root, True, free, floor, *counts, store.rebuild_reason, tuple(store.warnings))

    def lines(self) -> list[str]:
        """For a person."""
        lines = [f"store: {self.root}"]
        if self.free is None or self.floor is None:
            return [*lines, "  not there yet; the first pull makes it"]
        lines.append(f"  {human(self.free)} free, {human(self.floor)} of it stay free for the system")
        lines.append(f"  {counted(self.n_images, 'image')}, {counted(self.n_pairs, 'pair')} in the map")
        if self.incomplete:
            lines.append(f"  the map is incomplete: {self.incomplete}; run: layertee verify")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Its part of the object that ``--json`` prints."""
        return {
            "root": str(self.root),
            "made": self.made,
            "free_bytes": self.free,
            "floor_bytes": self.floor,
            "images": self.n_images,
            "pairs": self.n_pairs,
            "incomplete": self.incomplete,
        }


def doctor(args: argparse.Namespace) -> int:
    """Raises StoreCorrupt, LocalError; for an image also InvalidReference, RegistriesConfError."""
    mistakes = mistakes_of_process()
    if args.image is not None:
        from .doctor_image import doctor_image

        return max(settings_found(mistakes), doctor_image(args))
    core = core_report().split("\n")
    images = skopeo_report(args.policy, args.trust_file)
    files, problem = configuration()
    confining = support()
    if not args.json:
        say(*core, *images, *configuration_report(files, problem), *sandbox_report(confining))
        say(*settings_report(mistakes))
    store = StoreFacts.read(root_of(args))
    warnings = list(dict.fromkeys([*library_warnings(), *store.warnings]))
    if args.json:
        print_json(
            {
                "version": __version__,
                "core": core_name(),
                "core_report": core,
                "image_proxy_report": images,
                "configuration": {"files": files, "problem": problem},
                "sandbox": {"landlock": confining.landlock, "seccomp": confining.seccomp},
                "settings": {"mistakes": mistakes},
                "store": store.to_json(),
                "warnings": warnings,
            }
        )
    else:
        say(*store.lines())
    warn(warnings)
    return EXIT_ERROR if store.incomplete or mistakes else EXIT_OK


def settings_found(mistakes: Sequence[str]) -> int:
    """Tell of mistakes in layertee.toml and the environment beside the report of an image; the exit code."""
    if not mistakes:
        return EXIT_OK
    tell(*(f"layertee: {line}" for line in settings_report(mistakes)))
    return EXIT_ERROR


def settings_report(mistakes: Sequence[str]) -> list[str]:
    """What stops other commands, for a person; a line each, and none without mistakes."""
    if not mistakes:
        return []
    return ["settings: commands that these are for refuse to run:", *(f"  {one}" for one in mistakes)]


def configuration() -> tuple[list[str], str | None]:
    """The files about registries, in the order in which they are read; and why they cannot be read."""
    try:
        files = [*Registries.read().files, *SignatureConfig.read().files, *storage_files()]
    except (RegistriesConfError, LocalError) as exc:
        return [], str(exc)
    return [str(file) for file in files], None


def configuration_report(files: Sequence[str], problem: str | None) -> list[str]:
    """The same for a person; a line each."""
    if problem is not None:
        return [f"configuration: images cannot be found by it: {problem}"]
    if not files:
        return ["configuration: no registries.conf, no registries.d, no storage.conf"]
    return ["configuration, in the order in which it is read:", *(f"  {file}" for file in files)]


def sandbox_report(found: Support) -> list[str]:
    """What of ``--sandbox`` this kernel has; a line each."""
    if not found.lacking:
        return [f"sandbox, for --sandbox: Landlock (version {found.landlock}) and a filter of system calls"]
    return [
        "sandbox, for --sandbox: not complete; --sandbox require fails",
        *(f"  {one}" for one in found.lacking),
    ]


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
