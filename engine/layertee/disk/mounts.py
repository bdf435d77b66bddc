"""Filesystems whose files have no modes and owners of their own: those come from how they were mounted.

On a FAT, exFAT or NTFS stick, and on a share of Windows, chmod changes nothing, or fails. Whether others may
write is decided by the options uid, umask, file_mode and dir_mode of the mount.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from ..record import dataclass

MOUNTINFO: Final = Path("/proc/self/mountinfo")

_FAT: Final = frozenset({"vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "hfs", "fuse.exfat"})
_SHARES: Final = frozenset({"cifs", "smb3", "smbfs"})
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted filesystem of the type ``kind``."""

    path: str
    kind: str

    @property
    def has_modes(self) -> bool:
        """Whether chmod and chown are kept."""
        return self.kind not in _FAT | _SHARES

    def options_for(self, uid: int) -> str:
        """The options of mount(8) that give all files to ``uid``, for nobody else to write."""
        return f"uid={uid},file_mode=0644,dir_mode=0755" if self.kind in _SHARES else f"uid={uid},umask=022"


def mount_of(device: int, mountinfo: Path = MOUNTINFO) -> Mount | None:
    """The filesystem whose files have ``device`` (``st_dev``); None where that cannot be told. Blocks.

    proc_pid_mountinfo(5): ``ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELD…] - TYPE SOURCE OPTIONS``.
    """
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mountinfo.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 4 and fields[2] == wanted and after:
            path = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4])
            return Mount(path, after.split(" ")[0])
    return None
