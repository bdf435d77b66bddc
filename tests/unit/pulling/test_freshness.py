"""Which of two images is the newer one, and which is too old."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from layertee.image.document import Digest, ImageConfig, Manifest, Platform, parse_document
from layertee.image.resolved import ResolvedImage
from layertee.pulling.freshness import compare
from layertee.signatures.signature import Verified
from layertee.store.seen import Seen

DAY = 86400
NOW = 1_800_000_000  # 2027-01-15
MANIFEST = parse_document(
    json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest.of(b"{}"),
                "size": 2,
            },
            "layers": [],
        }
    ).encode(),
    None,
)
OTHER = Digest.of(b"another")


def image(created: str | None) -> ResolvedImage:
    assert isinstance(MANIFEST, Manifest)
    labels = {"org.opencontainers.image.version": "42\n.1"}
    config = ImageConfig(b"{}", Digest.of(b"{}"), (), Platform("linux", "amd64"), created, labels)
    return ResolvedImage(MANIFEST, config, ())


def seen(created: int | None, log_time: int | None = None, digest: Digest = OTHER) -> Seen:
    return Seen(digest, created, None, log_time, None, NOW - 500 * DAY, NOW - DAY)


def signed(time: int | None) -> list[Verified]:
    return [Verified(kind="sigstoreSigned", signed=MANIFEST.digest, place="p", time=time, log_index=3)]


@pytest.mark.parametrize(
    ("created", "logged", "newest", "older"),
    [
        ("2027-01-01T00:00:00Z", None, seen(NOW - 100 * DAY), False),
        ("2026-01-01T00:00:00Z", None, seen(NOW - 100 * DAY), True),
        ("2026-01-01T00:00:00.123456789Z", None, seen(NOW - 100 * DAY), True),
        ("2026-01-01T02:00:00+02:00", None, seen(NOW - 100 * DAY), True),
        # signed again does not make it newer
        ("2026-01-01T00:00:00Z", NOW, seen(NOW - 100 * DAY, NOW - 90 * DAY), True),
        # without a time in the config, the log counts
        ("1970-01-01T00:00:00Z", NOW - 5 * DAY, seen(None, NOW - 9 * DAY), False),
        ("1970-01-01T00:00:00Z", NOW - 9 * DAY, seen(None, NOW - 5 * DAY), True),
        (None, NOW - 9 * DAY, seen(NOW - 100 * DAY, NOW - 5 * DAY), True),
        # nothing is known of either
        (None, None, seen(None), False),
        # one that hides its age, after one that did not
        (None, None, seen(NOW - 100 * DAY), True),
        ("nonsense", None, seen(NOW - 100 * DAY), True),
        ("2026-01-01T00:00:00", None, seen(NOW - 100 * DAY), True),
        # a log alone knows the one, and no log knows the other
        (None, None, seen(None, NOW - 5 * DAY), True),
        ("2026-01-01T00:00:00Z", None, seen(None, NOW - 5 * DAY), True),
        ("2027-01-14T00:00:00Z", None, seen(None, NOW - 5 * DAY), False),
        # the same image again
        ("2026-01-01T00:00:00Z", None, seen(NOW - 100 * DAY, digest=MANIFEST.digest), False),
    ],
)
def test_which_is_older(created: str | None, logged: int | None, newest: Seen, older: bool) -> None:
    found = compare(image(created), signed(logged), newest, now=NOW)
    assert found.older is older
    assert bool(found.notes) is older
    assert found.to_json()["older"] is older


def test_the_first_is_remembered_and_an_older_one_only_on_purpose() -> None:
    first = compare(image("2026-06-01T00:00:00Z"), signed(None), None, now=NOW)
    assert first.to_json()["first_seen"]
    kept = first.to_remember(allow_downgrade=False)
    assert kept is not None
    assert kept.version is not None and "\n" not in kept.version
    assert compare(image("2026-06-01T00:00:00Z"), [], kept, now=NOW).to_remember(allow_downgrade=True) is None
    newer = replace(kept, digest=OTHER, created=NOW)
    again = compare(image("2026-06-01T00:00:00Z"), [], newer, now=NOW)
    assert again.older
    assert again.to_remember(allow_downgrade=False) is None
    assert again.to_remember(allow_downgrade=True) == again.image


def test_a_time_that_is_yet_to_come_is_not_remembered() -> None:
    found = compare(image("2028-01-01T00:00:00Z"), [], None, now=NOW)
    assert found.image.created is None
    assert "yet to come" in found.notes[0]


@pytest.mark.parametrize(
    ("created", "logged", "stale"),
    [
        ("2027-01-14T00:00:00Z", None, False),
        ("2026-01-01T00:00:00Z", None, True),
        ("2026-01-01T00:00:00Z", NOW - DAY, False),  # somebody has signed it since
        (None, NOW - DAY, False),
        (None, None, True),
        ("1970-01-01T00:00:00Z", None, True),
    ],
)
def test_what_is_too_old(created: str | None, logged: int | None, stale: bool) -> None:
    by = [replace(one, issuer="https://issuer.example", subject="somebody") for one in signed(logged)]
    assert compare(image(created), by, None, now=NOW, max_age_s=30 * DAY).stale is stale
    assert not compare(image(created), by, None, now=NOW).stale


@pytest.mark.parametrize("created", ["2026-01-01T00:00:00Z", None])
def test_an_old_signature_of_a_key_that_was_logged_anew_makes_nothing_younger(created: str | None) -> None:
    assert compare(image(created), signed(NOW - DAY), None, now=NOW, max_age_s=30 * DAY).stale
