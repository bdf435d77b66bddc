"""What entering the sandbox costs: ``python -m bench.sandbox [--runs N]``.

A pull of an image that the store has, out of a layout on this machine, in the sandbox and without (``off``):
pairs in shuffled order, the first of which is not counted. Printed are quartiles of the pairs' differences,
and those of the step itself, as a process that has loaded its command measures it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Usage, measure
from layertee.sandbox.enter import support
from tests.support.rig.images import build_image
from tests.support.rig.layers import text_layer

LAYERTEE = str(Path(sys.executable).with_name("layertee"))
MODES = ("off", "require")
_STEP = """
import sys, time
from layertee.cli.arguments import parse
from layertee.cli.dispatch import COMMANDS
args = parse(sys.argv[1:])
COMMANDS[args.command].load()
began = time.process_time()
from layertee.cli.confine import confine
confine(args)
print(time.process_time() - began)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 if everything ran, 1 where the kernel has no sandbox."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40, metavar="N", help="pairs of commands")
    args = parser.parse_args(argv)
    if lacking := support().lacking:
        print("; ".join(lacking), file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="layertee-bench-") as name:
        root = Path(name)
        image = build_image(root / "image", [text_layer({"etc/os-release": "ID=os\n"})])
        environment = {"PATH": "/usr/bin:/bin", "HOME": name, "LANG": "C.UTF-8"}
        words = ["pull", "--store", str(root / "store"), f"oci:{image.root}:{image.ref}", "--sandbox"]
        pairs, steps = [], []
        for _ in range(args.runs + 1):
            pair: dict[str, Usage] = {}
            for mode in random.sample(MODES, len(MODES)):
                pair[mode] = measure([LAYERTEE, *words, mode], environment=environment, watch=False)
            pairs.append(pair)
            step = [sys.executable, "-c", _STEP, *words, "require"]
            done = subprocess.run(step, env=environment, check=True, capture_output=True, text=True)
            steps.append(float(done.stdout))
    print("| ms | quartile | median | quartile |\n|---|---|---|---|")
    counted = pairs[1:]
    for title, found in (
        ("wall, whole commands", [pair["require"].wall_s - pair["off"].wall_s for pair in counted]),
        ("CPU, whole commands", [pair["require"].cpu_s - pair["off"].cpu_s for pair in counted]),
        ("CPU, the step itself", steps[1:]),
    ):
        quartiles = statistics.quantiles(found, n=4, method="inclusive")
        print(f"| {title} | {' | '.join(f'{seconds * 1000:.2f}' for seconds in quartiles)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
