"""``python -m release COMMAND``: finds the command's module and runs it.

Only the module of the command that was asked for is imported, so that each needs no more than its own tools.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from release.project import ReleaseError

# The command, its module, and its line in the list of commands.
COMMANDS = {
    "all": ("release.everything", "all that a release consists of: what 'make dist' runs"),
    "wheels": ("release.wheels", "a wheel with the C core for each architecture, and one without it"),
    "tree": ("release.tree", "the self-contained tree, with a Python of its own"),
    "deb": ("release.deb", "the Debian package of that tree"),
    "rpm": ("release.rpm", "the rpm package of that tree"),
    "share": ("release.share", "manual pages, and completion for bash, zsh and fish"),
    "requirements": ("release.requirements", "what pip needs to install the wheels by their hashes"),
    "sbom": ("release.sbom", "the list of what is inside, in CycloneDX's form"),
    "sums": ("release.sums", "SHA256SUMS of all that is in the directory"),
    "lock": ("release.lock", "renew the locks of what is installed to build and to run"),
}


def usage() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(["usage: python -m release COMMAND [--help] …", "", "commands:", *lines])


def main(words: Sequence[str]) -> int:
    """The exit status: 0, 1 if the command failed, 2 for words that make no sense."""
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    name, *rest = words
    if name not in COMMANDS:
        print(f"release: no such command: {name}\n\n{usage()}", file=sys.stderr)
        return 2
    module_name, line = COMMANDS[name]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(
        prog=f"python -m release {name}",
        description=module.__doc__ or line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    try:
        return int(module.main(parser.parse_args(rest)))
    except ReleaseError as exc:
        print(f"release: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
