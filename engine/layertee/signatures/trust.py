"""Whether an image has the signatures and attestations that trust.toml asks for in its scope.

:func:`check_trust` is the way in. It is asked in addition to policy.json, and can only refuse. A signature
for the index that the image was chosen from counts like one for the image itself, which the index names by
its digest. Signatures that do not count are passed over, and their reasons told if in the end too few do: one
bad signature must not spoil the good ones beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ..aio import in_thread
from ..config.trustrules import Form, KeylessSigner, ScopeRules
from ..errors import PolicyRefused
from ..image.digest import Digest
from ..image.strictjson import printable
from .ballots import Ballot
from .bundlekeys import PublicKey
from .bundles import SignedEnvelope, parse_bundle
from .keyless import require_library, verify_keyless
from .referrers import Referrers
from .signature import Bundle, Subject, Verified
from .statements import SIGNED, parse_statement
from .timestamps import stamped_at
from .trustedroot import RootDocument
from .trustmaterial import Signers, load_root, load_signers

if TYPE_CHECKING:
    from ..registry.client import Registry

_MAX_REASONS = 4  # in a message


class TrustSource(Protocol):
    """Where the bundles of an image are. All of them are from strangers, and bounded."""

    async def bundles(self, digest: Digest) -> list[Bundle]:
        """Those of the manifest or index ``digest``.

        Raises PolicyRefused if there are too many or too large ones; IntegrityError, TransportError and
        RegistryError if they could not be had.
        """
        ...


class RegistryTrustSource:
    """Those that ``registry`` has, for images of its repository."""

    def __init__(self, registry: Registry) -> None:
        self._referrers = Referrers(registry)

    async def bundles(self, digest: Digest) -> list[Bundle]:
        """As ``TrustSource.bundles``."""
        return await self._referrers.bundles(digest)


async def check_trust(
    rules: Sequence[ScopeRules],
    subjects: Sequence[Subject],
    source: TrustSource,
    *,
    now: Callable[[], float] = time.time,
) -> tuple[Verified, ...]:
    """What was verified for ``subjects``, which are an image and the index that it was chosen from, if any.

    ``rules`` are those of the image's scope (``TrustRules.of``), and all of them have to hold; without any,
    or with rules that ask for no signature, nothing is looked for. ``now``: seconds since the epoch.

    Raises PolicyRefused unless enough signers have signed, or if the sigstore library is needed and missing;
    TrustFileError and UnsafePath for files that trust.toml names; IntegrityError, TransportError
    and RegistryError if signatures could not be had.
    """
    verified: list[Verified] = []
    known: dict[Digest, list[Bundle]] = {}
    for each in rules:
        if not each.asks_for_signatures:
            continue
        election = await in_thread(_Election, each, now)
        for subject in subjects:
            if election.is_over:
                break
            if Form.BUNDLE in each.forms:
                if subject.digest not in known:
                    known[subject.digest] = await source.bundles(subject.digest)
                await in_thread(election.count, known[subject.digest], subject)
        verified += election.result(subjects)
    return tuple(verified)


class _Election:
    """One scope's ballots: that of its signers, and one for each type of attestation. Made in a thread."""

    def __init__(self, rules: ScopeRules, now: Callable[[], float]) -> None:
        """Raises as ``check_trust``, before anything is looked for."""
        self._rules = rules
        self._now = now
        lists = {each.predicate_type: (each.signers, each.threshold) for each in rules.attestations}
        if rules.signers:
            lists[SIGNED] = (rules.signers, rules.threshold)
        everyone = [signer for signers, _ in lists.values() for signer in signers]
        if rules.needs_timestamp or any(isinstance(signer, KeylessSigner) for signer in everyone):
            require_library()
        self._signers: dict[str, Signers] = {}
        self._ballots: dict[str, Ballot] = {}
        for kind, (signers, threshold) in lists.items():
            self._signers[kind] = load_signers(signers, rules.whence)
            self._ballots[kind] = Ballot(len(signers), threshold)
        self._root = load_root(rules)
        self._reasons: list[str] = []
        self._n_seen = 0

    @property
    def is_over(self) -> bool:
        """Whether enough have signed of all."""
        return all(ballot.is_enough for ballot in self._ballots.values())

    def count(self, bundles: Sequence[Bundle], subject: Subject) -> None:
        """Look at ``bundles``, which are said to be for ``subject``, until enough have signed. Blocks."""
        for bundle in bundles:
            if self.is_over:
                return
            self._n_seen += 1
            try:
                self._count(parse_bundle(bundle), subject)
            except PolicyRefused as exc:
                self._reasons.append(f"{bundle.place}: {exc}")

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
        text = (
            f"{name} is refused by {self._rules.whence}, scope {self._rules.scope!r}: {of} must have {what},"
            f" {have}; {self._n_seen or 'no'} signatures were found beside it"
        )
        reasons = list(dict.fromkeys(self._reasons))
        if reasons:
            shown = "; ".join(reasons[:_MAX_REASONS])
            more = f"; and {len(reasons) - _MAX_REASONS} more" if len(reasons) > _MAX_REASONS else ""
            text += f" ({shown}{more})"
        return printable(text, 2000)

    # --- one bundle ---

    def _count(self, envelope: SignedEnvelope, subject: Subject) -> None:
        """Count the signer of ``envelope``. Raises PolicyRefused with why it does not count."""
        if envelope.certificate is None:
            self._count_key(envelope, subject)
        else:
            self._count_identity(envelope, subject)

    def _count_key(self, envelope: SignedEnvelope, subject: Subject) -> None:
        keys = {key.fingerprint: key for signers in self._signers.values() for key in signers.keys.values()}
        key = next((each for each in keys.values() if envelope.is_signed_by(each.public)), None)
        if key is None:
            raise PolicyRefused("it is signed by none of the keys")
        kind = self._kind(envelope, subject)
        fits = [n for n, each in self._signers[kind].keys.items() if each.fingerprint == key.fingerprint]
        if not fits:
            raise PolicyRefused(f"its key, {key.fingerprint}, is none of those that may say this")
        stamped = self._stamped(envelope)
        logged, index = None, None
        if self._rules.needs_log:
            logged, index = self._logged(envelope, key.public, stamped)
        verified = Verified(
            kind=_word(kind),
            signed=subject.digest,
            place=envelope.bundle.place,
            key=key.fingerprint,
            time=logged or stamped,
            log_index=index,
        )
        self._ballots[kind].add(key.fingerprint, fits, verified)

    def _logged(
        self, envelope: SignedEnvelope, key: PublicKey, stamped: int | None
    ) -> tuple[int | None, int]:
        """When a log has seen it, and its index there. Raises PolicyRefused if any of its entries is bad."""
        if not envelope.entries:
            raise PolicyRefused("it is in no transparency log")
        times = []
        for entry in envelope.entries:
            entry.check_envelope(key, envelope.payload, envelope.signature, envelope.signed)
            times.append(entry.verify(self._trusted, stamped or self._now()))
        return next((at for at in times if at is not None), None), envelope.entries[0].index

    def _count_identity(self, envelope: SignedEnvelope, subject: Subject) -> None:
        if not any(signers.identities for signers in self._signers.values()):
            raise PolicyRefused("it is signed with a certificate, and only keys are signers")
        found = verify_keyless(envelope, self._trusted)
        kind = self._kind(envelope, subject)
        self._stamped(envelope)
        mismatches = {n: found.identity.mismatch(one) for n, one in self._signers[kind].identities.items()}
        fits = [n for n, mismatch in mismatches.items() if mismatch is None]
        if not fits:
            reasons = ", ".join(sorted({each for each in mismatches.values() if each is not None}))
            raise PolicyRefused(f"it is by another than the signers: {reasons or 'none is an identity'}")
        identity = found.identity
        verified = Verified(
            kind=_word(kind),
            signed=subject.digest,
            place=envelope.bundle.place,
            subject=identity.subject,
            issuer=identity.issuer,
            time=found.time,
            log_index=found.log_index,
        )
        self._ballots[kind].add((identity.issuer, identity.subject), fits, verified)

    def _kind(self, envelope: SignedEnvelope, subject: Subject) -> str:
        """Which ballot ``envelope`` is for. Raises PolicyRefused for none, or for one about another image."""
        statement = parse_statement(envelope.payload_type, envelope.payload)
        if statement.predicate_type not in self._ballots:
            raise PolicyRefused(f"it says {printable(statement.predicate_type)!r}, which is not asked for")
        statement.refuse_other(subject)
        return statement.predicate_type

    def _stamped(self, envelope: SignedEnvelope) -> int | None:
        """When a time-stamp authority has seen it, where the scope asks for that."""
        if not self._rules.needs_timestamp:
            return None
        return stamped_at(envelope.timestamps, envelope.signature, self._trusted)

    @property
    def _trusted(self) -> RootDocument:
        assert self._root is not None, "a scope that needs a root has one"
        return self._root


def _word(kind: str) -> str:
    return "bundle" if kind == SIGNED else f"attestation {kind}"
