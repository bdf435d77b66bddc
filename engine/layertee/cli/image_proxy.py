"""``layertee image-proxy``: the server for bootc and others, on the socket that they give."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine import Engine
from ..errors import InvalidReference, LayerteeError
from ..image.placename import PlaceKind, PlaceName, Where, parse_place
from ..imageproxy.delegate import RealProxy
from ..imageproxy.images import Identity, ProxyOptions
from ..imageproxy.server import Server, refuse
from ..imageproxy.session import Session
from ..imageproxy.tally import ImageTally
from ..imageproxy.wire import Channel
from ..places.find import client_repositories
from ..skopeo.command import Access, Invocation
from ..skopeo.find import find_skopeo
from ..store.cache import CacheLimit
from ..sync import run
from .exits import EXIT_OK, EXIT_SIGNAL
from .failure import describe
from .output import warn
from .shared import options_of

if TYPE_CHECKING:
    from ..options import Options
    from .metrics import MetricsFile

EXIT_TERMINATED = EXIT_SIGNAL + signal.SIGTERM


def serve(args: argparse.Namespace) -> int:
    """Serve the client on ``args.sockfd`` until it is done, or gone.

    Raises LayerteeError where that can't begin, which the client is told as well.
    """
    sock = _socket(args.sockfd)
    try:
        return _serve_on(sock, args)
    except LayerteeError as exc:
        refuse(sock, exc)
        raise


def check(args: argparse.Namespace) -> None:
    """Raises InvalidReference for arguments that :func:`serve` would refuse."""
    engine_options(args)
    proxy_options(args)


def _serve_on(sock: socket.socket, args: argparse.Namespace) -> int:
    options = engine_options(args)
    proxy = proxy_options(args)
    limit = CacheLimit(*args.cache_max)
    counted = _Counted(args)

    async def main() -> int:
        task = asyncio.current_task()
        assert task is not None
        terminated: list[bool] = []

        def terminate() -> None:
            terminated.append(True)
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        try:
            async with Engine(args.store, options=options) as engine:
                await _serve(args, engine, proxy, limit, sock, counted)
        except asyncio.CancelledError:
            if not terminated:
                raise  # interrupted from the keyboard
            return EXIT_TERMINATED
        return EXIT_OK

    try:
        return run(main())
    finally:
        counted.write()


class _Counted:
    """The metrics of a session, if they are wanted. Without them an upgrade goes on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._file: MetricsFile | None = None
        self._rows: dict[str, dict[str, Any]] = {}
        if args.metrics_file is None:
            return
        from .metrics import MetricsFile  # few ask for it, and its library takes long to import

        try:
            self._file = MetricsFile(args.metrics_file, args)
        except LayerteeError as exc:
            warn([f"there will be no metrics: {exc}"])

    def add(self, image: ImageTally) -> None:
        """An image was closed. Of one that was opened several times the amounts are added up."""
        if image.is_idle:
            return
        name = image.name.removeprefix("docker://")
        row = self._rows.setdefault(
            name, {"image": name, "bytes_fetched": 0, "bytes_reused": 0, "layers": []}
        )
        row["bytes_fetched"] += sum(layer.bytes_fetched for layer in image.layers)
        row["bytes_reused"] += sum(layer.bytes_reused for layer in image.layers)
        row["layers"] += [{"action": layer.action.value} for layer in image.layers]
        row["error"] = describe(image.error) if image.error is not None else None

    def write(self) -> None:
        """How it went; nothing where no image was more than looked at."""
        if self._file is None or not self._rows:
            return
        self._args.is_reported = True
        try:
            self._file.write(EXIT_OK, {"images": list(self._rows.values())}, None)
        except LayerteeError as exc:
            warn([str(exc)])


async def _serve(
    args: argparse.Namespace,
    engine: Engine,
    proxy: ProxyOptions,
    limit: CacheLimit,
    sock: socket.socket,
    counted: _Counted,
) -> None:
    skopeo = find_skopeo(args.skopeo)
    access = Access(
        args.authfile,
        args.no_creds,
        args.cert_dir,
        args.tls_verify,
        args.registries_d,
        args.registries_conf,
    )
    real = RealProxy(_real_command(args, skopeo, access)) if skopeo is not None else None
    everything = bool(args.decryption_key)
    session = Session(engine, proxy, limit, real, everything=everything, tallied=counted.add)
    channel = Channel(sock)
    try:
        await Server(channel, session.open_image).serve()
    finally:
        channel.close()
        await session.close()
        warn(engine.store.warnings)


def engine_options(args: argparse.Namespace) -> Options:
    """Raises InvalidReference."""
    # What is presented as a tar can be taken from anywhere.
    anywhere = ("auto",) if args.layer_identity == Identity.DIFF_ID.value else ()
    # skopeo hands out images that do not say what is in each layer, and clients have such.
    # Nor does it look at what an image of no index is for.
    return replace(options_of(args, places_by_default=anywhere), opaque_layers=True, any_platform=True)


def proxy_options(args: argparse.Namespace) -> ProxyOptions:
    """Raises InvalidReference."""
    return ProxyOptions(
        identity=Identity(args.layer_identity),
        annotate=args.annotate_layers,
        client_repos=_client_repos(args.client_repo),
        ahead=args.ahead,
    )


def _client_repos(given: str) -> tuple[Where, ...]:
    if given == "none":
        return ()
    if given == "auto":
        return tuple(client_repositories())
    if given.startswith("/"):
        return (PlaceName(PlaceKind.OSTREE, Path(given)),)
    return (parse_place(given),)


def _socket(fd: int) -> socket.socket:
    """The client's socket, taken away from where children would inherit it. Raises InvalidReference."""
    try:
        sock = socket.fromfd(fd, socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if sock.family != socket.AF_UNIX or sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != (
            socket.SOCK_SEQPACKET
        ):
            sock.close()
            raise OSError("not a SOCK_SEQPACKET socket")
    except OSError as exc:
        raise InvalidReference(
            f"descriptor {fd} is not the socket of a client ({exc}): programs start this command, not people"
        ) from exc
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    with suppress(OSError):
        os.dup2(nowhere, fd, inheritable=fd <= 2)
    os.close(nowhere)
    return sock


def _real_command(args: argparse.Namespace, skopeo: Path, access: Access) -> list[str]:
    """The real skopeo's proxy with what this one was told."""
    asked = Invocation(
        skopeo,
        access,
        policy=args.policy,
        accept_all=args.insecure_policy,
        os=args.override_os,
        architecture=args.override_arch,
        variant=args.override_variant,
        debug=args.debug,
    )
    keys = [word for key in args.decryption_key for word in ("--decryption-key", key)]
    return asked.command("experimental-image-proxy", *keys)
