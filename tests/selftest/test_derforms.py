"""Odd certificates: what is not changed stays as it was, and what is changed is DER whose lengths fit."""

from __future__ import annotations

import random

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support import sigstorekit as kit
from tests.support.derforms import Node, read, reissued, rewritten


def test_what_was_read_is_written_as_it_was() -> None:
    root = kit.Authority.root()
    for one in (root.certificate, root.leaf(kit.new_key().public_key()), root.intermediate().certificate):
        der = one.public_bytes(Encoding.DER)
        assert read(der).to_der() == der
    long = Node(0x30, children=[Node(4, b"x" * size) for size in (0, 127, 128, 255, 256, 70000)])
    assert read(long.to_der()).to_der() == long.to_der()
    for der in (b"", b"\x30", b"\x30\x02\x05", b"\x05\x00\x00"):
        with pytest.raises(ValueError, match=r"cut|more after it"):
            read(der)


def test_a_change_is_one_and_the_signature_is_of_what_it_is_in() -> None:
    root = kit.Authority.root()
    leaf = root.leaf(kit.new_key().public_key())
    der = leaf.public_bytes(Encoding.DER)
    n_other = n_read = 0
    for seed in range(300):
        assert rewritten(der, random.Random(seed)) == rewritten(der, random.Random(seed))
        made = reissued(leaf, root.key, random.Random(seed))
        n_other += rewritten(der, random.Random(seed)) != der
        try:
            found = x509.load_der_x509_certificate(made)
            found.verify_directly_issued_by(root.certificate)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
            continue
        n_read += 1
    assert n_other > 270
    assert 60 < n_read < 290, n_read
