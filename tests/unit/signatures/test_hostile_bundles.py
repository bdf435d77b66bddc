"""Bundles and attachments from strangers: whatever is in them, an image is refused, and nothing breaks."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertee.errors import PolicyRefused
from layertee.signatures.signature import MAX_SIGNATURE
from tests.support.bundlekit import WORKFLOW, Sigstore, statement
from tests.support.sigstorekit import ISSUER, Log, b64, by_key, new_key, payload, public_pem
from tests.support.stampkit import StampAuthority
from tests.support.trustmachine import FOR_IMAGE, SUBJECT, Machine

KEY = new_key()
SIGSTORE = Sigstore()
STAMPS = StampAuthority()
# Whatever is in one of them, the other is missing.
TEXT = f'threshold = 2\nsigner = [{{key = "a.pub"}}, {{issuer = "{ISSUER}", subject = "{WORKFLOW}"}}]'
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.text(max_size=20),
    st.binary(max_size=40).map(b64),
    st.sampled_from(["", "0", "-1", "9" * 40, "AAAA", "MAA=", "MIIB", "\ud7ff", "—", "sha256", "0.0.2"]),
    st.lists(st.just({}), max_size=3),
    st.dictionaries(st.sampled_from(["sig", "keyId", "rawBytes"]), st.just("AA=="), max_size=2),
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    directory: Path = tmp_path_factory.mktemp("hostile")
    made = Machine(directory, SIGSTORE)

    def edit(document: dict[str, Any]) -> None:
        document["timestampAuthorities"] = [STAMPS.instance()]

    (directory / "root.json").write_bytes(SIGSTORE.trusted_root(edit))
    (directory / "a.pub").write_bytes(public_pem(KEY))
    return made


def ways(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """To every value in a document."""
    found = [way] if way else []
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            found += ways(each, (*way, key))
    return found


def stamped(raw: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(raw)
    stamp = {"signedTimestamp": b64(STAMPS.stamp(b"x", 1_700_000_000))}
    document["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": [stamp]}
    return document


DOCUMENTS = [stamped(SIGSTORE.by_key(KEY, FOR_IMAGE)), stamped(SIGSTORE.keyless(FOR_IMAGE))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.data())
def test_any_value_in_any_place_is_refused_or_passed_over(machine: Machine, data: st.DataObject) -> None:
    document = json.loads(json.dumps(data.draw(st.sampled_from(DOCUMENTS))))
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(st.sampled_from(ways(document)))
        holder = document
        for step in way[:-1]:
            holder = holder[step]
        holder[way[-1]] = data.draw(VALUES)
    for text in (TEXT, f"timestamp = true\n{TEXT}"):
        machine.refuses(text, json.dumps(document).encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.binary(max_size=60), st.integers(0, 2000), st.integers(0, 2000))
def test_any_bytes_in_any_place_are_refused_or_passed_over(
    machine: Machine, raw: bytes, start: int, n: int
) -> None:
    for document in DOCUMENTS:
        good = json.dumps(document).encode()
        machine.refuses(TEXT, good[:start] + raw + good[start + n :])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_any_payload_is_refused_or_passed_over(machine: Machine, raw: bytes) -> None:
    machine.refuses(TEXT, SIGSTORE.by_key(KEY, raw), SIGSTORE.keyless(raw))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.text(max_size=200), st.sampled_from(["signature", "bundle", "certificate", "chain"]))
def test_any_annotation_is_refused_or_passed_over(machine: Machine, text: str, which: str) -> None:
    one = by_key(KEY, payload(SUBJECT.digest, "x/y"), log=Log(SIGSTORE.rekor.key))
    prefix = "dev.cosignproject.cosign" if which == "signature" else "dev.sigstore.cosign"
    changed = {**one.annotations, f"{prefix}/{which}": text}
    machine.refuses(TEXT, dataclasses.replace(one, annotations=changed))


@pytest.mark.parametrize(
    "statement_of",
    [
        {"subject": [{}] * 5000},
        {"subject": [{"digest": {"sha256": "0" * 64}}] * 1024},
        {"subject": {"digest": {}}},
        {"subject": [{"digest": []}]},
        {"subject": None},
        {"_type": "https://in-toto.io/Statement/v2"},
        {"_type": 1},
        {"predicateType": None},
        {"Subject": []},
        {"predicate": {"a": {"b": [[[[]]]]}}, "subject": []},
    ],
)
def test_statements_that_are_not_about_the_image(machine: Machine, statement_of: dict[str, Any]) -> None:
    raw = SIGSTORE.by_key(KEY, statement(SUBJECT.digest, **statement_of))
    machine.refuses(TEXT, raw, SIGSTORE.keyless(statement(SUBJECT.digest, **statement_of)))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * (MAX_SIGNATURE - 1),
        b'{"a":' * 100_000,
        b'{"mediaType":"' + b"x" * (MAX_SIGNATURE - 100) + b'"}',
        b"{" + b",".join(b'"%d":0' % n for n in range(300_000)) + b"}",
        b" " * MAX_SIGNATURE + b"{}",
        b"9" * MAX_SIGNATURE,
    ],
    ids=["deep", "deep objects", "long text", "many keys", "too large", "a number"],
)
def test_bundles_that_are_made_to_cost_time_do_not(machine: Machine, raw: bytes) -> None:
    begin = time.process_time()
    machine.refuses(TEXT, raw)
    assert time.process_time() - begin < 5


def test_as_many_as_may_be_are_looked_at_in_bounded_time(machine: Machine) -> None:
    signers = ", ".join(f'{{key = "{n}.pub"}}' for n in range(64))
    for n in range(64):
        machine.key(f"{n}.pub")
    text = f"threshold = 64\nsigner = [{signers}]"
    many = [SIGSTORE.by_key(new_key(), FOR_IMAGE) for _ in range(128)]
    begin = time.process_time()
    with pytest.raises(PolicyRefused, match="0 have; 128 signatures were found"):
        machine.check(text, *many)
    assert time.process_time() - begin < 30
