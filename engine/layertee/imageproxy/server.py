"""The methods of the protocol, each request answered before the next is looked at.

While a request is under way the socket is watched: a client that goes away ends it. What needs a pipe is
handed out as a read-only descriptor of something that is complete, so FinishPipe has nothing left to wait
for or to report, and no pipe ever holds up another. Method names, arguments and replies: types.go and
handler.go of containers/container-libs, common/pkg/json-proxy.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, Protocol

from ..errors import LayerteeError, NotFound
from ..record import dataclass
from .wire import MAX_PACKET, Channel, ClientGone, Reply, RequestError, failure, parse_request

log = logging.getLogger(__name__)

# The newest that a release of skopeo speaks. Two different methods are proposed for 0.2.9; a client that was
# told a version may ask for all that it knows of it.
PROTOCOL_VERSION: Final = "0.2.8"
IDENTITY_METHOD: Final = "LayerteeLayerIdentity"
_MAX_NUMBER: Final = (1 << 53) - 1  # JavaScript's; clients send nothing larger


@dataclass(frozen=True, slots=True)
class Pipe:
    """What a client reads from ``fd``. ``finish`` is what FinishPipe waits for, and its verdict."""

    fd: int
    finish: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What an image says to one method: a value, and a pipe or two descriptors, or neither."""

    value: Any = None
    pipe: Pipe | None = None
    fds: tuple[int, ...] = ()
    extra: tuple[tuple[str, Any], ...] = ()


class Image(Protocol):
    """An open image. Every method may raise LayerteeError and RequestError."""

    async def manifest(self) -> Answer: ...
    async def config(self) -> Answer: ...
    async def full_config(self) -> Answer: ...
    async def blob(self, digest: str, size: int) -> Answer: ...
    async def raw_blob(self, digest: str) -> Answer: ...
    async def layer_info(self) -> Answer: ...
    async def layer_info_piped(self) -> Answer: ...
    async def layer_identity(self) -> Answer: ...
    async def close(self) -> None: ...


class Server:
    """Serves one client on ``channel``. ``open_image`` is given what the client calls an image."""

    def __init__(self, channel: Channel, open_image: Callable[[str], Awaitable[Image]]) -> None:
        self._channel = channel
        self._open_image = open_image
        self._initialized = False
        self._images: dict[int, Image] = {}
        self._pipes: dict[int, Pipe] = {}
        self._last_image = 0
        self._last_pipe = 0

    async def serve(self) -> None:
        """Returns after Shutdown, or when the client is gone; all images are closed then.

        Everything runs in the calling task: what an image opens in one request it may close in another.
        """
        try:
            while (packet := await self._channel.receive()) is not None:
                async with self._channel.unless_gone():
                    reply = await self._reply(packet)
                if reply is None:
                    return
                try:
                    await self._channel.send(reply)
                except RequestError as exc:
                    await self._channel.send(failure(str(exc), exc.code))
        except ClientGone:
            log.info("the client is gone; its request is given up")
        finally:
            async with AsyncExitStack() as images:  # all of them, whatever closing one of them raises
                for image in self._images.values():
                    images.push_async_callback(image.close)

    async def _reply(self, packet: bytes) -> Reply | None:
        """None for Shutdown, which has no reply."""
        try:
            if len(packet) > MAX_PACKET:
                raise RequestError(f"the request is longer than {MAX_PACKET} bytes")
            request = parse_request(packet)
            if request.method == "Shutdown":
                return None
            log.debug("%s%r", request.method, request.args)
            method = self._methods().get(request.method)
            if method is None:
                raise RequestError(f"unknown method: {request.method:.100}")
            if not self._initialized and request.method != "Initialize":
                raise RequestError("must invoke Initialize")
            return self._packed(await method(request.args))
        except RequestError as exc:
            return failure(str(exc), exc.code)
        except LayerteeError as exc:
            reply = _typed(exc)
            log.warning("%s", reply.error)
            return reply
        except Exception as exc:
            log.exception("a request failed in a way that was not foreseen")
            return failure(f"internal error: {exc!r}")

    def _packed(self, answer: Answer) -> Reply:
        pipe_id, fds = 0, answer.fds
        if answer.pipe is not None:
            self._last_pipe = pipe_id = self._last_pipe % 0xFFFFFFFF + 1
            self._pipes[pipe_id] = answer.pipe
            fds = (answer.pipe.fd,)
        return Reply(answer.value, pipe_id, fds=fds, extra=dict(answer.extra))

    # --- methods ---

    def _methods(self) -> dict[str, Callable[[tuple[Any, ...]], Awaitable[Answer]]]:
        return {
            "Initialize": self._initialize,
            "OpenImage": self._open,
            "OpenImageOptional": self._open_optional,
            "CloseImage": self._close,
            "GetManifest": lambda args: self._image(args, 1).manifest(),
            "GetConfig": lambda args: self._image(args, 1).config(),
            "GetFullConfig": lambda args: self._image(args, 1).full_config(),
            "GetBlob": lambda args: self._image(args, 3).blob(_text(args[1]), _size(args[2])),
            "GetRawBlob": lambda args: self._image(args, 2).raw_blob(_text(args[1])),
            "GetLayerInfo": lambda args: self._image(args, 1).layer_info(),
            "GetLayerInfoPiped": lambda args: self._image(args, 1).layer_info_piped(),
            IDENTITY_METHOD: lambda args: self._image(args, 1).layer_identity(),
            "FinishPipe": self._finish_pipe,
        }

    async def _initialize(self, args: tuple[Any, ...]) -> Answer:
        _count(args, 0)
        if self._initialized:
            raise RequestError("already initialized")
        self._initialized = True
        return Answer(PROTOCOL_VERSION)

    async def _open(self, args: tuple[Any, ...]) -> Answer:
        _count(args, 1)
        image = await self._open_image(_text(args[0]))
        self._last_image += 1
        self._images[self._last_image] = image
        return Answer(self._last_image)

    async def _open_optional(self, args: tuple[Any, ...]) -> Answer:
        try:
            return await self._open(args)
        except NotFound:
            return Answer(0)

    async def _close(self, args: tuple[Any, ...]) -> Answer:
        image = self._image(args, 1)
        del self._images[_number(args[0])]
        await image.close()
        return Answer()

    async def _finish_pipe(self, args: tuple[Any, ...]) -> Answer:
        _count(args, 1)
        pipe_id = _number(args[0])
        pipe = self._pipes.pop(pipe_id, None)
        if pipe is None:
            raise RequestError(f"finishpipe: no active pipe {pipe_id}")
        if pipe.finish is not None:
            await pipe.finish()
        return Answer()

    def _image(self, args: tuple[Any, ...], n_args: int) -> Image:
        _count(args, n_args)
        image_id = _number(args[0])
        image = self._images.get(image_id)
        if image is None:
            raise RequestError(f"no image {image_id}")
        return image


def refuse(sock: socket.socket, exc: LayerteeError) -> None:
    """For a server that can't begin: answer everything with ``exc`` until the client is gone.

    A client that finds its server gone has nothing to show for it: not all of them read its stderr.
    """
    packet = _typed(exc).packet()
    with suppress(OSError):  # the client is gone, or was served
        sock.setblocking(True)
        while sock.recv(MAX_PACKET):
            sock.send(packet)


def _typed(exc: LayerteeError) -> Reply:
    notes = "".join(f"; {note}" for note in getattr(exc, "__notes__", ()))
    return failure(f"{exc} [{exc.code}]{notes}", "retryable" if exc.retryable else "other")


def _count(args: tuple[Any, ...], wanted: int) -> None:
    if len(args) != wanted:
        raise RequestError(f"the request has {len(args)} args, {wanted} are expected")


def _number(value: Any) -> int:
    """A non-negative whole number, however JSON wrote it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_NUMBER:
        raise RequestError(f"{value!r:.50} is not a whole number from 0 to {_MAX_NUMBER}")
    return value


def _size(value: Any) -> int:
    return -1 if value == -1 and not isinstance(value, bool) else _number(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{value!r:.50} is not a string")
    return value
