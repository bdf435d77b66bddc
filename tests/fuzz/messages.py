"""Targets: what a server or a client at the other end of a connection sends."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator

from layertee.errors import LayerteeError, RedirectRefused
from layertee.imageproxy.wire import MAX_PACKET, RequestError, failure, parse_request
from layertee.registry.challenge import parse_challenges
from layertee.registry.heads import mended
from layertee.registry.origins import Origin, may_know_secret, over_tls, realm_problem, redirect_target
from layertee.registry.proxies import Proxies
from layertee.registry.statuses import (
    RETRY_MAX_S,
    RETRY_MIN_S,
    is_page,
    retry_after,
    server_says,
    status_error,
    unpacked,
)
from layertee.transfer.ranges import ByteRange, check_answer, offers_ranges
from tests.fuzz.documents import WORDS_OF_JSON
from tests.fuzz.target import Target, parts_of, text_of

_REGISTRY = Origin.of("https://quay.io")
_TRUSTED = frozenset({"auth.example.com"})


def challenge(raw: bytes) -> object:
    """Never an error. A realm that may be asked is one that the rest of the code can ask."""
    found = parse_challenges(text_of(raw).split("\n"))
    for each in found:
        assert each.scheme == each.scheme.lower() and each.scheme.isascii()
        assert all(name == name.lower() for name in each.params)
        realm = over_tls(each.params.get("realm", ""), _REGISTRY, _TRUSTED)
        if realm_problem(realm, _REGISTRY, allow_http=False, trusted=_TRUSTED) is None:
            may_know_secret(realm, _REGISTRY, _TRUSTED)
            assert Origin.of(realm).scheme == "https"
    return found


def _challenge_seeds() -> Iterator[bytes]:
    yield b'Bearer realm="https://auth.example.com/token",service="quay.io",scope="repository:a/b:pull"'
    yield b'Basic realm=x, charset="UTF-8"\nNegotiate abc==, Bearer realm="http://quay.io:80/\\"t"'
    yield b"Bearer realm=https://[::1]:5/x,error=insufficient_scope"


def redirect(raw: bytes) -> object:
    """A redirect that may be followed leads to an http(s) URL, and never from https to http."""
    current, location = (text_of(part) for part in parts_of(raw, 2))
    try:
        current = redirect_target("https://quay.io/v2/x/blobs/y", current, _REGISTRY)
    except RedirectRefused:
        current = "http://quay.io/v2/x/blobs/y"
    target = redirect_target(current, location, _REGISTRY)
    assert not (Origin.of(current).scheme == "https" and Origin.of(target).scheme == "http")
    assert target.isascii() and " " not in target
    return target


def _redirect_seeds() -> Iterator[bytes]:
    yield b"https://quay.io/v2/\n%%\nhttps://cdn.example.com/x?sig=%2F#f"
    yield b"\n%%\n/other/path"
    yield b"http://a.b/\n%%\n//c.d:80/x"
    yield b"\n%%\nhttp://169.254.169.254/"
    yield "\n%%\nhttps://a.b/é".encode()


def head(raw: bytes) -> object:
    """What was mended needs no mending, and still ends where a head ends."""
    whole = raw.replace(b"\r\n\r\n", b"\r\n") + b"\r\n\r\n"
    better = mended(whole)
    assert better.endswith(b"\r\n\r\n")
    assert better is whole or len(better) <= len(whole) + 25
    return better


def _head_seeds() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5"
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nTransfer-Encoding: chunked\r\nX: y\r\n z"
    yield b"HTTP/1.1 206 X\r\nBad Name: 1\r\n folded\r\nContent-Length: 7\r\nContent-Length : 9"


def answer(raw: bytes) -> object:
    """The fields of an answer to a request for bytes 10 to 19 of 100. What is accepted lies in there."""
    status, ranges, kind, length, accepts = (text_of(part) for part in parts_of(raw, 5))
    number = int(status) if status.isascii() and status.isdecimal() and len(status) < 4 else 206
    size = int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else None
    offers_ranges(number, accepts.split("\n"))
    fields = ranges.split("\n") if ranges else []
    found = check_answer(number, fields, kind or None, size, want=ByteRange(10, 20), size=100, ranged=True)
    if not found.whole:
        assert found.start == 10 and 0 < found.nbytes <= 10
    return found


def _answer_seeds() -> Iterator[bytes]:
    yield b"206\n%%\nbytes 10-19/100\n%%\napplication/octet-stream\n%%\n10\n%%\nbytes"
    yield b"206\n%%\nbytes 10-14/*\n%%\n\n%%\n\n%%\nnone, bytes"
    yield b"200\n%%\n\n%%\nmultipart/byteranges\n%%\n100"


def error_answer(raw: bytes) -> object:
    """The status, fields and body of an answer that is no success."""
    status, wait, encoding, body = parts_of(raw, 4)
    number = int(status) if status.isdigit() and len(status) < 4 else 503
    seconds = retry_after(text_of(wait) or None, now=1e9)
    assert seconds is None or RETRY_MIN_S <= seconds <= RETRY_MAX_S
    is_page(body, text_of(encoding))
    says = server_says(body)
    assert says.isprintable() and len(says) <= 201
    error = status_error(number, "https://quay.io/?secret", "x", says=says, wait=text_of(wait) or None)
    assert isinstance(error, LayerteeError) and "secret" not in str(error)
    return unpacked(body, text_of(encoding), 1 << 16)


def _error_seeds() -> Iterator[bytes]:
    says = b'{"errors":[{"code":"DENIED","message":"no"}]}'
    yield b"429\n%%\n120\n%%\n\n%%\n" + says
    yield b"503\n%%\nWed, 21 Oct 2026 07:28:00 GMT\n%%\n\n%%\n" + b'{"error":"x","error_description":"y"}'
    packed = zlib.compressobj(wbits=31)
    yield b"401\n%%\n-5\n%%\ngzip\n%%\n" + packed.compress(says) + packed.flush()
    yield b"511\n%%\n\n%%\ntext/html\n%%\n<html>"


def proxy_variables(raw: bytes) -> object:
    """What the environment says of proxies."""
    proxy, exempt = (text_of(part) for part in parts_of(raw, 2))
    found = Proxies({"https_proxy": proxy, "no_proxy": exempt})
    for url in ("https://quay.io/v2/", "https://10.1.2.3:5000/", "https://[fe80::1]/"):
        one = found.proxy_for(url)
        if one is not None:
            assert 0 < one.port < 65536 and str(one) in one.url
            assert one.basic is None or one.user is not None
    return found


def _proxy_seeds() -> Iterator[bytes]:
    yield b"http://user:p%40ss@proxy.example.com:3128\n%%\n.example.com,10.0.0.0/8, [::1]:80,*.x"
    yield b"socks5h://[::1]\n%%\n*"
    yield b"proxy:8080\n%%\nfe80::/10,quay.io:443"


def request(raw: bytes) -> object:
    """A request, and the reply that says what is wrong with it: that fits a packet, whatever it says."""
    text = text_of(raw)
    for long in (text, text * (3000 // max(len(text), 1) + 2)):
        packet = failure(long).packet()
        assert len(packet) <= MAX_PACKET
        assert json.loads(packet)["success"] is False
    return parse_request(raw)


def _request_seeds() -> Iterator[bytes]:
    yield b'{"method":"OpenImage","args":["docker://quay.io/x:1"]}'
    yield b'{"method":"GetBlob","args":[1,"sha256:ab",5]}'
    yield b'{"method":"Shutdown","args":null}'
    yield "é\U0001f600".encode()


TARGETS = (
    Target(
        "challenge",
        challenge,
        _challenge_seeds,
        (b"Bearer ", b"realm=", b'"', b"\\", b",", b"https://"),
        (),
        largest=64 << 10,
    ),
    Target(
        "redirect",
        redirect,
        _redirect_seeds,
        (b"https://", b"http://", b"@", b"[::1]", b"//", b"\n%%\n"),
        max_len=800,
        largest=64 << 10,
    ),
    Target(
        "head",
        head,
        _head_seeds,
        (b"\r\nContent-Length: ", b"\r\nTransfer-Encoding: chunked", b"\r\n ", b" :"),
        (),
        largest=64 << 10,
    ),
    Target(
        "answer",
        answer,
        _answer_seeds,
        (b"bytes ", b"\n%%\n", b"/*", b"multipart/"),
        max_len=400,
        largest=64 << 10,
    ),
    Target(
        "error-answer", error_answer, _error_seeds, (*WORDS_OF_JSON, b"\n%%\n", b"GMT", b"errors", b"message")
    ),
    Target(
        "proxy-variables",
        proxy_variables,
        _proxy_seeds,
        (b"socks5://", b"http://", b"@", b"[", b"]:", b"/8"),
        max_len=600,
        largest=64 << 10,
    ),
    Target("request", request, _request_seeds, (*WORDS_OF_JSON, b"method", b"args"), (RequestError,)),
)
