"""What an HTTP status means."""

from __future__ import annotations

import email.utils
import gzip

import pytest

from layertee.errors import (
    DocumentError,
    LayerteeError,
    NotInRegistry,
    RangeMismatch,
    RateLimited,
    RegistryError,
    ServerError,
    Timeout,
    Unauthorized,
)
from layertee.registry.statuses import (
    is_page,
    is_plainly_absent,
    retry_after,
    server_says,
    status_error,
    unpacked,
)

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 1),
        ("-5", 1),
        ("7", 7),
        (" 7 ", 7),
        ("+7", 7),
        ("3600", 3600),
        ("99999", DAY),
        ("9" * 5000, DAY),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 1),
        (email.utils.formatdate(NOW + 40, usegmt=True), 40),
        ("1.5", 2),
        ("soon", 2),
        ("", 2),
        ("Fri, 99 Foo 99999 99:99:99", 2),
    ],
)
def test_retry_after_is_read_and_clamped(value: str, seconds: float) -> None:
    assert retry_after(value, now=NOW) == pytest.approx(seconds)


def test_no_retry_after_is_none() -> None:
    assert retry_after(None) is None


@pytest.mark.parametrize("date", ["Wed, 01 Jan 2020 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_date_is_held_against_the_servers_clock_and_not_this_machines(date: str) -> None:
    later = date.replace("00:00:00", "00:00:07")
    assert retry_after(later, date=date, now=NOW) == 7.0
    assert retry_after(later, date="no date", now=NOW) in (1.0, DAY)


@pytest.mark.parametrize(
    ("status", "wait", "kind", "retryable"),
    [
        (400, None, RegistryError, False),
        (401, None, Unauthorized, False),
        (403, None, Unauthorized, False),
        (404, None, NotInRegistry, False),
        (416, None, RangeMismatch, True),
        (408, None, Timeout, True),
        (418, None, RegistryError, False),
        (429, None, RateLimited, True),
        (429, "9", RateLimited, True),
        (500, None, ServerError, True),
        (502, "9", ServerError, True),
        (503, None, ServerError, True),
        (503, "9", RateLimited, True),
        (302, None, RegistryError, False),
        (204, None, RegistryError, False),
    ],
)
def test_each_status_has_its_error(
    status: int, wait: str | None, kind: type[LayerteeError], retryable: bool
) -> None:
    error = status_error(status, "https://h/x?sig=hunter2", "the thing", says="because", wait=wait)
    assert type(error) is kind
    assert error.retryable is retryable
    assert "the thing" in str(error)
    assert str(status) in str(error)
    assert "because" in str(error)
    assert "hunter2" not in str(error)
    if isinstance(error, RegistryError):
        assert error.status == status
        assert "hunter2" not in error.url
    if isinstance(error, RateLimited):
        assert error.retry_after == (9 if wait else 2)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no\\u001b[2J\\nentry"}]}', "no�[2J�entry"),
        (b'{"errors":[{"code":"DENIED"}]}', "DENIED"),
        (b'{"errors":[{"code":"DENIED","message":7}]}', "DENIED"),
        (b'{"details":"incorrect username or password"}', "incorrect username or password"),
        (b'{"error":"invalid_grant","error_description":"expired"}', "expired"),
        (b'{"errors":[]}', ""),
        (b'{"errors":["x"]}', ""),
        (b"[]", ""),
        (b"<html>", ""),
        (b"", ""),
        (b'{"message":"' + b"x" * 70000 + b'"}', ""),
        (b'{"message":"' + b"x" * 1000 + b'"}', "x" * 200 + "…"),
    ],
)
def test_only_a_registrys_own_message_is_shown(body: bytes, says: str) -> None:
    assert server_says(body) == says


@pytest.mark.parametrize(
    ("body", "kind", "page"),
    [
        (b"<html>", None, True),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>", "application/vnd.oci.image.manifest.v1+json", True),
        (b"go away", "text/html", True),
        (b"", "Text/HTML; charset=x", True),
        (b"", "application/xhtml+xml", True),
        (b" {}", "text/html", False),
        (b"[]", "text/html", False),
        (b"go away", "text/plain", False),
        (b"", None, False),
        (b"{}", "application/json", False),
    ],
)
def test_a_page_for_people_is_known_by_its_beginning(body: bytes, kind: str | None, page: bool) -> None:
    assert is_page(body, kind) is page


def test_gzip_is_taken_off_within_bounds() -> None:
    packed = gzip.compress(b"{}" * 1000)
    assert unpacked(packed, "gzip", 2000) == b"{}" * 1000
    assert unpacked(b"{}", "gzip", 2000) == b"{}"
    assert unpacked(packed, None, 10) == packed
    assert unpacked(packed, "br", 10) == packed
    for broken, limit in (
        (packed, 1999),
        (packed[:-1], 2000),
        (packed + packed, 4000),
        (packed[:20] + bytes(9), 2000),
    ):
        with pytest.raises(DocumentError):
            unpacked(broken, "gzip", limit)


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        (b"", True),
        (b"<html>", True),
        (b"[]", True),
        (b'{"errors":[]}', True),
        (b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}', True),
        (b'{"errors":[{"code":"UNKNOWN","message":"Not Found"}]}', True),
        (b'{"errors":[{"code":"NOT_FOUND","message":"artifact os:sha256-0.sig not found"}]}', True),
        (b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository not found"}]}', False),
        (b'{"errors":[{"code":"DENIED","message":"no"}]}', False),
        (b'{"errors":[{"code":"TAG_EXPIRED","message":"too late"}]}', False),
        (b'{"errors":[{"code":"DENIED"},{"code":"MANIFEST_UNKNOWN"}]}', False),
        (b'{"errors":["MANIFEST_UNKNOWN"]}', False),
    ],
)
def test_what_a_404_without_another_reason_is(body: bytes, plain: bool) -> None:
    assert is_plainly_absent(body) is plain
