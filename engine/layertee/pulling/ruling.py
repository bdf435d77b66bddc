"""What the files of a machine say of an image by its name alone, and where its signatures are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config.requirements import Verdict
from ..record import dataclass
from .consent import Consent, Section

if TYPE_CHECKING:
    from ..config.policy import Judgement, Policy
    from ..config.trustrules import ScopeRules
    from ..image.reference import Reference
    from ..signatures.signature import SignatureSource
    from ..signatures.trust.check import TrustSource


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the files say of an image ``name`` without looking at it.

    ``has_trust``: trust.toml was looked for, whether or not one of its scopes has the image.
    """

    name: str
    insecure: bool
    found: tuple[tuple[Policy, Judgement], ...]
    trust: tuple[ScopeRules, ...] = ()
    has_trust: bool = False

    @property
    def consent(self) -> Consent:
        """The verdict, as far as it goes."""
        sections = [Section(str(policy.path), one.section, one.verdict.value) for policy, one in self.found]
        sections += [Section(rules.whence, rules.scope, _verdict(rules).value) for rules in self.trust]
        rejected = next((one for one in self.found if one[1].verdict is Verdict.REJECT), None)
        why = None
        if rejected is not None:
            policy, one = rejected
            why = f"{self.name} is rejected by {policy.path}, in {one.section}"
        return Consent(sections=tuple(sections), insecure=self.insecure, refused=why)

    @property
    def wants_signatures(self) -> bool:
        """Whether they decide."""
        return self.wants_trust or any(one.verdict is Verdict.SIGNATURES for _, one in self.found)

    @property
    def wanted_by(self) -> str:
        """The files of policy.json that want signatures, for messages."""
        return " and ".join(
            str(policy.path) for policy, one in self.found if one.verdict is Verdict.SIGNATURES
        )

    @property
    def wants_trust(self) -> bool:
        """Whether trust.toml wants signatures."""
        return any(rules.asks_for_signatures for rules in self.trust)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the signatures of one image are: those that policy.json is about, and those of trust.toml.

    None for an image of a kind that has none. ``name`` is that of an image of podman's store. ``hint`` is
    what people should know of where they are looked for, if that may be why one is missing.
    """

    signatures: SignatureSource | None = None
    trust: TrustSource | None = None
    name: Reference | None = None
    hint: str = ""


def _verdict(rules: ScopeRules) -> Verdict:
    return Verdict.SIGNATURES if rules.asks_for_signatures else Verdict.ACCEPT
