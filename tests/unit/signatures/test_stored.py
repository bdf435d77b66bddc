"""A signature says by how it begins what it is; what says nothing known is an error."""

from __future__ import annotations

import base64
import json

import pytest

from layertee.errors import PolicyRefused
from layertee.signatures.signature import MAX_SIGNATURE, Attachment, SimpleSignature
from layertee.signatures.stored import stored_signature

OPENPGP = (0xA0, 0xA1, 0xA2, 0xA3, 0xC8, 0x90, 0x91, 0x92, 0xC4, 0x88, 0x89, 0x8A, 0x8B, 0xC2)


def sigstore(**changes: object) -> bytes:
    found = {
        "mimeType": "application/x",
        "payload": base64.b64encode(b"{}").decode(),
        "annotations": {"a": "b", "A": "c"},
    } | changes
    return b"\0sigstore-json\n" + json.dumps({k: v for k, v in found.items() if v != "gone"}).encode()


def test_openpgp_is_known_by_its_first_byte() -> None:
    known = []
    for first in range(1, 256):
        blob = bytes([first]) + b"rest"
        try:
            assert stored_signature(blob, "here") == SimpleSignature(blob, "here")
            known.append(first)
        except PolicyRefused as exc:
            assert f"{first:#04x}" in str(exc)
    assert set(known) == set(OPENPGP)


def test_a_kind_can_be_written_before_it() -> None:
    assert stored_signature(b"\0simple-signing\n\x90\nrest", "here") == SimpleSignature(b"\x90\nrest", "here")
    found = stored_signature(sigstore(), "here")
    assert found == Attachment("application/x", b"{}", {"a": "b", "A": "c"}, "here")
    assert stored_signature(sigstore(annotations=None), "here") == Attachment(
        "application/x", b"{}", {}, "here"
    )
    assert stored_signature(sigstore(more=[1]), "here") == found


@pytest.mark.parametrize(
    "blob",
    [
        *(
            b"",
            b"\0",
            b"\n",
            b"\0\n",
            b"\0simple-signing",
            b"\0Simple-Signing\n\x90",
            b"\0simple-signing \n\x90",
        ),
        *(
            b"\0sigstore-json",
            b"\0sigstore-json\n",
            b"\0sigstore-json\n[]",
            b"\0other\n\x90",
            b"\0\xff\x1b\n",
        ),
        *(b"-----BEGIN PGP MESSAGE-----\n", b"<html>", b"{}", b"\x99key"),
        *(sigstore(mimeType=key) for key in ("gone", None, 1)),
        *(sigstore(payload=key) for key in ("gone", None, 1, "=", "e30", "e30=\n", "é", "e3-_")),
        *(sigstore(annotations=key) for key in ("x", [1], {"a": 1})),
        *(sigstore(MimeType="x"), sigstore(PAYLOAD="")),
        sigstore().replace(b'"payload"', b'"payload": "", "payload"'),
        sigstore() + b"x",
        b"\0" + b"x" * 10000,
    ],
)
def test_anything_else_is_refused_in_a_short_line(blob: bytes) -> None:
    with pytest.raises(PolicyRefused, match="the signature at�home") as caught:
        stored_signature(blob, "at\x1bhome")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_it_may_have_a_certain_size() -> None:
    most = b"\x90" + bytes(MAX_SIGNATURE - 1)
    assert stored_signature(most, "here") == SimpleSignature(most, "here")
    with pytest.raises(PolicyRefused, match="larger than 4194304 bytes"):
        stored_signature(most + b"\0", "here")
