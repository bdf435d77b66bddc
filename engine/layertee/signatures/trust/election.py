"""One scope of trust.toml for one image: signatures are looked at one by one, and their signers counted.

A signature is verified, then what it says is read, then who made it is compared with the signers: of those
who may say this, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from ...config.trustrules import SIGNED, Form, KeylessSigner, ScopeRules
from ...errors import PolicyRefused
from ...image.strictjson import printable
from ...record import dataclass
from ..signature import Attachment, Bundle, Subject, Verified
from .attached import AttachedSignature, parse_attachment
from .ballots import Ballot
from .bundlekeys import to_der
from .bundles import SignedEnvelope, parse_bundle
from .keyless import require_library, verify_keyless
from .material import Key, Signers, load_root, load_signers
from .statements import parse_statement
from .timestamps import stamped_at

if TYPE_CHECKING:
    from .claims import Identity
    from .root import RootDocument

_MAX_REASONS = 4  # in a message


@dataclass(frozen=True, slots=True)
class _Who:
    """Who has signed, and the numbers of the signers that fits. One of key and identity is None."""

    name: Hashable
    fits: tuple[int, ...]
    key: Key | None = None
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class _Logged:
    """When a log or an authority has seen a signature, and where it is in the log."""

    time: int | None = None
    index: int | None = None


class Election:
    """A ballot for the signers of a scope, and one for each type of attestation that it asks for.

    ``now``: seconds since the epoch. All methods block.
    """

    def __init__(self, rules: ScopeRules, now: Callable[[], float]) -> None:
        """Raises PolicyRefused without the sigstore library, if it is needed; TrustFileError and UnsafePath
        for files that ``rules`` name.
        """
        self._rules = rules
        self._now = now
        lists = {SIGNED: (rules.signers, rules.threshold)} if rules.signers else {}
        lists |= {each.predicate_type: (each.signers, each.threshold) for each in rules.attestations}
        everyone = [signer for signers, _ in lists.values() for signer in signers]
        is_keyless = any(isinstance(signer, KeylessSigner) for signer in everyone)
        if rules.needs_timestamp or (is_keyless and Form.BUNDLE in rules.forms):
            require_library()
        self._signers: dict[str, Signers] = {}
        self._ballots: dict[str, Ballot] = {}
        self._names: dict[str, list[str]] = {}
        for kind, (signers, threshold) in lists.items():
            self._signers[kind] = load_signers(signers, rules.whence)
            self._ballots[kind] = Ballot(len(signers), threshold)
            self._names[kind] = [signer.name for signer in signers]
        self._keys = {key.fingerprint: key for each in self._signers.values() for key in each.keys.values()}
        self._root = load_root(rules)
        self._reasons: list[str] = []
        self._n_seen = 0

    @property
    def is_over(self) -> bool:
        """Whether enough have signed of all."""
        return all(ballot.is_enough for ballot in self._ballots.values())

    def count(self, signatures: Sequence[Bundle | Attachment], subject: Subject) -> None:
        """Look at ``signatures``, which are said to be for ``subject``, until enough have signed.

        Those that do not count are passed over; why is in the refusal, if it comes to that.
        """
        for one in signatures:
            if self.is_over:
                return
            self._n_seen += 1
            try:
                if isinstance(one, Bundle):
                    self._count_bundle(parse_bundle(one), subject)
                else:
                    self._count_attached(parse_attachment(one), subject)
            except PolicyRefused as exc:
                self._reasons.append(f"{one.place}: {exc}")

    def result(self, subjects: Sequence[Subject]) -> tuple[Verified, ...]:
        """What was verified, if it is enough. Raises PolicyRefused."""
        for kind, ballot in self._ballots.items():
            if not ballot.is_enough:
                raise PolicyRefused(self._refusal(kind, ballot, subjects))
        return tuple(one for ballot in self._ballots.values() for one in ballot.verified)

    def _refusal(self, kind: str, ballot: Ballot, subjects: Sequence[Subject]) -> str:
        subject = subjects[0] if subjects else None
        name = subject.name or subject.digest if subject is not None else "an image"
        what = "signed it" if kind == SIGNED else f"attested {kind} for it"
        of = f"{ballot.threshold} of {ballot.n_signers} signers" if ballot.n_signers > 1 else "its signer"
        have = f"{ballot.count} has" if ballot.count == 1 else f"{ballot.count} have"
        found = "1 signature was" if self._n_seen == 1 else f"{self._n_seen or 'no'} signatures were"
        text = (
            f"{name} is refused by {self._rules.whence}, scope {self._rules.scope!r}: {of} must have {what},"
            f" {have}; {found} found beside it"
        )
        signed = [name for n, name in enumerate(self._names[kind]) if n in ballot.counted]
        lacking = [name for n, name in enumerate(self._names[kind]) if n not in ballot.counted]
        if signed:
            text += f"; signed by {', '.join(signed)}"
        text += f"; not by {', '.join(lacking[:_MAX_REASONS])}{', …' if len(lacking) > _MAX_REASONS else ''}"
        reasons = list(dict.fromkeys(self._reasons))
        if reasons:
            shown = "; ".join(reasons[:_MAX_REASONS])
            more = f"; and {len(reasons) - _MAX_REASONS} more" if len(reasons) > _MAX_REASONS else ""
            text += f" ({shown}{more})"
        return printable(text, 2000)

    # --- one signature; all raise PolicyRefused with why it does not count ---

    def _count_bundle(self, envelope: SignedEnvelope, subject: Subject) -> None:
        if envelope.certificate is None:
            key = self._key_of(envelope)
            kind = self._kind(envelope, subject)
            who = self._with_key(key, kind)
            logged = self._logged(envelope, key)
        else:
            if not any(signers.identities for signers in self._signers.values()):
                raise PolicyRefused("it is signed with a certificate, and only keys are signers")
            found = verify_keyless(envelope, self._trusted)
            kind = self._kind(envelope, subject)
            who = self._with_identity(found.identity, kind)
            self._stamped(envelope)
            logged = _Logged(found.time, found.log_index)
        word = "bundle" if kind == SIGNED else f"attestation {kind}"
        self._add(kind, who, logged, word, subject, envelope.bundle.place)

    def _count_attached(self, one: AttachedSignature, subject: Subject) -> None:
        if SIGNED not in self._ballots:
            raise PolicyRefused("it is a signature, and only attestations are asked for")
        if self._rules.needs_timestamp:
            raise PolicyRefused("it has no time-stamp: those are looked for in bundles")
        entry = None
        if one.certificate is None:
            key = self._key_of(one)
            who = self._with_key(key, SIGNED)
            if self._rules.needs_log:
                entry = one.logged(self._trusted, to_der(key.public))
        else:
            if not self._signers[SIGNED].identities:
                raise PolicyRefused("it is signed with a certificate, and only keys are signers")
            identity, entry = one.identity(self._trusted)
            who = self._with_identity(identity, SIGNED)
        name = one.payload_for(subject).docker_reference
        logged = _Logged(entry.time, entry.index) if entry is not None else _Logged()
        self._add(SIGNED, who, logged, "attachment", subject, one.attachment.place, name)

    def _add(
        self,
        kind: str,
        who: _Who,
        logged: _Logged,
        word: str,
        subject: Subject,
        place: str,
        signed_name: str | None = None,
    ) -> None:
        verified = Verified(
            kind=word,
            signed=subject.digest,
            place=place,
            signed_name=signed_name,
            key=who.key.fingerprint if who.key is not None else None,
            subject=who.identity.subject if who.identity is not None else None,
            issuer=who.identity.issuer if who.identity is not None else None,
            time=logged.time,
            log_index=logged.index,
        )
        self._ballots[kind].add(who.name, who.fits, verified)

    def _key_of(self, one: SignedEnvelope | AttachedSignature) -> Key:
        """Which of all keys has signed."""
        found = next((key for key in self._keys.values() if one.is_signed_by(key.public)), None)
        if found is None:
            raise PolicyRefused("it is signed by none of the keys")
        return found

    def _with_key(self, key: Key, kind: str) -> _Who:
        keys = self._signers[kind].keys
        fits = tuple(n for n, each in keys.items() if each.fingerprint == key.fingerprint)
        if not fits:
            raise PolicyRefused(f"its key, {key.fingerprint}, is none of those that may say this")
        return _Who(key.fingerprint, fits, key=key)

    def _with_identity(self, identity: Identity, kind: str) -> _Who:
        signers = self._signers[kind].identities
        mismatches = {n: identity.mismatch(signer) for n, signer in signers.items()}
        fits = tuple(n for n, mismatch in mismatches.items() if mismatch is None)
        if not fits:
            reasons = ", ".join(sorted({each for each in mismatches.values() if each is not None}))
            raise PolicyRefused(f"it is by another than the signers: {reasons or 'only keys may say this'}")
        return _Who((identity.issuer, identity.subject), fits, identity=identity)

    def _kind(self, envelope: SignedEnvelope, subject: Subject) -> str:
        """Which ballot ``envelope`` is for, if it is about ``subject``."""
        statement = parse_statement(envelope.payload_type, envelope.payload)
        if statement.predicate_type not in self._ballots:
            raise PolicyRefused(f"it says {printable(statement.predicate_type)!r}, which is not asked for")
        statement.refuse_other(subject)
        return statement.predicate_type

    def _logged(self, envelope: SignedEnvelope, key: Key) -> _Logged:
        """When it was seen, as far as the scope asks for that. None of its log entries may be bad."""
        stamped = self._stamped(envelope)
        if not self._rules.needs_log:
            return _Logged(stamped)
        if not envelope.entries:
            raise PolicyRefused("it is in no transparency log")
        times = []
        for entry in envelope.entries:
            entry.check_envelope(key.public, envelope.payload, envelope.signature, envelope.signed)
            times.append(entry.verify(self._trusted, stamped or self._now()))
        first = next((at for at in times if at is not None), stamped)
        return _Logged(first, envelope.entries[0].index)

    def _stamped(self, envelope: SignedEnvelope) -> int | None:
        """When a time-stamp authority has seen it, where the scope asks for that."""
        if not self._rules.needs_timestamp:
            return None
        return stamped_at(envelope.timestamps, envelope.signature, self._trusted)

    @property
    def _trusted(self) -> RootDocument:
        if self._root is None:
            raise PolicyRefused("its scope names no trusted root, so nothing says which log counts")
        return self._root
