"""The self-contained tree beside a virtual environment: ``python -m bench.tree [--rounds N]``.

What each takes on the disk, and what commands cost that have little to do but to start: wall time and CPU
of whole commands, in rounds of shuffled order; a ratio is the median of the rounds' own. The tree is that of
this checkout, made as a release makes it, unless an archive is given; the environment is this Python's.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.held.document import paired
from bench.held.rounds import interleaved
from bench.measure import measure
from bench.where import DESTINATIONS
from tests.support.rig import tree
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

N_LAYERS = 40
TREE, ENVIRONMENT = "tree", "virtual environment"


@dataclass(frozen=True, slots=True)
class Room:
    """What a directory takes: the bytes of its files, each counted once, and how many there are."""

    nbytes: int
    files: int

    def __str__(self) -> str:
        return f"{self.nbytes / 1e6:.1f} MB in {self.files:,} files"


def room(directory: Path) -> Room:
    """That of a directory. Links count nothing."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    inodes = {(status.st_dev, status.st_ino): status.st_size for status in map(Path.stat, files)}
    return Room(sum(inodes.values()), len(inodes))


def shown(taken: dict[tuple[str, str], list[dict[str, float]]]) -> list[str]:
    """Lines of Markdown: medians in ms of each command, and the tree's beside the environment's."""
    lines = ["| command | from | wall ms | CPU ms | beside: wall / CPU |", "|---" * 5 + "|"]
    for (name, where), rounds in taken.items():
        wall, cpu = (statistics.median(it[what] for it in rounds) * 1000 for what in ("wall_s", "cpu_s"))
        beside = ""
        if where == TREE:
            ratio = paired(name, rounds, taken[name, ENVIRONMENT])
            beside = f"{ratio.wall:.2f} / {ratio.cpu:.2f}"
        lines.append(f"| {name} | {where} | {wall:.0f} | {cpu:.0f} | {beside} |")
    return lines


def starts(programs: dict[str, Path], rounds: int) -> dict[tuple[str, str], list[dict[str, float]]]:
    """What each command took from each place, in the order of rounds. Raises CommandFailed, RigError."""
    with tempfile.TemporaryDirectory(prefix="layertee-tree-", dir=DESTINATIONS["tmpfs"]) as directory:
        scratch = Path(directory)
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(scratch), "LC_ALL": "C.UTF-8"}

        def timed(*words: str) -> Callable[[], dict[str, float]]:
            def run() -> dict[str, float]:
                usage = measure(words, environment=environment, watch=False)
                return {"wall_s": usage.wall_s, "cpu_s": usage.cpu_s}

            return run

        layers = [text_layer({f"etc/part-{number}": f"{number}\n"}) for number in range(N_LAYERS)]
        with RegistryServer(scratch / "registry") as server:
            reference = upload(build_image(scratch / "image", layers), "os:starts", server)
            field = {}
            for where, program in programs.items():
                store = ("--store", str(scratch / f"store of the {where}"))
                pull = ("pull", "--quiet", "--tls-verify=false", *store, reference)
                field["--version", where] = timed(str(program), "--version")
                field["pull, nothing to do", where] = timed(str(program), *pull)
            return interleaved(field, seconds=0, rounds=rounds)  # the round before them fills the stores


def main(words: Sequence[str] | None = None) -> int:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tree", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="default: 30")
    parser.add_argument("--tree", type=Path, metavar="ARCHIVE", help="a release's .tar.zst for this machine")
    args = parser.parse_args(words)
    archive: Path = args.tree or tree.archive()
    program = Path(sys.executable).with_name("layertee")
    with tempfile.TemporaryDirectory(prefix="layertee-tree-") as directory:
        subprocess.run(["tar", "-C", directory, "-xf", archive], check=True)
        unpacked = Path(directory) / "layertee"
        print(f"tree: {room(unpacked)}; packed: {archive.stat().st_size / 1e6:.1f} MB\n")
        taken = starts({TREE: unpacked / "bin" / "layertee", ENVIRONMENT: program}, args.rounds)
    print("\n".join(shown(taken)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
