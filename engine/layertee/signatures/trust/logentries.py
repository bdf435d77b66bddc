"""Entries of a transparency log in a bundle: whether a log has this one, for this signature, and since when.

Rekor's entries of the kinds ``dsse`` and ``hashedrekord``, of both of its versions. An entry proves itself
without a network: by the hashes up to the root of the log's tree (RFC 9162 §2.1.3.2), by the log's signature
of that root (a checkpoint: C2SP tlog-checkpoint), and in version 1 by its signature of the entry with a time
(the inclusion promise). All that is there has to be right.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Final

from ...errors import DocumentError, PolicyRefused
from ...image.strictjson import as_list, as_object, as_text, load_object
from ...record import dataclass
from .bundlekeys import PublicKey, is_signed, load_der, load_pem, to_der
from .root import Log, RootDocument, from_base64

MAX_HASHES: Final = 64
MAX_BODY: Final = 1 << 20
MAX_CHECKPOINT: Final = 64 << 10
MAX_NOTE_SIGNATURES: Final = 16
_NOTE_LINE: Final = re.compile(r"— (?P<name>\S+) (?P<signature>[A-Za-z0-9+/]+={0,2})")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_HASH_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Proof:
    """That a leaf is in a tree of ``tree_size`` leaves at ``index``."""

    index: int
    tree_size: int
    root: bytes
    hashes: tuple[bytes, ...]
    checkpoint: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    """As a bundle has it; nothing of it was verified. ``promise`` signs ``body``, time and index.

    ``kind`` is that of the body, and its version. ``index`` is in the whole log, ``proof`` is of one of the
    trees that it is made of.
    """

    body: bytes = field(repr=False)
    kind: tuple[str, str]
    index: int
    log_id: bytes
    time: int | None
    promise: bytes | None = field(repr=False)
    proof: Proof = field(repr=False)

    def verify(self, root: RootDocument, now: float) -> int | None:
        """When the log has seen it, in seconds since the epoch, None if it did not say so.

        Raises PolicyRefused unless a log of ``root`` that was in use at that time has the entry; where the
        log says no time, it has to be in use ``now``.
        """
        candidates = root.logs_by_id(self.log_id)
        if not candidates:
            raise PolicyRefused("its log entry is of a log that the trusted root does not have")
        _check_inclusion(self.body, self.proof)
        for log in candidates:
            if not _is_checkpoint(self.proof, log.key):
                continue
            if self.promise is None:
                # Without it, nothing signs for the index but the place in the tree.
                if self.index != self.proof.index:
                    raise PolicyRefused("its log entry has two places in the log")
                _refuse_disused(log, now)
                return None
            return self._promised(log)
        raise PolicyRefused("the checkpoint of its log entry is not signed by the log")

    def _promised(self, log: Log) -> int:
        if self.time is None:
            raise PolicyRefused("its log entry has a promise, and no time")
        # RFC 8785; all texts in it are ASCII without escapes.
        promised = json.dumps(
            {
                "body": base64.b64encode(self.body).decode(),
                "integratedTime": self.time,
                "logID": self.log_id.hex(),
                "logIndex": self.index,
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        if self.promise is None or not is_signed(log.key, self.promise, promised):
            raise PolicyRefused("the promise of its log entry is not signed by the log")
        _refuse_disused(log, self.time)
        return self.time

    def check_envelope(self, key: PublicKey, payload: bytes, signature: bytes, signed: bytes) -> None:
        """Raise PolicyRefused unless the entry is about an envelope with this payload, signed by ``key``.

        ``signed`` are the bytes that ``signature`` is over.
        """
        try:
            body = load_object(self.body, "the log entry", limit=MAX_BODY, maps=None)
            kind = as_text(body.get("kind"), "kind"), as_text(body.get("apiVersion"), "apiVersion")
            if kind != self.kind:
                raise DocumentError("it is of two kinds")
            read = _BODIES.get(kind)
            if read is None:
                raise DocumentError(
                    f"its log entry is of the kind {'/'.join(kind)!r:.100}, which is not known"
                )
            logged = read(as_object(body.get("spec"), "spec"))
        except (DocumentError, ValueError) as exc:
            raise PolicyRefused(f"its log entry cannot be read: {exc}") from exc
        wanted = hashlib.sha256(signed if logged.is_of_envelope else payload).digest()
        if (logged.digest, logged.signature, logged.key) != (wanted, signature, to_der(key)):
            raise PolicyRefused("its log entry is about another signature")


def parse_entry(value: object) -> LogEntry:
    """Raises DocumentError."""
    what = "its log entry"
    found = as_object(value, what)
    log_id = as_object(found.get("logId"), f"{what}: logId")
    proof = as_object(found.get("inclusionProof"), f"{what}: inclusionProof")
    checkpoint = as_object(proof.get("checkpoint"), f"{what}: checkpoint")
    hashes = as_list(proof.get("hashes"), f"{what}: hashes")
    if len(hashes) > MAX_HASHES:
        raise DocumentError(f"{what} has more than {MAX_HASHES} hashes")
    note = as_text(checkpoint.get("envelope"), f"{what}: checkpoint")
    if len(note) > MAX_CHECKPOINT:
        raise DocumentError(f"{what} has too long a checkpoint")
    kind = as_object(found.get("kindVersion"), f"{what}: kindVersion")
    promise = found.get("inclusionPromise")
    time = _number(found.get("integratedTime"), f"{what}: integratedTime")
    return LogEntry(
        from_base64(found.get("canonicalizedBody"), f"{what}: canonicalizedBody"),
        (as_text(kind.get("kind"), f"{what}: kind"), as_text(kind.get("version"), f"{what}: version")),
        _number(found.get("logIndex"), f"{what}: logIndex"),
        from_base64(log_id.get("keyId"), f"{what}: keyId"),
        time or None,
        None
        if promise is None
        else from_base64(as_object(promise, what).get("signedEntryTimestamp"), f"{what}: promise"),
        Proof(
            _number(proof.get("logIndex"), f"{what}: logIndex"),
            _number(proof.get("treeSize"), f"{what}: treeSize"),
            from_base64(proof.get("rootHash"), f"{what}: rootHash"),
            tuple(from_base64(each, f"{what}: hashes") for each in hashes),
            note,
        ),
    )


def _number(value: object, what: str) -> int:
    """A 64-bit number of protobuf: a text in JSON, or left out for 0."""
    if value is None:
        return 0
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else as_text(value, what)
    if not _NUMBER.fullmatch(text):
        raise DocumentError(f"{what} is no number")
    return int(text)


def _refuse_disused(log: Log, at: float) -> None:
    if not log.is_in_use(at):
        raise PolicyRefused("its log was not in use when the entry was made")


# --- inclusion ---


def _check_inclusion(body: bytes, proof: Proof) -> None:
    """RFC 9162 §2.1.3.2, as written there. Raises PolicyRefused."""
    wrong = PolicyRefused("its log entry is not in the tree of the log")
    if any(len(each) != _HASH_SIZE for each in (proof.root, *proof.hashes)) or proof.index >= proof.tree_size:
        raise wrong
    fn, sn = proof.index, proof.tree_size - 1
    found = hashlib.sha256(b"\0" + body).digest()
    for sibling in proof.hashes:
        if sn == 0:
            raise wrong
        if fn & 1 or fn == sn:
            found = hashlib.sha256(b"\1" + sibling + found).digest()
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = hashlib.sha256(b"\1" + found + sibling).digest()
        fn, sn = fn >> 1, sn >> 1
    if sn or found != proof.root:
        raise wrong


def _is_checkpoint(proof: Proof, key: PublicKey) -> bool:
    """Whether the checkpoint names size and root of the proof's tree, and ``key`` signed it."""
    text, blank, block = proof.checkpoint.partition("\n\n")
    lines = text.split("\n")
    if not blank or len(lines) < 3 or not block.endswith("\n"):
        return False
    root = base64.b64encode(proof.root).decode()
    if not lines[0] or lines[1] != str(proof.tree_size) or lines[2] != root:
        return False
    note = f"{text}\n".encode()
    signatures = block[:-1].split("\n")
    if len(signatures) > MAX_NOTE_SIGNATURES:
        return False
    for line in signatures:
        found = _NOTE_LINE.fullmatch(line)
        if found is None:
            return False
        try:
            raw = from_base64(found["signature"], "the signature of a checkpoint")
        except DocumentError:
            return False
        # The first four bytes are a hint of the key.
        if is_signed(key, raw[4:], note):
            return True
    return False


# --- what entries say ---


@dataclass(frozen=True, slots=True)
class _Logged:
    """``digest`` (SHA-256) is of the envelope's signed bytes, or of its payload alone; ``key`` is DER."""

    digest: bytes
    signature: bytes
    key: bytes
    is_of_envelope: bool


def _dsse_1(spec: Mapping[str, object]) -> _Logged:
    what = "payloadHash"
    hashed = as_object(spec.get(what), what)
    if as_text(hashed.get("algorithm"), what) != "sha256":
        raise DocumentError("payloadHash is not of SHA-256")
    signature = _only(spec.get("signatures"))
    pem = from_base64(signature.get("verifier"), "verifier")
    return _Logged(
        bytes.fromhex(as_text(hashed.get("value"), what)),
        from_base64(signature.get("signature"), "signature"),
        to_der(load_pem(pem)),
        is_of_envelope=False,
    )


def _dsse_2(spec: Mapping[str, object]) -> _Logged:
    found = as_object(spec.get("dsseV002"), "dsseV002")
    digest = _sha256(found.get("payloadHash"))
    signature = _only(found.get("signatures"))
    return _Logged(
        digest, from_base64(signature.get("content"), "content"), _verifier(signature), is_of_envelope=False
    )


def _hashedrekord_2(spec: Mapping[str, object]) -> _Logged:
    found = as_object(spec.get("hashedRekordV002"), "hashedRekordV002")
    digest = _sha256(found.get("data"))
    signature = as_object(found.get("signature"), "signature")
    return _Logged(
        digest, from_base64(signature.get("content"), "content"), _verifier(signature), is_of_envelope=True
    )


_BODIES: Final = {
    ("dsse", "0.0.1"): _dsse_1,
    ("dsse", "0.0.2"): _dsse_2,
    ("hashedrekord", "0.0.2"): _hashedrekord_2,
}


def _only(value: object) -> dict[str, object]:
    signatures = as_list(value, "signatures")
    if len(signatures) != 1:
        raise DocumentError("it has not one signature")
    return as_object(signatures[0], "signature")


def _sha256(value: object) -> bytes:
    found = as_object(value, "hash")
    if as_text(found.get("algorithm"), "algorithm") != "SHA2_256":
        raise DocumentError("its hash is not SHA-256")
    return from_base64(found.get("digest"), "digest")


def _verifier(signature: Mapping[str, object]) -> bytes:
    verifier = as_object(signature.get("verifier"), "verifier")
    key = as_object(verifier.get("publicKey"), "publicKey")
    return to_der(load_der(from_base64(key.get("rawBytes"), "rawBytes")))
