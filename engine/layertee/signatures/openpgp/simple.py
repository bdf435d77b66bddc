"""``signedBy``: an image that somebody has signed with an OpenPGP key ("simple signing").

containers-policy.json(5) and containers-signature(5). One signature that holds is enough; of those that do
not, each has its reason, and all of it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...aio import in_thread
from ...config.reading import read_file
from ...errors import PolicyRefused
from ...image.strictjson import printable
from ..payload import PayloadType, parse_payload
from ..signature import MAX_SIGNATURES, Signature, SimpleSignature, Subject, Verified
from .gpg import Keyring, Keys, keyring

if TYPE_CHECKING:
    from ...config.requirements import Material, SignedBy

LIMIT_S: Final = 60.0
"""For all signatures of one image, by one requirement."""

_KIND: Final = "signedBy"
_KEY_TYPE: Final = "GPGKeys"
_MAX_KEYS: Final = 4 << 20  # bytes of one file; a distribution's keys are some kilobytes
_TOLD: Final = 5  # reasons, of those that there may be


async def verify_signed_by(
    requirement: SignedBy,
    subject: Subject,
    signatures: Sequence[Signature],
    *,
    gpg: Path | None = None,
    limit_s: float = LIMIT_S,
) -> Verified:
    """The first of ``signatures`` by which ``requirement`` holds for ``subject``.

    Those of other kinds are passed over. ``gpg`` is the program, else the one on PATH. Raises PolicyRefused
    with the reasons of those that do not hold, UnsafePath if another user could change the program, and
    LocalError if there is no room for a few files.
    """
    if requirement.key_type != _KEY_TYPE:
        raise PolicyRefused(
            f"signatures by {printable(requirement.key_type, 60)} cannot be checked by any program;"
            f" the policy has to say {_KEY_TYPE}"
        )
    simple = [each for each in signatures if isinstance(each, SimpleSignature)]
    if not simple:
        raise PolicyRefused("a signature by an OpenPGP key is required, and there is none")
    if len(simple) > MAX_SIGNATURES:
        raise PolicyRefused(f"there are more than {MAX_SIGNATURES} signatures")
    keys = await in_thread(_read_keys, requirement.keys)
    reasons: list[str] = []
    try:
        async with asyncio.timeout(limit_s), keyring(keys, gpg=gpg) as ring:
            for signature in simple:
                try:
                    return await _verify(ring, requirement, subject, signature)
                except PolicyRefused as exc:
                    reasons.append(f"{printable(signature.place)}: {printable(str(exc), 300)}")
    except TimeoutError as exc:
        raise PolicyRefused(f"the signatures could not be checked within {limit_s:g} s") from exc
    raise PolicyRefused(_summary(reasons))


async def _verify(
    ring: Keyring, requirement: SignedBy, subject: Subject, signature: SimpleSignature
) -> Verified:
    """What ``signature`` proves. Raises PolicyRefused."""
    signed = await ring.verify(signature.blob)
    payload = parse_payload(signed.payload, PayloadType.SIMPLE)
    payload.refuse_other(subject, requirement.identity)
    return Verified(
        kind=_KIND,
        signed=payload.digest,
        place=signature.place,
        signed_name=payload.docker_reference,
        key=signed.fingerprint,
    )


def _summary(reasons: Sequence[str]) -> str:
    if len(reasons) == 1:
        return f"its signature does not count: {reasons[0]}"
    more = f"; and {len(reasons) - _TOLD} more" if len(reasons) > _TOLD else ""
    return f"none of its {len(reasons)} signatures counts: {'; '.join(reasons[:_TOLD])}{more}"


def _read_keys(material: Material) -> list[Keys]:
    """All keys of a requirement. Raises PolicyRefused. Blocks."""
    found = [Keys(data, "keyData") for data in material.data]
    for path in material.paths:
        try:
            data = read_file(path, _MAX_KEYS, named=False)
        except OSError as exc:
            raise PolicyRefused(f"the keys in {path} cannot be read: {exc.strerror}") from exc
        if data is None:
            raise PolicyRefused(f"the keys in {path} cannot be read: there is no such file")
        found.append(Keys(data, str(path)))
    for keys in found:
        if len(keys.data) > _MAX_KEYS:
            raise PolicyRefused(f"the keys in {keys.place} are more than {_MAX_KEYS} bytes")
    if not found:
        raise PolicyRefused("the policy names no keys")
    return found
