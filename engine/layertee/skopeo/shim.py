"""A ``skopeo`` that answers ``experimental-image-proxy`` with layertee and leaves all else to the real one.

Clients of the image-proxy start whatever ``skopeo`` comes first on their PATH, so that is the place to step
in. The shim is a POSIX shell script in a directory of its own. Rules: it ends in one exec, so signals,
descriptors and the exit status are those of the program behind it; what it hands on, it hands on as it got
it; it never runs a shim, itself included, so there is no loop; and when layertee is gone it fails and says
so, since falling back to a program that checks less would go unnoticed.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..disk.files import disk_error, make_directory, open_directory, real_path
from ..disk.part import PartFile
from ..disk.trusted import refuse_reachable
from ..errors import LocalError
from ..record import dataclass
from .find import NAME, SHIM_MARKER, first_on_path, is_executable, is_shim

KEPT_SUFFIX: Final = ".before-layertee"
"""What a file is renamed with that had the shim's name."""

# Cobra, skopeo's parser of arguments, takes the first word that is no flag and no flag's value for the
# subcommand. A flag that is not known here to stand alone is taken to have a value, but never
# `experimental-image-proxy`: a new flag must not lead past layertee. All names begin with layertee_, because
# a name that the environment has too would be exported with its new value.
_BODY = """\
layertee_usable() {
	case $1 in
	/*) ;;
	*) return 1 ;;
	esac
	[ -f "$1" ] && [ -x "$1" ] || return 1
	layertee_line=
	{ IFS= read -r layertee_line && IFS= read -r layertee_line; } 2>/dev/null <"$1"
	[ "$layertee_line" != "$layertee_marker" ]
}

layertee_found() {
	for layertee_real in "$1" "$1.before-layertee"; do
		layertee_usable "$layertee_real" && return
	done
	return 1
}

layertee_find_real() {
	layertee_found "$layertee_real" && return
	layertee_rest=$PATH:
	while [ -n "$layertee_rest" ]; do
		layertee_found "${layertee_rest%%:*}/skopeo" && return
		layertee_rest=${layertee_rest#*:}
	done
	layertee_real=
}

layertee_fail() {
	echo "skopeo: $1" >&2
	exit 127
}

layertee_help() {
	if [ -z "$layertee_real" ]; then
		echo "Usage:"
		echo "  skopeo experimental-image-proxy [flags]    answered by layertee; -h shows the flags"
		echo
		echo "No other command works here: the real skopeo is not installed."
		echo
		echo "Flags:"
	else
		layertee_text=$("$layertee_real" "$@"; layertee_status=$?; echo .; exit $layertee_status)
		layertee_status=$?
		printf %s "${layertee_text%.}"
		[ $layertee_status -eq 0 ] || exit $layertee_status
		case $layertee_text in
		*--user-agent-prefix*) exit 0 ;;
		esac
	fi
	echo "      --user-agent-prefix string   prefix of the User-Agent (only for experimental-image-proxy)"
	exit 0
}

layertee_word=
layertee_value=
layertee_wants_help=
for layertee_arg do
	if [ -n "$layertee_value" ]; then
		layertee_value=
		case $layertee_arg in
		-* | experimental-image-proxy) ;;
		*) continue ;;
		esac
	fi
	case $layertee_arg in
	--help | -h) layertee_wants_help=1 ;;
	--debug | --insecure-policy | --version | -v | --?*=* | '') ;;
	--) break ;;
	-?*) layertee_value=1 ;;
	*)
		layertee_word=$layertee_arg
		break
		;;
	esac
done

layertee_find_real
if [ -n "$layertee_wants_help" ]; then
	layertee_help "$@"
elif [ "$layertee_word" = experimental-image-proxy ]; then
	[ -x "$layertee_python" ] || layertee_fail \\
		"layertee is gone from $layertee_python; install it there again, or remove $0"
	layertee_serve "$@"
fi
[ -n "$layertee_real" ] || layertee_fail \\
	"the real skopeo is not installed; $0 has only experimental-image-proxy"
exec "$layertee_real" "$@"
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """The shim, the real skopeo behind it, and the file that it displaced; None where there is none."""

    path: Path
    real: Path | None
    kept: Path | None


def script(python: Path, real: Path | None, options: Sequence[str]) -> bytes:
    """The shim: ``python`` runs layertee, ``options`` are put before the arguments of ``image-proxy``."""
    quote = shlex.quote
    baked = " ".join(map(quote, options))
    head = f"""\
#!/bin/sh
{SHIM_MARKER}
# Written by "layertee install-shim"; "layertee install-shim --remove DIR" takes it away.

layertee_marker={quote(SHIM_MARKER)}
layertee_real={quote(str(real) if real else "")}
layertee_python={quote(str(python))}

layertee_serve() {{
	if [ -n "$layertee_real" ]; then
		exec "$layertee_python" -I -m layertee image-proxy --skopeo "$layertee_real" {baked} "$@"
	fi
	exec "$layertee_python" -I -m layertee image-proxy {baked} "$@"
}}

"""
    return os.fsencode(head + _BODY)


def install(
    directory: Path,
    *,
    python: Path,
    path: str,
    skopeo: Path | None = None,
    options: Sequence[str] = (),
    force: bool = False,
) -> Installed:
    """Write ``directory/skopeo``, atomically and durably; an older shim there is replaced.

    ``python`` is the interpreter (of the virtual environment, not resolved) that has layertee. The real
    skopeo is ``skopeo``, else the one that ``force`` displaces, else the first on ``path``, else none.

    Raises LocalError: another file has the name and ``force`` is not given; others may write to the
    directory; ``skopeo`` is not usable; ``python`` cannot import layertee on its own; or the disk fails.
    """
    refuse_reachable(directory, absent=True)  # before anything is made there
    directory = real_path(directory)
    make_directory(directory, 0o755)
    refuse_reachable(directory, own=True)
    for what in (python, _package_of(python)):
        refuse_reachable(what)
    file, kept = directory / NAME, directory / (NAME + KEPT_SUFFIX)
    foreign = os.path.lexists(file) and not is_shim(file)
    if foreign:
        _may_be_displaced(file, force)
    if skopeo is not None:
        skopeo = Path(os.path.abspath(skopeo))
        if not is_executable(skopeo) or is_shim(skopeo):
            raise LocalError(f"{skopeo} is not the real skopeo", path=str(skopeo))
        if foreign and skopeo == file:
            skopeo = kept
    for what in (file, kept):
        refuse_reachable(what, absent=True)
    if foreign:
        _keep(file, kept)
    real = skopeo or (kept if is_executable(kept) else first_on_path(path, shims=False))
    if real is not None:
        refuse_reachable(real)
    content = script(python, real, options)
    with PartFile(directory, directory, f".{NAME}-{secrets.token_hex(8)}", mode=0o755) as part:
        part.write(content)
        part.publish(NAME, len(content), replace=True)
    return Installed(file, real, kept if os.path.lexists(kept) else None)


def remove(directory: Path) -> Path | None:
    """Take the shim away and put back what ``force`` displaced; that file, if there was one.

    Harmless where there is no shim. Raises LocalError for a file that is not ours, or when the disk fails.
    """
    directory = real_path(directory)
    file, kept = directory / NAME, directory / (NAME + KEPT_SUFFIX)
    there, had_one = os.path.lexists(file), os.path.lexists(kept)
    try:
        if there and not is_shim(file):
            if had_one and os.path.samestat(os.lstat(file), os.lstat(kept)):
                os.unlink(kept)  # an installation was cut short: the same file under both names
                return file
            raise LocalError(f"{file} is not a shim of layertee", path=str(file))
        if had_one:
            os.rename(kept, file)
        elif there:
            os.unlink(file)
        else:
            return None
        _sync(directory)
    except OSError as exc:
        raise disk_error(exc, "removing", file) from exc
    return file if had_one else None


def _may_be_displaced(file: Path, force: bool) -> None:
    mode = file.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise LocalError(f"{file} is neither a file nor a symlink", path=str(file))
    if not force:
        message = f"{file} is there already, and is not a shim"
        raise LocalError(message, path=str(file)).with_hint("displace")


def _keep(file: Path, kept: Path) -> None:
    """Give ``file`` its second name; it keeps the first until the shim takes that over."""
    try:
        os.link(file, kept, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samestat(file.lstat(), kept.lstat()):
            raise LocalError(f"{kept} is there as well; keep one of the two", path=str(kept)) from None
    except OSError as exc:
        raise disk_error(exc, "keeping", file) from exc


def _package_of(python: Path) -> Path:
    """Where ``python`` has layertee, which it must by itself: no PYTHONPATH, nobody's home directory.

    Raises LocalError.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reader, "rb") as output:
        try:
            pid = os.posix_spawn(
                python,
                [str(python), "-I", "-c", "import layertee; print(layertee.__file__)"],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, writer, 1),
                    (os.POSIX_SPAWN_DUP2, 0, 2),
                ],
            )
        except OSError as exc:
            raise disk_error(exc, "running", python) from exc
        finally:
            os.close(writer)
        said = os.fsdecode(output.read()).strip()
    if os.waitpid(pid, 0)[1] != 0 or not os.path.isabs(said):
        message = (
            f"{python} -I cannot import layertee: install it into an environment that needs no PYTHONPATH "
            "and no home directory"
        )
        raise LocalError(message, path=str(python))
    return Path(said)


def _sync(directory: Path) -> None:
    fd = open_directory(directory)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
