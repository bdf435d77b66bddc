"""One parser target under atheris, which is libFuzzer for Python: ``python -m tests.fuzz.guided NAME …``.

The words after the name are libFuzzer's: options and directories of inputs. A process of its own, as
atheris has to see the modules while they are imported, and ends the process.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["layertee", "tomllib"]):
    from tests.fuzz.parsers import PARSERS


def main() -> None:
    name = sys.argv[1]
    targets = [PARSERS[name]] if name in PARSERS else list(PARSERS.values())

    def one(raw: bytes) -> None:
        target = targets[0]
        if len(targets) > 1:  # running.ALL
            target, raw = targets[raw[0] % len(targets) if raw else 0], raw[1:]
        target.check(raw, limit_s=10.0)  # what watches makes it slow, and others may be at work

    # libFuzzer begins other processes by the first word, as a shell has it (-merge=1).
    atheris.Setup([f"{sys.executable} -m tests.fuzz.guided {name}", *sys.argv[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
