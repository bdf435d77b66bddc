"""Runs of the parser targets: where their inputs are kept, and what a run came to."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tests.fuzz.decoders import Outcome
from tests.fuzz.parsers import PARSERS
from tests.fuzz.target import Target

ROOT: Final = Path(__file__).resolve().parents[2]
CORPUS: Final = Path(__file__).parent / "corpus"
_RUNS: Final = re.compile(r"stat::number_of_executed_units:\s*([0-9]+)")
_FOUND: Final = ("crash-", "timeout-", "oom-", "leak-")
_MEMORY_MB: Final = 1024
ALL: Final = "all"  # targets, by the first byte of each input


def missing() -> str | None:
    """Why nothing can be fuzzed here, or None."""
    if importlib.util.find_spec("atheris") is None:
        return "atheris is not installed (pip install layertee[fuzz])"
    return None


def kept(target: Target) -> list[Path]:
    """The inputs of earlier runs that together reach what those reached."""
    directory = CORPUS / target.name
    return sorted(directory.iterdir()) if directory.is_dir() else []


def fuzz(target: Target, seconds: int, directory: Path) -> Outcome:
    """Run ``target`` for that long; what is new is left in ``directory``."""
    own = directory / "corpus"
    own.mkdir(exist_ok=True)
    for number, raw in enumerate(target.seeds()):
        (own / f"seed-{number}").write_bytes(raw)
    others = [CORPUS / target.name] if kept(target) else []
    return _run(target.name, seconds, directory, [own, *others], target.max_len, target.words)


def fuzz_all(seconds: int, directory: Path) -> Outcome:
    """Run all targets together for that long, in one process: the first byte of an input names the target."""
    own = directory / "corpus"
    own.mkdir(exist_ok=True)
    for at, target in enumerate(PARSERS.values()):
        inputs = [*target.seeds(), *(path.read_bytes() for path in kept(target))]
        for number, raw in enumerate(inputs):
            (own / f"{target.name}-{number}").write_bytes(bytes([at]) + raw)
    longest = max(target.max_len for target in PARSERS.values())
    words = {word for target in PARSERS.values() for word in target.words}
    return _run(ALL, seconds, directory, [own], longest, sorted(words))


def _run(
    name: str, seconds: int, directory: Path, inputs: Sequence[Path], max_len: int, words: Iterable[bytes]
) -> Outcome:
    dictionary = directory / "words"
    text = "".join(f'"{_quoted(word)}"\n' for word in words)
    dictionary.write_text(text)
    command = [
        # A process of a small one: the peak of a child counts that of the process that it was forked from.
        *("sh", "-c", '"$@"; exit $?', "sh"),
        *(sys.executable, "-m", "tests.fuzz.guided", name),
        f"-max_total_time={max(1, seconds)}",
        f"-max_len={max_len}",
        f"-rss_limit_mb={_MEMORY_MB}",
        f"-artifact_prefix={directory}/",
        *((f"-dict={dictionary}",) if text else ()),  # an empty one is an error
        "-timeout=20",
        "-print_final_stats=1",
        *map(str, inputs),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd=ROOT)
    counted = _RUNS.search(done.stderr)
    problem = ""
    if done.returncode:
        found = [path for path in directory.iterdir() if path.name.startswith(_FOUND)]
        said = done.stdout[-3000:] + done.stderr[-2000:]
        problem = said + "".join(f"\n{path.name}: {path.read_bytes().hex()}" for path in found)
    return Outcome(int(counted[1]) if counted else 0, problem)


def _quoted(word: bytes) -> str:
    """As libFuzzer's dictionaries have it."""
    return "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\x{b:02x}" for b in word)
