"""containers/image as the judge of images whose signatures are given: a process for many questions."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["ImagePolicy", "imagepolicy"]


class ImagePolicy:
    """The program of tests/support/rig/imagepolicy, running. All of it blocks."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def named(self, text: str) -> str | None:
        """``text`` in full, as the name of an image; None if it is none."""
        return str(answer["named"]) if not (answer := self._ask(text=text))["error"] else None

    def refusal(
        self, policy: dict[str, Any], name: str, manifest: bytes, signatures: Sequence[bytes]
    ) -> str | None:
        """Why the image is not taken; None if it is. ``name`` is empty for an image without one."""
        encoded = [base64.b64encode(each).decode() for each in (manifest, *signatures)]
        asked = {"policy": policy, "name": name, "manifest": encoded[0], "signatures": encoded[1:]}
        return str(self._ask(**asked)["error"]) or None

    def _ask(self, **question: object) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def imagepolicy(program: Path) -> Iterator[ImagePolicy]:
    """It runs, and has ended afterwards."""
    pipe = subprocess.PIPE
    with subprocess.Popen([program], stdin=pipe, stdout=pipe) as process:
        yield ImagePolicy(process)
    assert process.returncode == 0
