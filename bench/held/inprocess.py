"""``python -m bench.held.inprocess LIBRARY WORD…``: kernels_main of kernels.c, in a process of Python's.

kernels.py starts it: Python's package zlib-ng can be loaded in such a process only.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    """Its exit status."""
    arguments = [b"kernels", *(word.encode() for word in words[1:])]
    return int(
        ctypes.CDLL(words[0]).kernels_main(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments))
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
