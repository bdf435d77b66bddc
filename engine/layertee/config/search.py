"""Where the files of containers-common are looked for, and which of them count: one rule for all of them.

As podman, skopeo and CRI-O do since containers-common 0.68 (storage/pkg/configfile): of the main files only
the first one there is counts, the user's before the administrator's before the vendor's. Drop-ins of all
three are read after it, sorted by name, and of one name only that of the highest. A file that was named, by
an option or by the environment, has to be there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..record import dataclass
from .home import User, uid_outside

ADMIN, VENDOR = Path("/etc/containers"), Path("/usr/share/containers")
OWN = Path("/etc/layertee")
"""What the administrator has written for this program alone."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that would be read; ``named``: by somebody, so that it has to be there."""

    path: Path
    named: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """Where a configuration is, as this process finds it. ``mains``: only the first of them that is there
    counts.
    """

    mains: tuple[Candidate, ...]
    drop_in_directories: tuple[Path, ...]
    last: Candidate | None
    suffix: str = ".conf"
    """Of drop-ins."""
    own_drop_ins: Path | None = None
    """That of ``drop_in_directories`` that is the user's."""

    @classmethod
    def of(
        cls,
        name: str,
        variable: str,
        override: str,
        *,
        env: Mapping[str, str],
        user: User,
        path: Path | None = None,
        suffix: str = ".conf",
        admin: Path = ADMIN,
        vendor: Path = VENDOR,
    ) -> Search:
        """For the file ``name``, like ``registries.conf``, and drop-ins that end in ``suffix``.

        ``path`` is a main file in place of all others; else ``variable`` of ``env`` is, which also stands for
        the drop-ins. The file in ``override`` is read last.
        """
        own = user.config / "containers" if user.config else None
        directories = [directory / f"{name}.d" for directory in (own,) if directory]
        for base in (admin, vendor):
            directories += _of_system(base, name, uid_outside(env, user.uid))
        places = (own, admin, vendor)
        mains = tuple(Candidate(place / name) for place in places if place)
        if path is not None:
            mains = (Candidate(path, named=True),)
        elif found := env.get(variable):
            mains, directories = (Candidate(Path(found), named=True),), []
        extra = env.get(override)
        last = Candidate(Path(extra), named=True) if extra else None
        own_drop_ins = own / f"{name}.d" if own else None
        return cls(mains, tuple(directories), last, suffix, own_drop_ins)

    def candidates(self, was_read: Callable[[Path], bool]) -> Iterator[Candidate]:
        """What to read, in order: of the main files up to the first that ``was_read``, then the others.

        Those that nobody named need not be there. Raises OSError. Blocks.
        """
        for main in self.mains:
            yield main
            if was_read(main.path):
                break
        yield from map(Candidate, self.drop_ins())
        if self.last is not None:
            yield self.last

    def drop_ins(self) -> Iterator[Path]:
        """The drop-ins there are, in the order in which they are read. Raises OSError. Blocks."""
        by_name: dict[str, Path] = {}
        for directory in reversed(self.drop_in_directories):
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.name.endswith(self.suffix) and not entry.is_dir(follow_symlinks=False):
                            by_name[entry.name] = directory / entry.name
            except FileNotFoundError:
                continue
            except (PermissionError, NotADirectoryError):
                # Of another user's home, say. What the administrator has closed to this user is an error.
                if directory == self.own_drop_ins and not os.path.lexists(directory):
                    continue
                raise
        yield from (by_name[name] for name in sorted(by_name, key=os.fsencode))


def is_own_drop_in(name: str) -> bool:
    """Whether a file in one of our own directories of drop-ins, ``layertee.toml.d`` and ``trust.d``, counts.

    A leading dot is what editors give to their locks and copies (``.#x.toml``), and systemd and cron pass it
    over as well. In the directories of containers-common such a file counts, since it does for podman.
    """
    return name.endswith(".toml") and not name.startswith(".")


def _of_system(base: Path, name: str, uid: int) -> list[Path]:
    """``registries.rootless.conf.d/1000`` and its like, before ``registries.conf.d``."""
    stem, dot, suffix = name.partition(".")
    special = base / f"{stem}.{'rootless' if uid else 'rootful'}{dot}{suffix}.d"
    return [*([special / str(uid)] if uid else []), special, base / f"{name}.d"]
