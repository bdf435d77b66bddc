"""How names of images and blobs become names of ostree refs, as the importer of container images writes them.

ostree-ext, ``refescape.rs`` and ``container/store.rs``: one ref for each layer, named by the digest of the
blob as transferred, and one for each image. This module reads and writes the text; no I/O.
"""

from __future__ import annotations

import re
from typing import Final

from ...image.digest import Digest

LAYERS: Final = "ostree/container/blob"
IMAGES: Final = "ostree/container/image"
# Where else commits are that carry the manifest of an image: bases that are protected, and what is deployed
# (two directories take turns).
BASES: Final = "ostree/container/baseimage"
DEPLOYMENTS: Final = ("ostree/0", "ostree/1", "rpmostree/base")

_ESCAPED = re.compile(r"_(?:_|([0-9A-F]{2,6})_)")


def escape(name: str) -> str:
    """``name`` as a ref, or a part of one. Raises ValueError for nothing.

    A slash stays one only after a letter or digit, and not at the end: refs are paths.
    """
    if not name:
        raise ValueError("an empty name has no ref")
    out = []
    after_alphanumeric = False
    for position, char in enumerate(name):
        plain = char.isascii() and char.isalnum()
        if plain or char == "-" or (char == "/" and after_alphanumeric and position < len(name) - 1):
            out.append(char)
        elif char == "_":
            out.append("__")
        else:
            out.append(f"_{ord(char):02X}_")
        after_alphanumeric = plain
    return "".join(out)


def unescape(ref: str) -> str:
    """The name that was escaped into ``ref``. Raises ValueError if none was."""

    def char(match: re.Match[str]) -> str:
        return "_" if match[1] is None else chr(int(match[1], 16))

    try:
        name = _ESCAPED.sub(char, ref)
    except (ValueError, OverflowError):
        raise ValueError(f"not an escaped name: {ref!r:.200}") from None
    if not name or escape(name) != ref:
        raise ValueError(f"not an escaped name: {ref!r:.200}")
    return name


def layer_ref(digest: Digest) -> str:
    """The ref of the layer whose blob is ``digest``."""
    return f"{LAYERS}/{escape(digest)}"


def layer_digest(ref: str) -> Digest:
    """The reverse of ``layer_ref``. Raises ValueError for the ref of something else."""
    if not ref.startswith(f"{LAYERS}/"):
        raise ValueError(f"not the ref of a layer: {ref!r:.200}")
    return Digest(unescape(ref.removeprefix(f"{LAYERS}/")))
