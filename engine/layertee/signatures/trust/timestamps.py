"""RFC 3161 time-stamps of signatures, by the authorities of a trusted root."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import PolicyRefused
from ...image.strictjson import as_list, as_object, printable
from .keyless import require_library
from .root import RootDocument, from_base64, validity

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def stamped_at(stamps: Sequence[bytes], signature: bytes, root: RootDocument) -> int:
    """When an authority of ``root`` has seen ``signature``: the first time that one of ``stamps`` proves.

    Seconds since the epoch. Raises PolicyRefused if none of them proves any. Blocks.
    """
    require_library()
    authorities = as_list(root.document.get("timestampAuthorities"), "timestampAuthorities")
    found = []
    for stamp in stamps:
        for authority in authorities:
            with suppress(PolicyRefused):
                found.append(_proved(stamp, signature, as_object(authority, "authority")))
    if not found:
        raise PolicyRefused("it has no time-stamp of an authority in the trusted root")
    return min(found)


def _proved(stamp: bytes, signature: bytes, authority: dict[str, object]) -> int:
    """The time that ``stamp`` proves. Raises PolicyRefused if it is of no use, or not of ``authority``."""
    from rfc3161_client import VerifierBuilder, decode_timestamp_response

    try:
        response = decode_timestamp_response(stamp)
        leaf, *others = _chain(authority)
        builder = VerifierBuilder(tsa_certificate=leaf, intermediates=others[:-1], roots=others[-1:])
        builder.build().verify_message(response, signature)
        at = int(response.tst_info.gen_time.timestamp())
    except Exception as exc:  # whatever a stranger's bytes bring a parser to, they prove nothing
        raise PolicyRefused(printable(f"{type(exc).__name__}: {exc}")) from exc
    if not validity(authority, "timestampAuthorities").contains(at):
        raise PolicyRefused("the authority was not in use")
    return at


def _chain(authority: dict[str, object]) -> list[Certificate]:
    """The certificates of an authority, from its own to the root, which are at least two."""
    from cryptography.x509 import load_der_x509_certificate

    chain = as_object(authority.get("certChain"), "certChain")
    found = [
        load_der_x509_certificate(from_base64(as_object(each, "certificate").get("rawBytes"), "certificate"))
        for each in as_list(chain.get("certificates"), "certificates")
    ]
    if len(found) < 2:
        raise ValueError("the chain of a time-stamp authority is incomplete")
    return found
