"""DER is read in its one form."""

from __future__ import annotations

import pytest

from layertee.errors import DocumentError
from layertee.signatures.keys.der import SEQUENCE, UTF8_STRING, Element, elements, only


def test_values_are_read_one_after_the_other() -> None:
    assert elements(b"", "it") == []
    assert elements(b"\x05\x00\x0c\x01a", "it") == [
        Element(5, b"", b"\x05\x00"),
        Element(UTF8_STRING, b"a", b"\x0c\x01a"),
    ]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_lengths_have_one_form(size: int) -> None:
    length = size.to_bytes(max(1, (size.bit_length() + 7) // 8), "big")
    head = bytes([size]) if size < 128 else bytes([0x80 + len(length)]) + length
    assert only(b"\x30" + head + bytes(size), SEQUENCE, "it").content == bytes(size)
    longer = bytes([0x80 + len(length) + 1]) + b"\0" + length
    with pytest.raises(DocumentError, match="shortest form"):
        elements(b"\x30" + longer + bytes(size), "it")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x30",
        b"\x30\x01",
        b"\x30\x80\0\0",
        b"\x30\x81",
        b"\x30\x81\x7f",
        b"\x1f\x01\0",
        b"\x30\x85\1\0\0\0\0",
        b"\x30\x82\1",
    ],
)
def test_what_is_not_der_is_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError, match="it "):
        elements(raw, "it")


def test_one_value_of_a_kind_is_just_that() -> None:
    for raw in (b"", b"\x0c\x01a", b"\x30\x00\x30\x00", b"\x30\x00\x00\x00"):
        with pytest.raises(DocumentError, match="not of the type"):
            only(raw, SEQUENCE, "it")
