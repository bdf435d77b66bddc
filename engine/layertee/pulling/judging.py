"""Which images this machine takes, decided before a layer is asked for.

First by name: the section of policy.json that holds for it, in every file that has to be heeded, and that of
trust.toml. What is rejected there costs no request. Then, where a section wants signatures, by them: for the
very index and manifest that were resolved, by digest. A tag that moves meanwhile changes nothing. Last, by
age.

Trust.toml can only refuse more: what policy.json does not take, it cannot bring back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..aio import in_thread
from ..config.policy import Policy, no_policy, read_policies
from ..config.search import OWN
from ..errors import DowngradeRefused, LocalError, PolicyRefused, TrustFileError
from ..image.reference import ImageReference, Reference, parse_reference
from ..record import dataclass
from .freshness import Freshness, compare, is_older
from .ruling import Ruling, Sources

if TYPE_CHECKING:
    from ..config.trustrules import ScopeRules
    from ..image.document import Index, Manifest
    from ..image.platform import Platform
    from ..image.resolved import ResolvedImage
    from ..options import Options, PolicyOptions
    from ..store.store import Store
    from .consent import Consent
    from .imageplan import ImagePlan


@dataclass(frozen=True, slots=True)
class Examined:
    """``consent``, and the age of an image that has a name in a registry. ``refused``: too old, and why."""

    consent: Consent
    freshness: Freshness | None = None
    refused: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def told(self) -> Consent:
        """The verdict of both."""
        if self.refused is None or self.consent.refused is not None:
            return self.consent
        return replace(self.consent, refused=self.refused)

    def check(self) -> None:
        """Raise PolicyRefused (DowngradeRefused) if the image is not taken."""
        self.consent.check()
        if self.refused is not None:
            raise DowngradeRefused(self.refused).with_hint("allow-downgrade")


class Judge:
    """Applies the files that ``options`` name, or this machine's, which are read anew for each image."""

    def __init__(self, options: Options, platform: Platform) -> None:
        self._options = options
        self._policy = options.policy
        self._platform = platform

    async def by_name(self, image: ImageReference) -> Ruling:
        """What the files say of ``image``. Raises PolicyRefused and TrustFileError for one that cannot be
        applied.
        """
        return await in_thread(self._by_name, image)

    async def other(self, transport: str, details: str) -> Ruling:
        """The same for ``transport:details`` that is not read here."""
        return await in_thread(self._other, transport, details)

    async def consent(
        self,
        ruling: Ruling,
        image: ImageReference | str,
        manifest: Manifest | None,
        index: Index | None,
        find: Callable[[], Awaitable[Sources]],
    ) -> Consent:
        """The verdict on ``image``: its ``manifest``, chosen from ``index`` if it has one; None for all of
        the index.

        A refusal is in the verdict. ``image`` is a string for transports that are not parsed here. ``find``
        is called where signatures decide, for where they are. Raises what the network failed with while they
        were looked for.
        """
        consent = ruling.consent
        if consent.refused is not None or not ruling.wants_signatures:
            return consent
        from .signing import verify  # 50 ms, which only such images need

        options = self._options
        try:
            verified = await verify(ruling, image, manifest, index, await find(), options, self._platform)
        except TrustFileError:  # nothing about the image: a file has to be mended
            raise
        except PolicyRefused as exc:
            return replace(consent, refused=str(exc))
        verified = tuple(dict.fromkeys(verified))
        signed = tuple(dict.fromkeys(one.signed for one in verified))
        return replace(consent, verified=verified, signed=signed, by=self._policy.signatures_by.value)

    def examined(
        self, ruling: Ruling, image: ImageReference, resolved: ResolvedImage, consent: Consent, store: Store
    ) -> Examined:
        """``consent``, and the image's age beside what ``store`` has seen under its name. Blocks."""
        if not isinstance(image, Reference) or image.digest is not None:
            return Examined(consent)
        policy, rules = self._policy, ruling.trust
        newest, damaged = store.seen.newest(str(image), str(self._platform))
        ages = [rule.max_age_s for rule in rules if rule.max_age_s is not None]
        if policy.max_age_s is not None:
            ages.append(int(policy.max_age_s))
        freshness = compare(
            resolved,
            consent.verified,
            newest,
            now=int(time.time()),
            max_age_s=min(ages) if ages else None,
        )
        warnings = [f"{image}: {note}" for note in freshness.notes]
        older = freshness.older and any(rule.refuses_older for rule in rules)
        stale = freshness.stale and any(rule.refuses_stale for rule in rules)
        refused = "; ".join(warnings) if (older or stale) and not policy.allow_downgrade else None
        return Examined(consent, freshness, refused, (*((damaged,) if damaged else ()), *warnings))

    # --- inside ---

    def _by_name(self, image: ImageReference) -> Ruling:
        if self._policy.insecure:
            return Ruling(str(image), True, ())
        found = tuple((policy, policy.judge(image)) for policy in self._policies_read())
        trust = self._trust(image) if isinstance(image, Reference) else ()
        return Ruling(str(image), False, found, trust, has_trust=self._has_trust)

    def _other(self, transport: str, details: str) -> Ruling:
        name = f"{transport}:{details}"
        if self._policy.insecure:
            return Ruling(name, True, ())
        found = ((policy, policy.judge_other(transport, details)) for policy in self._policies_read())
        return Ruling(name, False, tuple(found))

    def _policies_read(self) -> tuple[Policy, ...]:
        policies = read_policies(self._policy.file)
        if not policies and self._policy.required:
            raise no_policy()
        return policies

    def _trust(self, image: Reference) -> tuple[ScopeRules, ...]:
        if not self._has_trust:
            return ()
        from ..signatures.trust.files import load_trust  # 10 ms, and few machines have such a file

        return load_trust(self._policy.trust_file).of(image)

    @property
    def _has_trust(self) -> bool:
        """Whether there may be a trust.toml."""
        return self._policy.trust_file is not None or os.path.lexists(OWN)


def remember(store: Store, plan: ImagePlan, platform: Platform, policy: PolicyOptions) -> tuple[str, ...]:
    """The image of ``plan`` was taken: what is the newest under its name from now on. Blocks.

    What kept it from being remembered is returned, for people.
    """
    if plan.freshness is None:
        return ()
    seen = plan.freshness.to_remember(allow_downgrade=policy.allow_downgrade)
    if seen is None:
        return ()
    name = str(parse_reference(plan.reference))
    newest, _ = store.seen.newest(name, str(platform))
    if newest != plan.freshness.newest and newest is not None and is_older(seen, newest):
        return ()  # a newer one was taken meanwhile, by another process
    try:
        store.seen.remember(name, str(platform), seen)
    except LocalError as exc:
        return (f"what was seen of {plan.reference} cannot be kept: {exc}",)
    return ()
