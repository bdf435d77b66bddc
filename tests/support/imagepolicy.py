"""containers/image as the judge of images whose signatures are given: a process for many questions."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Document", "ImagePolicy", "imagepolicy"]


@dataclass(frozen=True)
class Document:
    """A manifest or an index, and the signatures that are found for it, as lookaside servers keep them."""

    raw: bytes
    signatures: tuple[bytes, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the program reads it."""
        encoded = [base64.b64encode(each).decode() for each in (self.raw, *self.signatures)]
        return {"manifest": encoded[0], "signatures": encoded[1:]}


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
        """Why the image with simple ``signatures`` is not taken; None if it is.

        ``name`` is empty for an image without one.
        """
        stored = tuple(b"\0simple-signing\n" + each for each in signatures)
        return self.refusals(policy, name, [Document(manifest, stored)])[0]

    def refusals(
        self, policy: dict[str, Any], name: str, documents: Sequence[Document]
    ) -> tuple[str | None, ...]:
        """The same for each of ``documents``: an image, or an index and the manifest chosen from it.

        As skopeo's image-proxy has it, an image is taken if one of its documents is.
        """
        asked = documents[0].to_json() | {"policy": policy, "name": name}
        if len(documents) > 1:
            asked["instance"] = documents[1].to_json()
        answer = self._ask(**asked)
        return tuple(str(answer[key]) or None for key in ("error", "instance")[: len(documents)])

    def refusal_from_registry(self, policy: dict[str, Any], name: str, registries_d: Path) -> str | None:
        """Why the image ``name`` is not taken as it is in its registry, with the signatures found for it."""
        return str(self._ask(policy=policy, name=name, found=str(registries_d))["error"]) or None

    def scopes(self, image: str, policy: dict[str, Any]) -> tuple[list[str], bool] | None:
        """By what a policy knows ``transport:details``, and whether ``policy`` takes that, unseen.

        None for what is no name of an image. Paths are those of the directory that the program runs in.
        """
        answer = self._ask(image=image, policy=policy)
        return None if answer["unread"] else (list(answer["scopes"]), not answer["error"])

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
