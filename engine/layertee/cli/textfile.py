"""Small files that a command writes for other programs: there is the old one, or the whole new one.

Which names are written to, and how, is the rule of disk/outputs.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..disk.files import close, disk_error
from ..disk.outputs import OpenOutput, open_output, output_at
from ..disk.part import replace_elsewhere

MODE = 0o644  # of a new one, for programs of other users


def see_that_it_can_be_written(path: Path, outside: Iterable[Path] = ()) -> None:
    """Raise LocalError or UnsafePath where ``path`` cannot come to be, before work is done in vain.

    ``outside``: the stores that it may not be in.
    """
    output_at(path, outside=outside, streams=True)


def write_whole(path: Path, content: bytes, outside: Iterable[Path] = ()) -> None:
    """Put ``content`` under the name ``path``. Raises as ``see_that_it_can_be_written``, and NoSpace.

    /dev/stdout, or another descriptor of this process, and a character device are written to as they are.
    """
    with open_output(path, outside=outside, streams=True) as found:
        output = found.output
        if not output.is_stream:
            mode = MODE if output.mode is None else output.mode
            target = output.target
            replace_elsewhere(found.directory, target, content, mode=mode, dress=output.keep_owner)
            return
        try:
            _write_to(found, content)
        except OSError as exc:
            raise disk_error(exc, "writing", path, elsewhere=True) from exc


def _write_to(found: OpenOutput, content: bytes) -> None:
    """Raises OSError, UnsafePath."""
    descriptor = found.output.descriptor
    fd = os.dup(descriptor) if descriptor is not None else found.open_file(os.O_WRONLY)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        close(fd)
