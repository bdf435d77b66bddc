"""What gpg says of keys and signatures, in the lines that it writes for programs (GnuPG, doc/DETAILS).

Rules of this file: a signature holds if gpg says so in full and says nothing else; a word that is not known
here is a refusal, since a later gpg may use it for what is wrong. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ...errors import PolicyRefused
from ...image.strictjson import printable
from ...record import dataclass

MAX_STATUS: Final = 256 << 10
"""Bytes of such lines. One signature takes some hundred; a name or a notation in it can be long."""

_PREFIX: Final = "[GNUPG:] "
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_BINARY: Final = "62"  # of the literal data: b
_DOCUMENT: Final = "00"  # of the signature: a document, byte for byte
_HASHES: Final = {
    "1": "MD5",
    "2": "SHA-1",
    "3": "RIPEMD-160",
    "8": "",
    "9": "",
    "10": "",
    "11": "",
    "12": "",
    "14": "",
}
_ONCE: Final = ("PLAINTEXT", "NEWSIG", "GOODSIG", "VALIDSIG")
_HARMLESS: Final = frozenset(
    {
        *(
            "KEY_CONSIDERED",
            "SIG_ID",
            "PLAINTEXT_LENGTH",
            "VERIFICATION_COMPLIANCE_MODE",
            "PROGRESS",
            "SUCCESS",
        ),
        *("TRUST_UNDEFINED", "TRUST_MARGINAL", "TRUST_FULLY", "TRUST_ULTIMATE"),
        *("NOTATION_NAME", "NOTATION_FLAGS", "NOTATION_DATA", "POLICY_URL"),
        *("KEYEXPIRED", "KEYREVOKED"),  # of any key that is looked at; of the signer's, others say so
    }
)
# In the order in which they are looked for: the first says most.
_WRONG: Final = {
    "NO_PUBKEY": "it was made with key {0}, which is not one of the policy's",
    "REVKEYSIG": "its key {0} was revoked",
    "EXPKEYSIG": "its key {0} has expired",
    "EXPSIG": "it has expired",
    "BADSIG": "it was not made by key {0} for this content",
    "ERRSIG": "gpg cannot check it (key {0}, algorithms {1} and {2})",
    "NODATA": "it is no signed OpenPGP message",
    "UNEXPECTED": "it is no proper OpenPGP message",
    "BADARMOR": "it is no binary OpenPGP message",
    "TRUST_NEVER": "its key is one that is never to be trusted",
    "BEGIN_DECRYPTION": "it is encrypted",
    "ENC_TO": "it is encrypted",
}


@dataclass(frozen=True, slots=True)
class _Line:
    word: str
    fields: tuple[str, ...]


def imported_keys(raw: bytes) -> frozenset[str]:
    """Fingerprints of the primary keys that ``gpg --import`` says it has taken, all of one file.

    Raises PolicyRefused if there is none, or if one was begun and not taken: it may be the one that says that
    another is revoked.
    """
    lines = list(_lines(raw))
    taken = [line.fields[1] for line in lines if line.word == "IMPORT_OK" and len(line.fields) == 2]
    totals = [line.fields for line in lines if line.word == "IMPORT_RES"]
    if len(totals) != 1 or len(totals[0]) < 15 or not all(field.isdecimal() for field in totals[0]):
        raise PolicyRefused("gpg did not say which keys it has taken")
    n_read, n_old = int(totals[0][0]), int(totals[0][14])  # the second: of version 3, which nothing uses
    if n_read == n_old:
        raise PolicyRefused("there is no OpenPGP key in it that gpg can use")
    if len(taken) != n_read - n_old or not all(map(_FINGERPRINT.fullmatch, taken)):
        raise PolicyRefused("there is an OpenPGP key in it that gpg does not take")
    return frozenset(taken)


def signer(raw: bytes, keys: frozenset[str]) -> str:
    """Fingerprint of the primary key, one of ``keys``, by which the one signature of a message holds.

    ``raw`` is what ``gpg --verify`` has said. Raises PolicyRefused.
    """
    lines = list(_lines(raw))
    for word, text in _WRONG.items():
        for line in lines:
            if line.word == word:
                raise PolicyRefused(text.format(*(printable(f, 64) for f in line.fields), "?", "?", "?"))
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        if line.word in _HARMLESS:
            continue
        if line.word not in _ONCE:
            raise PolicyRefused(f"gpg says {printable(line.word, 40)} of it")
        if line.word in found:
            raise PolicyRefused("it has more than one signature, or more than one content")
        found[line.word] = line.fields
    if missing := [word for word in _ONCE if word not in found]:
        raise PolicyRefused(f"gpg does not say {missing[0]} of it")
    return _signer(found["PLAINTEXT"], found["GOODSIG"], found["VALIDSIG"], keys)


def _signer(
    plaintext: tuple[str, ...], good: tuple[str, ...], valid: tuple[str, ...], keys: frozenset[str]
) -> str:
    if not plaintext or not good or len(valid) != 10:
        raise PolicyRefused("gpg says too little of it")
    key, primary, hash_, class_ = valid[0], valid[9], valid[7], valid[8]
    if not (_FINGERPRINT.fullmatch(key) and _FINGERPRINT.fullmatch(primary)):
        raise PolicyRefused("gpg does not say which key has made it")
    if good[0] not in (key, key[-16:], key[:16]):
        raise PolicyRefused("gpg says two different keys of it")
    if plaintext[0] != _BINARY or class_ != _DOCUMENT:
        raise PolicyRefused("it is not a signature of a binary document")
    if weak := _HASHES.get(hash_, f"an unknown hash ({printable(hash_, 8)})"):
        raise PolicyRefused(f"it was made with {weak}, which proves nothing; sign again with SHA-256")
    if primary not in keys:
        raise PolicyRefused(f"it was made with key {primary}, which is not one of the policy's")
    return primary


def _lines(raw: bytes) -> Iterator[_Line]:
    if len(raw) > MAX_STATUS:
        raise PolicyRefused("gpg says too much of it")
    # Only a line feed ends a line: a name may hold what Python would split at.
    text = raw.decode("utf-8", "replace")
    if text and not text.endswith("\n"):
        raise PolicyRefused("gpg was interrupted")
    for line in text.split("\n")[:-1]:
        if not line.startswith(_PREFIX):
            raise PolicyRefused("gpg says something that is no status")
        word, *fields = line[len(_PREFIX) :].split(" ")
        yield _Line(word, tuple(fields))
