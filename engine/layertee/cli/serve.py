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

from ..errors import ServeConfigError
from ..serve.access import Access
from ..serve.app import App
from ..serve.cache import Cache
from ..serve.connections import Connections
from ..serve.http import Site
from ..serve.listen import DEFAULT, Listener, Notify, close, inherited, listen_at, parse_address
from ..serve.metrics import Metrics
from ..serve.offer import Stock
from ..serve.pacing import Throttle
from ..serve.sending import Sending
from ..serve.server import Server, allow_many_files
from ..serve.tls import ServerTLS, receive_little_at_once
from ..serve.wheres import STORE, open_stock, parse_offered
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
        stock = open_stock(parse_offered(args.places or [STORE]), root_of(args))
        stack.callback(stock.close)
        cache = Cache.open(args.cache, CacheLimit(*args.cache_max)) if args.cache is not None else None
        listeners = inherited(os.environ)
        stack.callback(close, listeners)
        if args.listen or not listeners:
            listeners += listen_at(args.listen or [parse_address(DEFAULT)])
        _see_that_nobody_listens_in(listeners, args)

        async def main() -> int:
            connections = Connections(args.max_connections)
            metrics = Metrics(lambda: connections.count)
            sending = Sending(cache=cache)
            app = App(stock, sending, metrics.page)
            site = Site(
                app, connections, metrics, Throttle(args.max_rate), access, stall_s=args.stall_timeout
            )
            notify = Notify(os.environ)
            server = Server(site, connections, listeners, tls=tls, notify=notify, grace_s=args.grace)
            _end_on_signals(server, tls)
            try:
                await server.serve(lambda: _show(args, listeners, stock))
            finally:
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


def _see_that_nobody_listens_in(listeners: Sequence[Listener], args: argparse.Namespace) -> None:
    if args.tls_cert is not None or args.insecure_listen:
        return
    for listener in listeners:
        if not listener.is_local:
            raise ServeConfigError(
                f"{listener.name} can be reached by other machines, and without TLS all on the way can read"
                " what is sent"
            ).with_hint("insecure-listen")


def _end_on_signals(server: Server, tls: ServerTLS | None) -> None:
    """SIGHUP asks for an end, as it does elsewhere; of a server with TLS, to read its certificate again."""
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, server.stop)
    if tls is not None:
        loop.add_signal_handler(signal.SIGHUP, _read_again, tls)


def _read_again(tls: ServerTLS) -> None:
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
    if not args.quiet:
        for listener in listeners:
            if not listener.is_unix:
                images = {name: stock.tags(name) or () for name in stock.repositories()}
                say(
                    *to_type(
                        _as_others_call_it(listener.name),
                        images,
                        is_encrypted=args.tls_cert is not None,
                        needs_login=args.htpasswd is not None,
                        is_loopback=listener.is_local,
                    )
                )
                break
    flush()


def _as_others_call_it(name: str) -> str:
    host, _, port = name.rpartition(":")
    return f"{socket.gethostname()}:{port}" if host in ("0.0.0.0", "[::]") else name
