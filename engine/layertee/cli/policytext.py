"""The verdict of the policy, in words for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..pulling.imageplan import ImagePlan
    from ..pulling.report import PullResult
    from ..signatures.signature import Verified


def verdict(image: ImagePlan | PullResult) -> Iterator[tuple[str, str]]:
    """What there is to say: nothing of an image that needed no signature and of which no other was seen."""
    consent, fresh = image.consent, image.freshness
    if consent.refused is not None:
        yield "refused", consent.refused
    if consent.insecure:
        yield "policy", "set aside: nothing was asked of the image"
    for one in consent.verified:
        yield "signed", _signed(one)
    if fresh is not None and fresh.newest is None and consent.verified:
        yield "seen", "for the first time under this name"


def _signed(one: Verified) -> str:
    if one.subject is not None:
        who = f"{one.subject} ({one.issuer})" if one.issuer else one.subject
    else:
        who = f"key {one.key}" if one.key else one.kind
    parts = [f"by {who}"]
    if one.signed_name:
        parts.append(f"as {one.signed_name}")
    if one.time is not None:
        parts.append(datetime.fromtimestamp(one.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    if one.log_index is not None:
        parts.append(f"log entry {one.log_index}")
    return f"{', '.join(parts)} [{one.kind}]"
