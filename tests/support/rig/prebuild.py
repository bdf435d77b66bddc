"""What is compiled for tests is compiled before them: ``python -m tests.support.rig.prebuild [NAME …]``.

Compiling takes minutes where nothing is cached, and tests have limits. So ``make test`` runs this first, and
pytest does the same between collecting tests and running the first, for those that are marked with
``builds(NAME, …)``. What is there already is found at once. What can't be built on this machine is left out
with a line that says why, and tests that need it are skipped with that line.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from tests.support import armcore, ccore, wheels
from tests.support.rig import goprograms, hosts_without, ostreeclient, proxyclient, pythons, tree
from tests.support.rig.crates import NoRust
from tests.support.rig.goprograms import NoGo
from tests.support.rig.registry import RigError

PROGRAMS: dict[str, Callable[[], Path]] = {
    "proxyclient": proxyclient.build,
    "containers-image-proxy-tests": proxyclient.build_tests,
    "ostreeclient": ostreeclient.build,
    "ostree-ext-tests": ostreeclient.build_tests,
    "cosign2": goprograms.cosign2,
    "cosign3": goprograms.cosign3,
    "conformance": goprograms.conformance,
    "crane": goprograms.crane,
    "imagecopy": goprograms.imagecopy,
    "imagepolicy": goprograms.imagepolicy,
    "proxyrules": goprograms.proxyrules,
    "oras": goprograms.oras,
    "regctl": goprograms.regctl,
    "registriesconf": goprograms.registriesconf,
    "storageconf": goprograms.storageconf,
    "core-tests": ccore.build_all,
    "arm-core-tests": armcore.build_all,
    "arm-libraries": armcore.libraries,
    "fault-library": ccore.fault_library,
    "wheels": wheels.built,
    "arm-root": wheels.arm_root,
    "debian": hosts_without.debian,
    "tree": tree.archive,
    **{f"python{version}": partial(pythons.find, version) for version in pythons.WANTED},
}

_prepared: dict[str, Path | RigError] = {}


class NotBuilt(RigError):
    """A program can't be built here. The text is one line that says why."""


def prepare(names: Iterable[str], say: Callable[[str], None]) -> bool:
    """Build those that are not there, one after the other; ``program`` has them afterwards.

    ``say`` gets a line for each that took a while or can't be had. False if one can't be compiled.
    """
    good = True
    for name in names:
        begin = time.monotonic()
        try:
            _prepared[name] = PROGRAMS[name]()
        except (
            NoRust,
            NoGo,
            armcore.NotForArm,
            ccore.NoCompiler,
            hosts_without.NoDebootstrap,
            pythons.NoPython,
            tree.NoTree,
            wheels.NotToBeHad,
        ) as exc:
            _prepared[name] = NotBuilt(str(exc))
            say(f"prebuild: {name} is left out: {exc}")
        except RigError as exc:
            _prepared[name] = exc
            good = False
            say(f"prebuild: {exc}")
        else:
            if (took := time.monotonic() - begin) > 1:
                say(f"prebuild: {name} was built in {took:.0f} s")
    return good


def program(name: str) -> Path:
    """One that was prepared. Raises NotBuilt, and RigError if it could not be compiled.

    Nothing is built by this, since it would count as part of a test: RuntimeError for another name.
    """
    if name not in _prepared:
        raise RuntimeError(f"mark the test with builds({name!r})")
    found = _prepared[name]
    if isinstance(found, RigError):
        raise found
    return found


def main(words: Sequence[str] | None = None) -> int:
    """The exit status: 1 if something can't be compiled. What is left out, as said above, is no failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.rig.prebuild", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(PROGRAMS)}; default: all"
    )
    names = parser.parse_args(words).names or list(PROGRAMS)
    if unknown := set(names) - set(PROGRAMS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    say("prebuild: what tests need that is compiled; minutes, the first time")
    return 0 if prepare(names, say) else 1


if __name__ == "__main__":
    sys.exit(main())
