"""An entry of a transparency log proves itself, or counts for nothing: every proof, and what it is about."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from layertee.errors import DocumentError, PolicyRefused
from layertee.signatures.trust.bundlekeys import load_pem
from layertee.signatures.trust.bundles import parse_bundle
from layertee.signatures.trust.logentries import MAX_HASHES, parse_entry
from layertee.signatures.trust.root import RootDocument, parse_root
from tests.support.bundlekit import (
    Rekor,
    Sigstore,
    dsse_v1,
    dsse_v2,
    flip,
    found,
    hashedrekord_v2,
    pae,
    statement,
    tree_path,
    tree_root,
)
from tests.support.sigstorekit import NOW, SIGNED, b64, new_key, public_pem, sign

KEY = new_key()
PAYLOAD = statement("sha256:" + "a" * 64)
SIGNATURE = sign(KEY, pae(PAYLOAD))
BODY = dsse_v1(PAYLOAD, SIGNATURE, public_pem(KEY))


def root_of(rekor: Rekor) -> RootDocument:
    return parse_root(Sigstore(rekor=rekor).trusted_root(), "root")


def refused(rekor: Rekor, document: dict[str, Any]) -> str:
    with pytest.raises((PolicyRefused, DocumentError)) as caught:
        parse_entry(document).verify(root_of(rekor), NOW)
    return str(caught.value)


@pytest.mark.parametrize("n_before", [0, 1, 2, 3, 6, 7, 8, 20])
@pytest.mark.parametrize("n_after", [0, 1, 2, 5, 9])
def test_every_place_in_trees_of_every_shape(n_before: int, n_after: int) -> None:
    rekor = Rekor(n_before=n_before, n_after=n_after)
    entry = rekor.entry(BODY)
    assert parse_entry(entry).verify(root_of(rekor), NOW) == SIGNED
    proof = entry["inclusionProof"]
    for wrong in {0, n_before + 1, n_before ^ 1, n_before + n_after} - {n_before}:
        changed = {**proof, "logIndex": str(wrong)}
        assert "not in the tree" in refused(rekor, {**entry, "inclusionProof": changed})
    for hashes in (proof["hashes"][1:], [*proof["hashes"], b64(bytes(32))], [b64(bytes(32))]):
        if hashes != proof["hashes"]:
            assert "not in the tree" in refused(
                rekor, {**entry, "inclusionProof": {**proof, "hashes": hashes}}
            )


def test_the_trees_of_the_tests_are_those_of_the_rfc() -> None:
    # RFC 9162 §2.1.5: seven leaves, and the path of the first, the fourth and the fifth.
    a, b, c, d, e, f, j = leaves = [hashlib.sha256(bytes([0, n])).digest() for n in range(7)]

    def node(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\1" + left + right).digest()

    g, h, i = node(a, b), node(c, d), node(e, f)
    k, m = node(g, h), node(i, j)
    assert tree_root(leaves) == node(k, m)
    assert tree_path(leaves, 0) == [b, h, m]
    assert tree_path(leaves, 3) == [c, g, m]
    assert tree_path(leaves, 6) == [i, k]


def test_an_entry_without_a_promise_has_no_time() -> None:
    rekor = Rekor()
    assert parse_entry(rekor.entry(BODY, at=None)).verify(root_of(rekor), NOW) is None
    entry = rekor.entry(BODY)
    del entry["inclusionPromise"]
    assert "two places" in refused(rekor, entry)  # nothing signs for the place in the whole log
    assert parse_entry({**entry, "logIndex": "5"}).verify(root_of(rekor), NOW) is None
    entry = rekor.entry(BODY)
    del entry["integratedTime"]
    assert "no time" in refused(rekor, entry)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"integratedTime": str(SIGNED + 1)}, "promise"),
        ({"logIndex": "1"}, "promise"),
        ({"logId": {"keyId": b64(bytes(32))}}, "does not have"),
        ({"inclusionPromise": {"signedEntryTimestamp": b64(b"x")}}, "promise"),
        ({"inclusionPromise": {}}, "promise"),
        ({"canonicalizedBody": b64(b"{}")}, "tree"),
        ({"canonicalizedBody": "?"}, "base64"),
        ({"logIndex": "-1"}, "is no number"),
        ({"logIndex": "1" * 30}, "is no number"),
        ({"logIndex": True}, "not a string"),
        ({"integratedTime": "1e9"}, "is no number"),
        ({"inclusionProof": None}, "not an object"),
        ({"logId": None}, "not an object"),
    ],
)
def test_what_is_not_right_is_refused(change: dict[str, Any], why: str) -> None:
    rekor = Rekor()
    assert why in refused(rekor, {**rekor.entry(BODY), **change})


def test_a_checkpoint_has_to_be_of_this_tree_and_this_log() -> None:
    rekor, other = Rekor(), Rekor()
    entry = rekor.entry(BODY)
    proof = entry["inclusionProof"]
    note = proof["checkpoint"]["envelope"]
    text, _, block = note.partition("\n\n")
    name, signature = block.split()[1:]
    lines = text.split("\n")
    bad = [
        "",
        text,
        f"{text}\n\n",
        note[:-1],
        note.replace("\n", "\n\n"),
        other.checkpoint(tree_root([bytes(32)]), 1),
        other.entry(BODY)["inclusionProof"]["checkpoint"]["envelope"],
        note.replace(lines[0], "another.origin", 1),
        note.replace(f"\n{lines[1]}\n", f"\n{int(lines[1]) + 1}\n"),
        note.replace(lines[2], b64(bytes(32))),
        f"{text}\n\n— {name} {flip(signature, 10)}\n",
        f"{text}\n\n— {name} ?\n",
        f"{text}\n\n{'— x AAAAAAAA' + chr(10)}".replace("— x AAAAAAAA\n", "— x AAAAAAAA\n" * 17),
        f"{lines[0]}\n{lines[1]}\n\n{block}",
    ]
    for each in bad:
        changed = {**proof, "checkpoint": {"envelope": each}}
        assert "checkpoint" in refused(rekor, {**entry, "inclusionProof": changed}), each
    # Of several signatures, as with witnesses, one has to be the log's.
    several = f"{text}\n\n— witness AAAAAAAAAAAA\n{block}"
    changed = {**proof, "checkpoint": {"envelope": several}}
    assert parse_entry({**entry, "inclusionProof": changed}).verify(root_of(rekor), NOW) == SIGNED


def test_an_entry_is_bounded() -> None:
    entry = Rekor().entry(BODY)
    proof = entry["inclusionProof"]
    for change in (
        {"hashes": [b64(bytes(32))] * (MAX_HASHES + 1)},
        {"checkpoint": {"envelope": "x" * 70_000}},
    ):
        with pytest.raises(DocumentError, match=r"more than|too long"):
            parse_entry({**entry, "inclusionProof": {**proof, **change}})


# --- what it is about ---


def test_entries_of_every_kind_are_about_their_signature() -> None:
    rekor, key = Rekor(), load_pem(public_pem(KEY))
    bodies = (BODY, dsse_v2(PAYLOAD, SIGNATURE, KEY), hashedrekord_v2(PAYLOAD, SIGNATURE, KEY))
    other = load_pem(public_pem(new_key()))
    for body in bodies:
        entry = parse_entry(rekor.entry(body))
        entry.check_envelope(key, PAYLOAD, SIGNATURE, pae(PAYLOAD))
        for wrong in (
            (other, PAYLOAD, SIGNATURE, pae(PAYLOAD)),
            (key, b"x", SIGNATURE, pae(b"x")),
            (key, PAYLOAD, b"x", pae(PAYLOAD)),
        ):
            with pytest.raises(PolicyRefused, match="another signature"):
                entry.check_envelope(*wrong)


@pytest.mark.parametrize(
    "body",
    [
        {**BODY, "kind": "intoto"},
        {**BODY, "kind": "hashedrekord"},
        {**BODY, "apiVersion": "0.0.9"},
        {**BODY, "spec": None},
        {**BODY, "spec": {}},
        {**BODY, "spec": {**BODY["spec"], "payloadHash": {"algorithm": "sha1", "value": "00"}}},
        {**BODY, "spec": {**BODY["spec"], "payloadHash": {"algorithm": "sha256", "value": "xy"}}},
        {**BODY, "spec": {**BODY["spec"], "signatures": []}},
        {**BODY, "spec": {**BODY["spec"], "signatures": BODY["spec"]["signatures"] * 2}},
        {**BODY, "spec": {**BODY["spec"], "signatures": [{"signature": "AA==", "verifier": b64(b"no key")}]}},
    ],
)
def test_entries_that_cannot_be_read_are_refused(body: dict[str, Any]) -> None:
    entry = parse_entry(Rekor().entry(body))
    with pytest.raises(PolicyRefused, match="cannot be read"):
        entry.check_envelope(load_pem(public_pem(KEY)), PAYLOAD, SIGNATURE, pae(PAYLOAD))


def test_an_entry_is_of_the_kind_that_it_says() -> None:
    for change in ({"kind": "hashedrekord", "version": "0.0.1"}, {"kind": "dsse", "version": "0.0.2"}):
        entry = parse_entry({**Rekor().entry(BODY), "kindVersion": change})
        with pytest.raises(PolicyRefused, match="two kinds"):
            entry.check_envelope(load_pem(public_pem(KEY)), PAYLOAD, SIGNATURE, pae(PAYLOAD))


def test_a_bundle_has_few_entries() -> None:
    raw = json.loads(Sigstore().by_key(KEY, PAYLOAD))
    raw["verificationMaterial"]["tlogEntries"] *= 9
    with pytest.raises(PolicyRefused, match="more than 8"):
        parse_bundle(found(json.dumps(raw).encode()))
