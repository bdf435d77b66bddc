"""What goes into an image: layer contents as values, real (files of this machine) or made up.

A :class:`LayerSpec` is a list of tar entries and nothing else; :func:`write_tar` turns it into the same bytes
each time. The tar ends in two zero blocks without record padding, as Go's ``archive/tar`` writes it, so an
empty layer is the well-known 1,024 zero bytes.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Entry",
    "LayerSpec",
    "content_layers",
    "device_layer",
    "directory_layer",
    "empty_layer",
    "hard_link_layer",
    "incompressible_layer",
    "long_name_layer",
    "text_layer",
    "write_tar",
    "xattr_layer",
    "zeros_layer",
]

MTIME = 1_700_000_000  # 2023-11-14; every entry has it, so that the same content is the same tar
_CONTENT_ROOTS = ("/usr/lib", "/usr/bin", "/usr/share", "/usr/libexec", "/usr/include")
_COPY = 1 << 20
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One tar member.

    The body of a regular file is ``data``; or ``size`` bytes of the file ``source``; or ``size`` generated
    bytes, zeros for the ``seed`` 0 and noise for any other.
    """

    name: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    source: Path | None = None
    seed: int | None = None
    size: int = 0
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @property
    def nbytes(self) -> int:
        """Of the body."""
        return len(self.data) if self.source is None and self.seed is None else self.size

    def body(self) -> Iterator[bytes]:
        """Its bytes, in pieces of at most 1 MiB. Raises OSError if the source is shorter than it was."""
        if self.source is not None:
            return _read_exactly(self.source, self.size)
        return _generate(self.size, self.seed) if self.seed is not None else iter((self.data,))


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """The content of one layer. Equal specs give byte-for-byte equal layers."""

    entries: tuple[Entry, ...] = ()
    created_by: str = "layer"

    @property
    def nbytes(self) -> int:
        """Of all bodies; the tar has headers and padding besides."""
        return sum(entry.nbytes for entry in self.entries)


def write_tar(spec: LayerSpec, write: Callable[[bytes], object]) -> None:
    """Write ``spec`` as a tar in pieces of at most 1 MiB. Raises OSError if a source file became shorter."""
    for entry in spec.entries:
        write(_header(entry))
        for piece in entry.body():
            write(piece)
        write(bytes(-entry.nbytes % _BLOCK))
    write(bytes(2 * _BLOCK))


# -- synthetic layers ----------------------------------------------------------------


def empty_layer() -> LayerSpec:
    """No entries: a tar of 1,024 zero bytes (the layer that Docker writes for ``ENV`` and the like)."""
    return LayerSpec((), "empty")


def text_layer(files: Mapping[str, str | bytes], created_by: str = "text") -> LayerSpec:
    """Small files by name."""
    encoded = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    return LayerSpec(tuple(Entry(name, data=data) for name, data in encoded.items()), created_by)


def zeros_layer(size: int) -> LayerSpec:
    """One file of ``size`` zeros: compresses a thousandfold and more."""
    return LayerSpec((Entry("zeros", seed=0, size=size),), "zeros")


def incompressible_layer(size: int, seed: int = 1) -> LayerSpec:
    """One file of ``size`` bytes of noise: the blob is as large as the tar."""
    if seed < 1:
        raise ValueError("seed must be positive")
    return LayerSpec((Entry("noise", seed=seed, size=size),), "noise")


def hard_link_layer(links: int = 3) -> LayerSpec:
    """One file, ``links`` hard links to it, and a symbolic link."""
    entries = [
        Entry("opt", tarfile.DIRTYPE, mode=0o755),
        Entry("opt/original", data=b"one body, many names\n"),
    ]
    entries += [
        Entry(f"opt/link-{index}", tarfile.LNKTYPE, link="opt/original") for index in range(1, links + 1)
    ]
    entries.append(Entry("opt/pointer", tarfile.SYMTYPE, link="original", mode=0o777))
    return LayerSpec(tuple(entries), "links")


def xattr_layer() -> LayerSpec:
    """A file with extended attributes, one of them binary, in pax records as Go writes them."""
    xattrs = (("user.note", b"kept"), ("user.binary", bytes(range(1, 32))))
    return LayerSpec((Entry("labelled", data=b"body\n", xattrs=xattrs),), "xattrs")


def long_name_layer(length: int = 240) -> LayerSpec:
    """Names beyond ustar's 100 and 255 bytes, one of them not ASCII."""
    deep = "/".join("directory-" + letter * 40 for letter in "abcdef")
    names = ["n" * length, f"{deep}/file", "naïve-ελληνικά-文件"]
    return LayerSpec(tuple(Entry(name, data=name.encode()) for name in names), "names")


def device_layer() -> LayerSpec:
    """A whiteout as a plain file, an opaque marker, a fifo, a setuid file and a sticky directory."""
    return LayerSpec(
        (
            Entry("var", tarfile.DIRTYPE, mode=0o755),
            Entry("var/.wh.gone"),
            Entry("var/tmp", tarfile.DIRTYPE, mode=0o1777),
            Entry("var/tmp/.wh..wh..opq"),
            Entry("var/pipe", tarfile.FIFOTYPE, mode=0o600),
            Entry("var/setuid", data=b"#!/bin/true\n", mode=0o4755, uid=1000, gid=1000),
        ),
        "odd",
    )


# -- real content --------------------------------------------------------------------


def directory_layer(root: Path, paths: Iterable[Path], created_by: str = "files") -> LayerSpec:
    """The regular files ``paths`` (below ``root``), with the directories above them."""
    entries: list[Entry] = []
    seen: set[Path] = set()
    for path in sorted(paths):
        name = path.relative_to(root)
        for parent in reversed(name.parents[:-1]):
            if parent not in seen:
                seen.add(parent)
                entries.append(Entry(str(parent), tarfile.DIRTYPE, mode=0o755))
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode) & 0o777
        entries.append(Entry(str(name), source=path, size=status.st_size, mode=mode))
    return LayerSpec(tuple(entries), created_by)


def content_layers(
    total_bytes: int, n: int, seed: int = 0, *, weights: Sequence[float] | None = None
) -> list[LayerSpec]:
    """``n`` layers of real files of ``/usr``, no file twice, about ``total_bytes`` of file data in all.

    Sizes are uneven as in real images (log-normal), or follow ``weights``. The same arguments give the same
    layers on the same machine. Raises ValueError if this machine has not that much content.
    """
    chooser = random.Random(seed)
    if weights is None:
        weights = [chooser.lognormvariate(0.0, 1.2) for _ in range(n)]
    if len(weights) != n:
        raise ValueError(f"{len(weights)} weights for {n} layers")
    scale = total_bytes / sum(weights)
    files = list(_machine_files())
    chooser.shuffle(files)
    layers: list[LayerSpec] = []
    for index, weight in enumerate(weights):
        want = max(1, int(weight * scale))
        chosen, files = _fill(files, want)
        if not chosen:
            raise ValueError(f"not enough content on this machine for layer {index} of {want} bytes")
        layers.append(directory_layer(Path("/"), chosen, f"content {index} of {n}"))
    return layers


def _fill(files: list[tuple[Path, int]], want: int) -> tuple[list[Path], list[tuple[Path, int]]]:
    """Take files in order, skipping those that are too large, until ``want`` bytes are there."""
    chosen: list[Path] = []
    left: list[tuple[Path, int]] = []
    missing = want
    slack = max(4096, want // 50)
    for position, (path, size) in enumerate(files):
        if missing <= slack and chosen:
            left.extend(files[position:])
            break
        if size <= missing or (not chosen and size <= 2 * slack):
            chosen.append(path)
            missing -= size
        else:
            left.append((path, size))
    if missing > max(want // 10, 8192):
        raise ValueError(f"this machine has no more content: {missing} of {want} bytes missing")
    return chosen, left


@functools.cache
def _machine_files() -> tuple[tuple[Path, int], ...]:
    found: list[tuple[Path, int]] = []
    for top in _CONTENT_ROOTS:
        for directory, subdirectories, names in os.walk(top):
            subdirectories.sort()
            if "__pycache__" in subdirectories:
                subdirectories.remove("__pycache__")  # written at any time by anyone
            for name in sorted(names):
                path = f"{directory}/{name}"
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and status.st_size and os.access(path, os.R_OK):
                    found.append((Path(path), status.st_size))
    return tuple(found)


# -- tar -----------------------------------------------------------------------------


def _header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.name)
    info.type = entry.kind
    info.size = entry.nbytes
    info.linkname = entry.link
    info.mode = entry.mode
    info.uid, info.gid = entry.uid, entry.gid
    info.mtime = MTIME
    # surrogateescape is what tarfile decodes pax values with: the way to put raw bytes there
    info.pax_headers = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in entry.xattrs
    }
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _read_exactly(path: Path, size: int) -> Iterator[bytes]:
    missing = size
    with path.open("rb") as source:
        while missing and (piece := source.read(min(_COPY, missing))):
            yield piece
            missing -= len(piece)
    if missing:
        raise OSError(f"{path} is shorter than it was: {missing} bytes missing")


def _generate(size: int, seed: int) -> Iterator[bytes]:
    noise = random.Random(seed)
    for start in itertools.count(0, _COPY):
        if start >= size:
            return
        length = min(_COPY, size - start)
        yield noise.randbytes(length) if seed else bytes(length)
