"""The real skopeo as the judge of signatures: whether this machine's policy takes an image.

It copies the image into an OCI layout that already has a file of the right name and size for every layer,
empty inside: containers/image checks the policy before anything else, then takes such files for the layers.
So only the manifest and the config come from the registry. Nothing in that directory is used as content.

The check counts if skopeo says so **and** the manifest that it judged is the one resolved here: the tag may
have moved, a registry may answer two clients differently, and something may end with 0 without having done a
thing. ``--preserve-digests`` keeps manifests byte for byte, Docker's too. Signatures are not copied, since
layouts have no place for them; they are checked all the same.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..aio import in_thread, start_process
from ..config.policy import Policy, skopeo_name
from ..disk.files import disk_error
from ..disk.trusted import refuse_reachable
from ..errors import DocumentError, PolicyRefused
from ..image.document import MAX_DOCUMENT, Descriptor, Digest, Manifest
from ..image.platform import Platform
from ..image.reference import ImageReference
from ..image.reference_storage import StorageReference
from ..image.strictjson import as_list, as_object, load_object
from .command import Access, Invocation
from .said import reason, tail

LIMIT_S: Final = 120.0
# No document is larger. A layer is fetched only for another manifest than ours, and must not fill the disk.
_LARGEST_FILE: Final = 2 * MAX_DOCUMENT
_INHERITED = re.compile(r"/(?:proc/self|dev)/fd/(\d+)(?:/|$)")
_NAME: Final = "checked"


async def check_policy(
    skopeo: Path | None,
    image: ImageReference | str,
    policy: Policy,
    manifest: Manifest,
    *,
    platform: Platform,
    access: Access | None = None,
    limit_s: float = LIMIT_S,
) -> Digest:
    """Have ``skopeo`` judge ``image`` by the file of ``policy``; the digest of what it judged: ``manifest``.

    ``image`` is a string for transports that are not parsed here. ``platform`` is the one by which
    ``manifest`` was chosen. Returns only if the check was made and passed. Raises PolicyRefused, UnsafePath
    for a skopeo that another user could change, and LocalError when there is no room for its few files;
    skopeo has then ended, and the files are gone.
    """
    name = image if isinstance(image, str) else skopeo_name(image)
    if skopeo is None:
        raise PolicyRefused(
            f"{name} needs a signature check under {policy.path}; install skopeo, which does it"
        )
    if isinstance(image, StorageReference):
        raise PolicyRefused(
            f"{policy.path} wants signatures for {name}, which cannot be checked: a store keeps layers in"
            " another form than the one that was signed"
        )
    await in_thread(refuse_reachable, skopeo, absent=True)
    layout = _Layout()
    try:
        await in_thread(layout.make, manifest.layers)
        asked = Invocation(
            skopeo,
            access or Access(),
            policy=policy.path,
            os=platform.os,
            architecture=platform.architecture,
            variant=platform.variant,
            limit_s=limit_s + 5,  # should this process be killed, skopeo still ends
            tmpdir=layout.path.parent,
        )
        words = ("--quiet", "--preserve-digests", "--remove-signatures", name, f"oci:{layout.path}:{_NAME}")
        command = asked.command("copy", *words, side="src-")
        status, said = await _run(command, layout.path.parent, limit_s)
        if status != 0:
            why = reason(said) or f"it ended with status {status}"
            raise PolicyRefused(f"skopeo, asked about {name} under {policy.path}, does not accept it: {why}")
        judged = await in_thread(layout.manifest)
    finally:
        await in_thread(layout.remove)
    if judged != manifest.digest:
        raise PolicyRefused(
            f"skopeo checked {name} under {policy.path} as {judged or 'nothing'}, but it was resolved as"
            f" {manifest.digest}: it may have moved meanwhile"
        )
    return manifest.digest


class _Layout:
    """The directory of one check. All of it blocks."""

    def __init__(self) -> None:
        self._parent: Path | None = None

    @property
    def path(self) -> Path:
        """Of the layout; its parent is ours alone."""
        assert self._parent is not None
        return self._parent / "layout"

    def make(self, layers: Iterable[Descriptor]) -> None:
        """With a hole for each of ``layers``. Raises LocalError."""
        try:
            self._parent = Path(tempfile.mkdtemp(prefix="layertee-policy-"))
            for layer in layers:
                file = self._blob(layer.digest)
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as hole:
                    hole.truncate(layer.size)
        except OSError as exc:
            where = self._parent or os.environ.get("TMPDIR") or "/tmp"
            raise disk_error(exc, "preparing a policy check in", where) from exc

    def manifest(self) -> Digest | None:
        """Of the one image that is there now, its bytes hashed; None if there is none."""
        try:
            with (self.path / "index.json").open("rb") as file:
                index = load_object(file.read(MAX_DOCUMENT + 1), "index.json")
            (entry,) = as_list(index.get("manifests"), "manifests")
            named = Digest.parse(as_object(entry, "manifests[0]").get("digest"))
            with self._blob(named).open("rb") as file:
                raw = file.read(MAX_DOCUMENT + 1)
        except (OSError, ValueError, DocumentError):
            return None
        return named if Digest.of(raw) == named else None

    def remove(self) -> None:
        if self._parent is not None:
            shutil.rmtree(self._parent, ignore_errors=True)

    def _blob(self, digest: Digest) -> Path:
        return self.path / "blobs" / digest.algorithm / digest.hex


async def _run(command: list[str], directory: Path, limit_s: float) -> tuple[int, str]:
    """Status, and the end of what was said. Ended and reaped, also when this is cancelled.

    Temporary files, gpg's too, go to ``directory``.
    """
    # gpg, which it starts, is of its session, and ended with it.
    inherited = {int(found[1]) for word in command if (found := _INHERITED.match(word))}
    try:
        process = await start_process(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=sorted(fd for fd in inherited if fd > 2),
            env=os.environ | {"TMPDIR": str(directory)},
        )
    except OSError as exc:
        raise PolicyRefused(
            f"{command[0]}, which checks signatures, cannot be started: {exc.strerror}"
        ) from exc
    ended = False
    try:
        with suppress(OSError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
        async with asyncio.timeout(limit_s):
            assert process.stderr is not None
            said = await tail(process.stderr)
            status = await process.wait()
        ended = True
    except TimeoutError as exc:
        raise PolicyRefused(f"{command[0]} did not check the signatures in {limit_s:.0f} s") from exc
    finally:
        if not ended:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return status, said
