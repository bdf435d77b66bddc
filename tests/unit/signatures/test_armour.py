"""base64 and PEM are read as Go reads them, or not at all."""

from __future__ import annotations

import pytest

from layertee.errors import DocumentError
from layertee.signatures.keys.armour import Block, blocks, first_block, from_base64, only_block
from tests.support import sigstorekit as kit

PEM = kit.pem(b"some bytes", "CERTIFICATE")
SOME = Block("CERTIFICATE", b"some bytes")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", b""),
        ("QQ==", b"A"),
        ("QQ=\n=", b"A"),
        ("Q\r\nUJD\n", b"ABC"),
        ("QR==", b"A"),
        ("+/+/", b"\xfb\xff\xbf"),
    ],
)
def test_base64_is_padded_and_may_have_line_ends(text: str, found: bytes) -> None:
    assert from_base64(text, "it") == found


@pytest.mark.parametrize(
    "text",
    [
        "Q",
        "QQ",
        "QQ=",
        "QUI",
        "QUJD=",
        "QUJD====",
        "QQ===",
        "Q Q==",
        " QQ==",
        "=",
        "====",
        "AA=A",
        "QQ==QQ==",
        "-_-_",
        "é",
    ],
)
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="it is not base64"):
        from_base64(text, "it")


@pytest.mark.parametrize(
    "raw",
    [
        PEM,
        PEM.rstrip(),
        PEM.rstrip() + b" \t",
        PEM.rstrip() + b"\t\r\n",
        PEM.replace(b"\n", b"\r\n"),
        PEM.replace(b"\n", b" \n"),
        b"subject=x\nissuer=y\n" + PEM,
        b"\n\n" + PEM,
        kit.pem(b"some bytes").replace(b"c29t", b"c2 9\tt"),
    ],
)
def test_a_block_is_read(raw: bytes) -> None:
    assert only_block(raw, "it") == SOME


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"QUJD",
        b"x" + PEM,
        b"-" + PEM,
        b"-----BEGIN X-----\n" + PEM,
        b"----- x\n" + PEM,
        PEM.replace(b"END CERT", b"END DERT"),
        PEM.replace(b"\n", b"\r"),
        PEM.replace(b"\n", b""),
        PEM.rstrip() + b"\r",
        PEM.rstrip() + b"x",
        PEM.replace(b"-----\n", b"-----\nA: b\n\n", 1),
        PEM.replace(b"c29t", b"c29"),
        PEM.replace(b"c29t", "ä9t".encode()),
        PEM[:-10],
        b"-----BEGIN X-----\n-----END X-----\n",
    ],
)
def test_what_is_no_block_or_might_be_another_is_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError, match="it is not"):
        first_block(raw, "it")


def test_what_follows_a_block_is_given_back_or_refused() -> None:
    other = kit.pem(b"other", "PUBLIC KEY")
    assert first_block(PEM + b"rest", "it") == (SOME, b"rest")
    for raw in (PEM + other, PEM + b"x", PEM + b"\n", PEM + b" "):
        with pytest.raises(DocumentError, match="something after"):
            only_block(raw, "it")
    assert list(blocks(b" \n" + PEM + b"text\n" + other + b"\n \n", "it")) == [
        SOME,
        Block("PUBLIC KEY", b"other"),
    ]
    assert list(blocks(b"", "it")) == list(blocks(b" \n", "it")) == []
    with pytest.raises(DocumentError):
        list(blocks(PEM + b"x", "it"))


def test_a_long_text_that_is_no_block_costs_little() -> None:
    for raw in (b"-----BEGIN X-----\n" + b"A" * (1 << 20), b"-" * (1 << 20), b"-----BEGIN " * (1 << 17)):
        with pytest.raises(DocumentError):
            list(blocks(raw, "it"))
