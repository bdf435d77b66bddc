"""One signature as lookaside servers and directories keep it: bytes that say by how they begin what they are.

containers/image, internal/signature. Rules of this file: what is not known is an error, not a signature that
is passed over, since it may be the one that was meant.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from ..errors import DocumentError, PolicyRefused
from ..image.strictjson import as_text, as_text_map, check_fields, load_object, printable
from .signature import MAX_SIGNATURE, Attachment, Signature, SimpleSignature

# An OpenPGP message begins with one of these (RFC 4880 §4.2): compressed data, a one-pass signature, or a
# signature, with a header of the old format or the new.
_OPENPGP: Final = frozenset(
    {*(0xA0, 0xA1, 0xA2, 0xA3, 0xC8), *(0x90, 0x91, 0x92, 0xC4), *(0x88, 0x89, 0x8A, 0x8B, 0xC2)}
)
_SIMPLE: Final = b"simple-signing"
_SIGSTORE: Final = b"sigstore-json"
_FIELDS: Final = ("mimeType", "payload", "annotations")


def stored_signature(blob: bytes, place: str) -> Signature:
    """The signature that is kept as ``blob``, found at ``place``. Raises PolicyRefused."""
    where = printable(place)
    if len(blob) > MAX_SIGNATURE:
        raise PolicyRefused(f"the signature {where} is larger than {MAX_SIGNATURE} bytes")
    if not blob:
        raise PolicyRefused(f"the signature {where} is empty")
    if blob[0] in _OPENPGP:
        return SimpleSignature(blob, place)
    if blob[0] != 0:
        raise PolicyRefused(f"the signature {where} is of no known kind (it begins with byte {blob[0]:#04x})")
    kind, newline, rest = blob[1:].partition(b"\n")
    if newline and kind == _SIMPLE:
        return SimpleSignature(rest, place)
    if newline and kind == _SIGSTORE:
        try:
            return _sigstore(rest, place)
        except DocumentError as exc:
            raise PolicyRefused(f"the signature {where}: {exc}") from exc
    shown = printable(kind[:40].decode("ascii", "replace"))
    raise PolicyRefused(f"the signature {where} is of no known kind ({shown!r})")


def _sigstore(raw: bytes, place: str) -> Attachment:
    """Raises DocumentError."""
    found = load_object(raw, "its JSON", limit=MAX_SIGNATURE, maps=frozenset({"annotations"}))
    check_fields(found, _FIELDS, "its JSON")
    try:
        payload = base64.b64decode(
            as_text(found.get("payload"), "its payload").encode("ascii"), validate=True
        )
    except (UnicodeEncodeError, binascii.Error) as exc:
        raise DocumentError("its payload is not base64") from exc
    annotations = as_text_map(found.get("annotations"), "its annotations")
    return Attachment(as_text(found.get("mimeType"), "its mimeType"), payload, annotations, place)
