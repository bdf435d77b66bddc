"""Where simple signatures are kept: with an image in a directory, on a lookaside server, or in its registry.

containers/image: docs/signature-protocols.md, docker/docker_image_src.go and directory/. Rules of this file:
signatures are numbered from 1, and the first that is missing ends them; whatever else goes wrong is an error;
how many and how large they are, and how long they take, is bounded.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import os
import re
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote, unquote_to_bytes, urlsplit

from ..aio import in_thread
from ..errors import DocumentError, PolicyRefused, RedirectRefused, RegistriesConfError, Timeout, redact_url
from ..image.strictjson import as_list, as_object, as_text, check_fields, load_object, printable
from ..registry.origins import MAX_HOPS, Origin, redirect_target
from ..registry.retry import retrying
from ..registry.statuses import status_error, unpacked
from .signature import MAX_SIGNATURE, MAX_SIGNATURES, Signature, SignatureSource, SimpleSignature
from .stored import stored_signature

if TYPE_CHECKING:
    from ..config.registries_d import SignaturePlaces
    from ..image.digest import Digest
    from ..image.reference import Reference
    from ..registry.client import Registry
    from ..registry.http import TLSPolicy, Transport

LIMIT_S: Final = 120.0
"""For all signatures of one image from one place."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_TOTAL: Final = 4 * MAX_SIGNATURE
_MAX_LIST: Final = 4 << 20  # bytes: iolimits.MaxSignatureListBodySize
_SUPPORTS: Final = "X-Registry-Supports-Signatures"
_VERSION, _ATOMIC = 2, "atomic"  # of the signatures in a registry's list
_VERSION_FILE = re.compile(rb"Directory Transport Version: (0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\n")
_NEWEST: Final = (1, 2)
# Go's net/url escapes all others in a path.
_SAFE: Final = "/$&+,:;=@~"

T = TypeVar("T")
Stored = tuple[bytes, str]
"""A signature as it is kept, and where, for messages."""


class DirectorySignatures:
    """Of an image that is a directory as skopeo's ``dir:`` has it; ``primary`` is its manifest or index."""

    def __init__(self, path: Path, primary: Digest) -> None:
        self._path = path
        self._primary = primary

    async def signatures(self, digest: Digest) -> list[Signature]:
        """As SignatureSource."""
        await in_thread(self._check_version)
        kind = "" if digest.algorithm == "sha256" else f"{digest.algorithm}-"
        prefix = "" if digest == self._primary else f"{kind}{digest.hex}."

        async def read(number: int) -> Stored | None:
            return await in_thread(_read_stored, self._path / f"{prefix}signature-{number}")

        return await _all(read, f"dir:{self._path}")

    def _check_version(self) -> None:
        file = self._path / "version"
        said = _read(file)
        if said is None:
            return
        found = _VERSION_FILE.fullmatch(said)
        if found is None or (int(found[1]), int(found[2])) > _NEWEST:
            raise PolicyRefused(f"{file} has no version that is known: {printable(repr(said[:60]))}")


class LookasideSignatures:
    """Of ``image`` where registries.d says that its signatures are: on a web server, or in a directory.

    ``image`` is the one that its manifest came from, a mirror's where that is so, and ``places`` are for it.
    The transport belongs to the caller.
    """

    def __init__(
        self,
        transport: Transport,
        image: Reference,
        places: SignaturePlaces,
        *,
        tls: TLSPolicy | None = None,
        limit_s: float = LIMIT_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._transport = transport
        self._base = _Base.of(places, image)
        self._tls = tls
        self._limit_s = limit_s
        self._sleep = sleep

    async def signatures(self, digest: Digest) -> list[Signature]:
        """As SignatureSource."""
        if self._base.scheme == "file":

            async def read(number: int) -> Stored | None:
                return await in_thread(_read_stored, Path(self._base.path(digest, number)))

            return await _all(read, self._base.path(digest, None))

        async def fetch(number: int) -> Stored | None:
            url = self._base.url(digest, number)
            return await retrying(lambda: self._fetch(url), sleep=self._sleep, patience_s=self._limit_s)

        shown = redact_url(self._base.url(digest, None))
        return await _in_time(_all(fetch, shown), self._limit_s, shown)

    async def _fetch(self, url: str) -> Stored | None:
        """What is at ``url``; None if the server has nothing there."""
        home = Origin.of(url)
        what = f"the signature {redact_url(url)}"
        at = url
        for _ in range(MAX_HOPS + 1):
            origin = Origin.of(at)
            try:
                answer = await self._transport.fetch(
                    "GET",
                    at,
                    headers={"Accept": "*/*", "Accept-Encoding": "identity"},
                    limit=MAX_SIGNATURE,
                    tls=self._tls if origin == home else None,
                    near=None if origin.host == home.host else home.host,
                )
            except DocumentError as exc:
                raise PolicyRefused(f"{what}: {exc}") from exc
            location = answer.field("Location")
            if answer.status not in _REDIRECTS or location is None:
                break
            at = redirect_target(at, location, home)
        else:
            raise RedirectRefused(f"{what}: more than {MAX_HOPS} redirects")
        if answer.status == 404:
            return None
        if answer.status != 200:
            wait, date = answer.field("Retry-After"), answer.field("Date")
            raise status_error(answer.status, at, what, wait=wait, date=date)
        try:
            body = unpacked(answer.body, answer.field("Content-Encoding"), MAX_SIGNATURE)
        except DocumentError as exc:
            raise PolicyRefused(f"{what}: {exc}") from exc
        return body, redact_url(url)


class RegistrySignatures:
    """Of ``image`` in its registry, if that says that it has them, else where ``otherwise`` has them.

    ``registry`` is the one of ``image``, the mirror's where its manifest came from a mirror.
    """

    def __init__(
        self,
        registry: Registry,
        image: Reference,
        otherwise: SignatureSource,
        *,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._registry = registry
        self._image = image
        self._limit_s = limit_s
        self._otherwise = otherwise
        self._has_them: bool | None = None  # not asked yet

    async def signatures(self, digest: Digest) -> list[Signature]:
        """As SignatureSource."""
        if self._has_them is None:
            pong = await _in_time(self._registry.ping(), self._limit_s, self._image.registry)
            self._has_them = pong.field(_SUPPORTS) == "1"
        if not self._has_them:
            return await self._otherwise.signatures(digest)
        path = f"/extensions/v2/{self._image.repository}/signatures/{digest}"
        what = f"the signatures of {self._image.name}@{digest}"
        asking = self._registry.small(path, "*/*", limit=_MAX_LIST, what=what)
        answer = await _in_time(asking, self._limit_s, self._image.registry)
        try:
            return _listed(answer.body, f"{self._image.registry}{path}")
        except DocumentError as exc:
            raise PolicyRefused(f"{what}: {exc}") from exc


def _listed(raw: bytes, place: str) -> list[Signature]:
    """Those of a registry's list that are simple signatures. Raises DocumentError, PolicyRefused."""
    document = load_object(raw, "the list", limit=_MAX_LIST, maps=None)
    check_fields(document, ("signatures",), "the list")
    found: list[Signature] = []
    for number, entry in enumerate(as_list(document.get("signatures"), "the list"), 1):
        what = f"entry {number}"
        each = as_object(entry, what)
        check_fields(each, ("schemaVersion", "name", "type", "content"), what)
        if each.get("schemaVersion") != _VERSION or each.get("type") != _ATOMIC:
            continue
        try:
            blob = base64.b64decode(as_text(each.get("content"), what).encode("ascii"), validate=True)
        except (UnicodeEncodeError, binascii.Error) as exc:
            raise DocumentError(f"{what} is not base64") from exc
        found.append(SimpleSignature(blob, f"{place}, entry {number}"))
        if len(found) > MAX_SIGNATURES:
            raise PolicyRefused(f"{place} has more than {MAX_SIGNATURES} signatures")
    return found


class _Base:
    """The URL below which the signatures of one image are."""

    def __init__(self, scheme: str, netloc: str, path: bytes, query: str) -> None:
        self.scheme = scheme
        self._netloc = netloc
        self._path = path
        self._query = query

    @classmethod
    def of(cls, places: SignaturePlaces, image: Reference) -> _Base:
        """Raises RegistriesConfError."""
        text = places.lookaside
        where = f"{places.lookaside_file}: " if places.lookaside_file else ""
        what = f"{where}lookaside {printable(redact_url(text))}"
        # urlsplit would leave out what Go's parser refuses.
        if not text.isprintable() or re.search(r"%(?![0-9A-Fa-f]{2})|[\s\\]", text):
            raise RegistriesConfError(f"{what} is not a URL")
        try:
            parts = urlsplit(text)
            if parts.scheme == "file":
                if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
                    raise RegistriesConfError(f"{what}: write file:///path")
            else:
                Origin.of(text)
        except ValueError as exc:
            raise RegistriesConfError(f"{what}: only file, http and https URLs are known") from exc
        path = unquote_to_bytes(parts.path)
        if b"\0" in path:
            raise RegistriesConfError(f"{what} is not a URL")
        return cls(parts.scheme, parts.netloc, path + f"/{image.repository}".encode(), parts.query)

    def path(self, digest: Digest, number: int | None) -> str:
        """In the file system, or on the server; that of the directory without ``number``."""
        return os.fsdecode(self._path) + _name(digest, number)

    def url(self, digest: Digest, number: int | None) -> str:
        path = quote(self._path + _name(digest, number).encode(), safe=_SAFE)
        return f"{self.scheme}://{self._netloc}{path}" + (f"?{self._query}" if self._query else "")


def _name(digest: Digest, number: int | None) -> str:
    directory = f"@{digest.algorithm}={digest.hex}"
    return directory if number is None else f"{directory}/signature-{number}"


async def _in_time(work: Awaitable[T], limit_s: float, place: str) -> T:
    """Raises Timeout."""
    try:
        async with asyncio.timeout(limit_s):
            return await work
    except TimeoutError as exc:
        raise Timeout(f"{place}: the signatures did not come within {limit_s:g} s") from exc


async def _all(read: Callable[[int], Awaitable[Stored | None]], place: str) -> list[Signature]:
    """Those that ``read`` has, by their numbers. Raises PolicyRefused."""
    found: list[Signature] = []
    nbytes = 0
    while (stored := await read(len(found) + 1)) is not None:
        found.append(stored_signature(*stored))
        if len(found) == MAX_SIGNATURES:  # as containers/image: it does not look whether there is one more
            raise PolicyRefused(f"{printable(place)} has {MAX_SIGNATURES} signatures or more")
        nbytes += len(stored[0])
        if nbytes > _MAX_TOTAL:
            raise PolicyRefused(f"the signatures in {printable(place)} are more than {_MAX_TOTAL} bytes")
    return found


def _read_stored(path: Path) -> Stored | None:
    raw = _read(path)
    return None if raw is None else (raw, str(path))


def _read(path: Path) -> bytes | None:
    """A byte more than a signature may have, of a regular file; None where there is no file. Blocks.

    A way to it that leads nowhere is an error, not a missing file. Raises PolicyRefused.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(MAX_SIGNATURE + 1)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    finally:
        os.close(fd)


def _unreadable(path: Path, exc: OSError) -> PolicyRefused:
    return PolicyRefused(f"the signature {printable(str(path))} cannot be read: {exc.strerror}")
