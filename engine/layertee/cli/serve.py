"""``layertee serve``: the images that this machine has, as a registry that is only read."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from ..errors import InvalidReference, NotFound, ServeConfigError
from ..serve.access import Access
from ..serve.app import App
from ..serve.cache import Cache
from ..serve.connections import Connections
from ..serve.http import Site
from ..serve.listen import DEFAULT, Listener, Notify, close, inherited, listen_at, parse_address
from ..serve.metrics import Metrics
from ..serve.offer import Stock
from ..serve.pacing import Throttle
from ..serve.questions import Questions
from ..serve.sending import Sending
from ..serve.server import Server, allow_many_files
from ..serve.tls import ServerTLS, receive_little_at_once
from ..serve.wheres import STORE, directories_of, open_stock, parse_offered
from ..store.cache import CacheLimit
from .exits import EXIT_OK
from .howto import to_type
from .output import flush, say
from .shared import root_of

log = logging.getLogger(__name__)

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(args: argparse.Namespace) -> int:
    """Serve until a signal asks for an end, which is then no error. Raises LayerteeError."""
    allow_many_files()
    tls = _tls(args)
    access = Access(args.htpasswd) if args.htpasswd is not None else None
    with ExitStack() as stack:
        places, root = parse_offered(args.places or [STORE]), root_of(args)
        stock = open_stock(places, root)
        stack.callback(stock.close)
        cache: Cache | None = None
        if args.cache is not None:
            apart_from = directories_of(places, root)
            cache = Cache.open(args.cache, CacheLimit(*args.cache_max), apart_from=apart_from)
        listeners = inherited(os.environ)
        stack.callback(close, listeners)
        if args.listen or not listeners:
            listeners += listen_at(args.listen or [parse_address(DEFAULT)])
        _see_that_no_other_listens_in(listeners, args)

        async def main() -> int:
            connections = Connections(args.max_connections)
            metrics = Metrics(lambda: connections.count)
            sending = Sending(cache=cache)
            questions = Questions()
            app = App(stock, sending, metrics.page, questions)
            site = Site(
                app, connections, metrics, Throttle(args.max_rate), access, stall_s=args.stall_timeout
            )
            notify = Notify(os.environ)
            server = Server(site, connections, listeners, tls=tls, notify=notify, grace_s=args.grace)
            _end_on_signals(server, tls)
            try:
                await server.serve(lambda: _show(args, listeners, stock))
            finally:
                questions.close()
                await sending.close()
            return EXIT_OK

        return asyncio.run(main())


def _tls(args: argparse.Namespace) -> ServerTLS | None:
    if (args.tls_cert is None) != (args.tls_key is None):
        raise ServeConfigError("--tls-cert and --tls-key go together")
    if args.tls_cert is None:
        if args.client_ca is not None:
            raise ServeConfigError(
                "--client-ca wants --tls-cert and --tls-key: there is no certificate without TLS"
            )
        return None
    receive_little_at_once()
    return ServerTLS(args.tls_cert, args.tls_key, args.client_ca)


def _see_that_no_other_listens_in(listeners: Sequence[Listener], args: argparse.Namespace) -> None:
    if args.tls_cert is not None or args.insecure_listen:
        return
    for listener in listeners:
        if not listener.is_local:
            raise ServeConfigError(
                f"{listener.name} can be reached by other machines, and without TLS every machine on the"
                " way can read what is sent"
            ).with_hint("insecure-listen")


def _end_on_signals(server: Server, tls: ServerTLS | None) -> None:
    """SIGHUP asks a service to read its certificate again. One that a person runs ends with the terminal."""
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, server.stop)
    if tls is not None or not os.isatty(2):
        loop.add_signal_handler(signal.SIGHUP, _read_again, tls)


def _read_again(tls: ServerTLS | None) -> None:
    if tls is None:
        log.info("there is no certificate to be read again")
        return
    try:
        tls.read_again()
    except ServeConfigError as exc:
        log.error("the certificate stays as it was: %s", exc)
    else:
        log.info("the certificate was read again")


def _show(args: argparse.Namespace, listeners: Sequence[Listener], stock: Stock) -> None:
    scheme = "http" if args.tls_cert is None else "https"
    for listener in listeners:
        say(listener.name if listener.is_unix else f"{scheme}://{listener.name}")
    names = stock.repositories()  # what is wrong with a place is said now, and not when somebody asks
    reached = sorted((one for one in listeners if not one.is_unix), key=lambda one: one.is_local)
    if reached and not args.quiet:
        say(
            *to_type(
                _as_others_call_it(reached[0]),
                {name: stock.tags(name) or () for name in names},
                is_encrypted=args.tls_cert is not None,
                needs_certificate=args.client_ca is not None,
                needs_login=args.htpasswd is not None,
                is_loopback=reached[0].is_local,
                is_clear=partial(_is_clear, stock),
            )
        )
    flush()


def _is_clear(stock: Stock, name: str, tag: str) -> bool:
    try:
        stock.named(name, tag)
    except InvalidReference:
        return False
    except NotFound:
        pass  # not all of it is here yet
    return True


def _as_others_call_it(listener: Listener) -> str:
    """A name in place of an address of no machine, or of IPv6, which clients of registries do not take."""
    host, _, port = listener.name.rpartition(":")
    if host != "0.0.0.0" and not host.startswith("["):
        return listener.name
    return f"{'localhost' if listener.is_local else socket.gethostname()}:{port}"
