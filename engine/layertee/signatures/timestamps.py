"""RFC 3161 time-stamps of signatures, by the authorities of a trusted root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import PolicyRefused
from ..image.strictjson import as_list, as_object
from .keyless import require_library
from .trustedroot import RootDocument, from_base64, validity

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def stamped_at(stamps: Sequence[bytes], signature: bytes, root: RootDocument) -> int:
    """When an authority of ``root`` has seen ``signature``: the first time that one of ``stamps`` proves.

    Seconds since the epoch. Raises PolicyRefused if none of them proves any. Blocks.
    """
    require_library()
    found = [at for stamp in stamps for at in _proved(stamp, signature, root)]
    if not found:
        raise PolicyRefused("it has no time-stamp of an authority in the trusted root")
    return min(found)


def _proved(stamp: bytes, signature: bytes, root: RootDocument) -> list[int]:
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    found = []
    for authority in as_list(root.document.get("timestampAuthorities"), "timestampAuthorities"):
        # The bytes of the stamp are a stranger's: whatever a parser makes of them, it proves nothing then.
        try:
            response = decode_timestamp_response(stamp)
            leaf, *others = _chain(authority)
            builder = VerifierBuilder(tsa_certificate=leaf, intermediates=others[:-1], roots=others[-1:])
            builder.build().verify_message(response, signature)
            at = response.tst_info.gen_time.timestamp()
        except (VerificationError, ValueError, TypeError):
            continue
        if validity(as_object(authority, "authority"), "timestampAuthorities").contains(at):
            found.append(int(at))
    return found


def _chain(authority: object) -> list[Certificate]:
    """The certificates of an authority, from its own to the root, which are at least two."""
    from cryptography.x509 import load_der_x509_certificate

    chain = as_object(as_object(authority, "authority").get("certChain"), "certChain")
    found = [
        load_der_x509_certificate(from_base64(as_object(each, "certificate").get("rawBytes"), "certificate"))
        for each in as_list(chain.get("certificates"), "certificates")
    ]
    if len(found) < 2:
        raise ValueError("the chain of a time-stamp authority is incomplete")
    return found
