"""What a log says of a signature counts if the log signed it, and if it can be read in one way only."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from layertee.config.requirements import Material
from layertee.errors import PolicyRefused
from layertee.signatures.keys.publickeys import load_log_keys
from layertee.signatures.keys.rekor import LogEntry, parse_bundle
from tests.support import sigstorekit as kit

LOG = kit.Log()
KEYS = load_log_keys(Material(data=(LOG.pem,)), "log")
KEY = kit.new_key()
PEM = kit.public_pem(KEY)
PAYLOAD = b"payload"
SIGNATURE = kit.sign(KEY, PAYLOAD)
RECORD = LOG.record(PEM, SIGNATURE, PAYLOAD)
GOOD = LOG.saw(PEM, SIGNATURE, PAYLOAD)
ENTRY = LogEntry(kit.public_der(KEY), SIGNATURE, hashlib.sha256(PAYLOAD).digest(), kit.SIGNED, 4711)


def refused(bundle: str, match: str) -> None:
    with pytest.raises(PolicyRefused, match=match):
        parse_bundle(bundle, KEYS)


def test_an_entry_is_read_whatever_its_white_space_and_order() -> None:
    assert parse_bundle(GOOD, KEYS) == ENTRY
    document = json.loads(GOOD)
    document["Payload"] = dict(reversed(document["Payload"].items()))
    assert parse_bundle(json.dumps(document, indent=3), KEYS) == ENTRY
    assert parse_bundle(GOOD.replace("/", "\\/").replace('"body"', '"\\u0062ody"'), KEYS) == ENTRY


def test_any_of_the_logs_may_have_signed() -> None:
    other = load_log_keys(Material(data=(kit.Log().pem,)), "log")
    assert parse_bundle(GOOD, [*other, *KEYS]) == ENTRY
    with pytest.raises(PolicyRefused, match="not signed by a log"):
        parse_bundle(GOOD, other)


def test_each_change_of_what_the_log_signed_is_seen() -> None:
    document = json.loads(GOOD)
    for key, value in {
        "integratedTime": kit.SIGNED + 1,
        "logIndex": 4712,
        "logID": "0" * 64,
        "body": kit.b64(json.dumps(RECORD).encode()),
    }.items():
        changed = copy.deepcopy(document)
        changed["Payload"][key] = value
        refused(json.dumps(changed), "not signed by a log")


@pytest.mark.parametrize(
    ("bundle", "match"),
    [
        ("", "not JSON"),
        ("null", "not an object"),
        (f"[{GOOD}]", "not an object"),
        (GOOD + "x", "not JSON"),
        ("\ufeff" + GOOD, "not JSON"),
        ("\ud800", "not UTF-8"),
        ("[" * 1000, "nested deeper"),
        (" " * (257 << 10), "larger than"),
        (GOOD[:-1] + ', "Payload": {}}', "appears twice"),
        (GOOD[:-1] + ', "payload": {}}', "only by case"),
        (GOOD[:-1] + ', "more": 1}', "does not have the fields"),
        (GOOD.replace("Payload", "payload"), "does not have the fields"),
        (GOOD.replace("SignedEntryTimestamp", "signedEntryTimestamp"), "does not have the fields"),
        (GOOD.replace('"SignedEntryTimestamp": "', '"SignedEntryTimestamp": "!'), "not base64"),
        (json.dumps({"SignedEntryTimestamp": "", "Payload": json.loads(GOOD)["Payload"]}), "not signed by"),
        (json.dumps({"SignedEntryTimestamp": 1, "Payload": json.loads(GOOD)["Payload"]}), "not a string"),
        (json.dumps({"SignedEntryTimestamp": "", "Payload": []}), "not an object"),
    ],
)
def test_a_bundle_that_may_mean_something_else_is_refused(bundle: str, match: str) -> None:
    refused(bundle, match)


def test_the_stamp_is_der_and_nothing_else() -> None:
    document = json.loads(GOOD)
    stamp = base64.b64decode(document["SignedEntryTimestamp"])
    for damaged in (stamp + b"\0", stamp[:-1], kit.flipped(stamp), b"\0" * 64):
        document["SignedEntryTimestamp"] = kit.b64(damaged)
        refused(json.dumps(document), "not signed by a log")


@pytest.mark.parametrize(
    "changes",
    [
        {"integratedTime": 1.5},
        {"integratedTime": "1"},
        {"integratedTime": None},
        {"integratedTime": True},
        {"logIndex": None},
        {"logIndex": 2**53},
        {"logID": None},
        {"logID": 1},
        {"body": None},
        {"body": "!"},
        {"body": ""},
        {"more": 1},
    ],
)
def test_an_entry_that_the_log_signed_has_its_four_fields(changes: dict[str, Any]) -> None:
    refused(LOG.bundle(LOG.entry(RECORD, **changes)), "log entry")
    if None not in changes.values():
        return
    (key,) = changes
    entry = {name: value for name, value in LOG.entry(RECORD).items() if name != key}
    refused(LOG.bundle(entry), "does not have the fields")


REMOVED = object()


def changed(path: str, value: object) -> dict[str, Any]:
    """The record with another value at ``path``."""
    found: dict[str, Any] = copy.deepcopy(RECORD)
    *way, last = path.split(".")
    at = found
    for key in way:
        at = at[key]
    if value is REMOVED:
        del at[last]
    else:
        at[last] = value
    return found


HASH = RECORD["spec"]["data"]["hash"]["value"]


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("kind", ["rekord", "Hashedrekord", 1, None, REMOVED]),
        ("apiVersion", ["0.0.2", 1, None, REMOVED]),
        ("spec", [{}, [], None, REMOVED]),
        ("spec.data", [{}, [], None, REMOVED]),
        ("spec.data.hash", [{}, None, REMOVED]),
        ("spec.data.hash.algorithm", ["sha512", "SHA256", 1, None, REMOVED]),
        ("spec.data.hash.value", ["", HASH[:-1], HASH + "0", f" {HASH[1:]}", "z" * 64, 1, None, REMOVED]),
        ("spec.signature", [{}, None, REMOVED]),
        ("spec.signature.content", ["!", 1, None, REMOVED]),
        ("spec.signature.publicKey", [{}, None, REMOVED]),
        (
            "spec.signature.publicKey.content",
            [
                *("", "!", 1, None, REMOVED, kit.b64(kit.public_der(KEY)), kit.b64(PEM + b"x")),
                *(kit.b64(PEM + b"\n"), kit.b64(PEM * 2), kit.b64(b"-----BEGIN A-----\n" + PEM)),
            ],
        ),
        ("Kind", ["hashedrekord"]),
        ("\u212aind", ["hashedrekord"]),  # the Kelvin sign, which Go takes for a k
        ("Spec", [{}]),
        ("spec.Data", [{}]),
        ("spec.data.HASH", [{}]),
        ("spec.data.hash.Algorithm", ["sha256"]),
        ("spec.signature.Content", [""]),
        ("spec.signature.publicKey.CONTENT", [""]),
    ],
)
def test_a_record_that_the_log_signed_is_of_the_one_known_kind(path: str, values: list[object]) -> None:
    for value in values:
        refused(LOG.bundle(LOG.entry(changed(path, value))), "log entry")


def test_a_record_may_have_more_than_is_known_and_its_hash_be_in_capitals() -> None:
    for path in ("more", "spec.more", "spec.signature.more"):
        assert parse_bundle(LOG.bundle(LOG.entry(changed(path, {"a": 1}))), KEYS) == ENTRY
    assert parse_bundle(LOG.bundle(LOG.entry(changed("spec.data.hash.value", HASH.upper()))), KEYS) == ENTRY


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"\xff",
        json.dumps(RECORD).encode() + b"x",
        json.dumps(RECORD).encode()[:-1] + b', "kind": "hashedrekord"}',
        b"[" * 5000,
    ],
)
def test_a_body_that_is_not_one_json_object_is_refused(body: bytes) -> None:
    refused(LOG.bundle(LOG.entry(body)), "log entry")


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (lambda: (b"other", SIGNATURE, PAYLOAD), "another key"),
        (lambda: (ENTRY.signer, kit.sign(KEY, PAYLOAD), PAYLOAD), "another signature"),
        (lambda: (ENTRY.signer, SIGNATURE, PAYLOAD + b"x"), "another payload"),
    ],
)
def test_an_entry_about_something_else_is_refused(
    other: Callable[[], tuple[bytes, bytes, bytes]], match: str
) -> None:
    ENTRY.refuse_other(ENTRY.signer, SIGNATURE, PAYLOAD)
    with pytest.raises(PolicyRefused, match=match):
        ENTRY.refuse_other(*other())
