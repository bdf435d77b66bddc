"""Logins as a command gets them: from its arguments, from standard input, from a person at a terminal."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from ..errors import AuthConfigError, InvalidReference
from ..image.reference import Reference, ShortName, parse_name

if TYPE_CHECKING:
    from ..config.logins import Login

_MOST: Final = 64 << 10  # of a password: identity tokens have some thousand bytes


def given_login(args: argparse.Namespace) -> dict[str, Login] | None:
    """What ``--creds`` says, for the registry of the images that ``args`` names and for no other.

    None without ``--creds``. Raises InvalidReference for images that are in none by their names, or in
    several; AuthConfigError where a password has to be asked for and cannot be.
    """
    text: str | None = getattr(args, "creds", None)
    if text is None:
        return None
    username, colon, password = text.partition(":")
    if not username:
        raise AuthConfigError("--creds begins with a user name")
    if getattr(args, "signatures_by", "") == "skopeo":
        raise AuthConfigError("--creds is not for --signatures-by skopeo, which finds its logins in files")
    registries = {_registry_of(image) for image in getattr(args, "images", [args.image])}
    if len(registries) > 1:
        raise InvalidReference("--creds is for one registry, and the IMAGEs are in several")
    if not colon:
        password = asked_password()
    from ..config.logins import Login  # with it comes asyncio, which 'ls' does without

    return {registry: Login(username, password) for registry in registries}


def _registry_of(image: str) -> str:
    named = parse_name(image)
    if isinstance(named, ShortName):
        raise InvalidReference(f"--creds: write {image!r:.200} with its registry, which is sent the login")
    if not isinstance(named, Reference):
        raise InvalidReference(f"--creds: {image!r:.200} is in no registry")
    return named.registry


def is_terminal() -> bool:
    """Whether a person can be asked."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def asked_password() -> str:
    """Raises AuthConfigError where there is nobody to ask, or no answer."""
    from getpass import getpass

    if not is_terminal():
        raise AuthConfigError("there is no terminal to ask for a password")
    try:
        return getpass("password: ", stream=sys.stderr)
    except EOFError:
        raise AuthConfigError("no password was given") from None


def password_from_stdin() -> str:
    """All of standard input, without the line's end. Raises AuthConfigError."""
    raw = sys.stdin.buffer.read(_MOST + 1)
    if len(raw) > _MOST:
        raise AuthConfigError(f"the password on standard input is longer than {_MOST} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise AuthConfigError("the password on standard input is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")
