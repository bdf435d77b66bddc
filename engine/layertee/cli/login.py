"""``layertee login`` and ``logout``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..config.loginfile import LoginKey
from ..config.logins import Login
from ..errors import AuthConfigError, InvalidReference
from ..options import Options
from ..pulling.login import Logins
from ..pulling.network import Network
from ..sync import run
from .exits import EXIT_OK
from .output import print_json, say, tell
from .secrets import asked_password, is_terminal, password_from_stdin

T = TypeVar("T")


def login(args: argparse.Namespace) -> int:
    """Raises InvalidReference, AuthConfigError, Unauthorized, and what ``Logins`` raises."""
    wanted = LoginKey.parse(args.registry)
    options = Options(
        authfile=args.authfile,
        trusted_realms=tuple(args.trusted_realms),
        tls_verify=args.tls_verify,
        registries_conf=args.registries_conf,
        cert_dir=args.cert_dir,
    )
    known = None
    if args.get_login or not args.username:  # one that is replaced need not be readable
        known = _with_logins(options, lambda logins: logins.known(wanted))
    if args.get_login:
        if known is None:
            raise AuthConfigError(f"there is no login for {wanted.key}").with_hint("logins")
        if args.json:
            print_json(_json(wanted, known, known.source, None))
        else:
            say(known.username or "(an identity token)")
        return EXIT_OK
    given = _given(args, known)

    async def check_and_keep(logins: Logins) -> tuple[bool, str]:
        asked = await logins.check(wanted, given)
        return asked, known.source if given is known and known else await logins.keep(wanted, given)

    asked, where = _with_logins(options, check_and_keep)
    if not asked:
        tell(f"layertee: warning: {wanted.host} lets in whoever comes: the login could not be tried")
    if args.json:
        print_json(_json(wanted, given, where, asked))
    else:
        say(f"logged in to {wanted.key}; the login is in {where}")
    return EXIT_OK


def logout(args: argparse.Namespace) -> int:
    """Raises InvalidReference, AuthConfigError, and what ``Logins`` raises."""
    if bool(args.registry) == args.all:
        raise InvalidReference("name the registry to log out from, or give --all")
    options = Options(registries_conf=args.registries_conf, authfile=args.authfile)
    if args.all:
        removed, left = _with_logins(options, lambda logins: logins.forget_all()), None
    else:
        wanted = LoginKey.parse(args.registry)
        removed = _with_logins(options, lambda logins: logins.forget(wanted))
        left = _with_logins(options, lambda logins: logins.known(wanted))
        if not removed:
            raise AuthConfigError(
                f"there is no login for {wanted.key} to remove"
                + (f"; one is in {left.source}" if left else "")
            )
    if left is not None:
        tell(f"layertee: warning: a login that still counts for it is in {left.source}")
    if args.json:
        print_json({"removed_from": removed, "left_in": left.source if left else None})
    else:
        say(*(f"removed from {where}" for where in removed))
    return EXIT_OK


def _json(wanted: LoginKey, login: Login, where: str, was_checked: bool | None) -> dict[str, object]:
    """``was_checked`` is None where nothing was asked."""
    return {
        "registry": wanted.key,
        "username": login.username,
        "kept_in": where,
        "was_checked": was_checked,
    }


def _with_logins(options: Options, use: Callable[[Logins], Awaitable[T]]) -> T:
    async def main() -> T:
        network = Network(options)
        try:
            return await use(Logins(network, options.authfile))
        finally:
            await network.close()

    return run(main())


def _given(args: argparse.Namespace, known: Login | None) -> Login:
    """The login to try: as it was given, or typed, or the one that is there already."""
    if args.password_stdin and not args.username:
        raise AuthConfigError("--password-stdin is for --username NAME")
    if not args.username and known is not None and not sys.stdin.isatty():
        return known
    if not args.password_stdin and not is_terminal():
        raise AuthConfigError(
            "there is no terminal to ask for a login: give --username NAME and --password-stdin"
        )
    username = args.username or _asked_name(known)
    password = password_from_stdin() if args.password_stdin else asked_password()
    if not password:
        raise AuthConfigError("the password is empty")
    return Login(username, password, source="what was given")


def _asked_name(known: Login | None) -> str:
    usual = known.username if known is not None else ""
    tell(f"user name{f' ({usual})' if usual else ''}:")
    name = sys.stdin.readline().strip() or usual
    if not name:
        raise AuthConfigError("a login has a user name")
    return name
