"""The signature policy, applied to what a client wants to open (containers-policy.json(5)).

What a policy accepts or rejects by name alone is decided here. Where it wants signatures, the real skopeo
judges the very manifest that was resolved here; without one the image is refused. The policy is read anew for
each image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..aio import in_thread
from ..config.policy import Policy, no_policy, read_policies
from ..config.requirements import Verdict
from ..engine import Inspection
from ..errors import PolicyRefused
from ..image.platform import Platform
from ..image.reference import parse_reference
from ..skopeo.check import check_policy
from ..skopeo.command import Access


@dataclass(frozen=True, slots=True)
class Judge:
    """``path``: the policy's file, None for that of the machine. ``insecure``: everything is accepted.

    ``served`` are the transports whose images are resolved here; ``skopeo`` judges signatures.
    """

    served: tuple[str, ...]
    skopeo: Path | None
    platform: Platform
    path: Path | None = None
    insecure: bool = False
    access: Access = field(default_factory=Access)

    async def by_name(self, name: str) -> tuple[Policy, ...]:
        """The policies that want signatures for ``name``; empty if it is accepted as it is.

        Raises PolicyRefused, InvalidReference.
        """
        if self.insecure:
            return ()
        policies = await in_thread(read_policies, self.path)
        if not policies:
            raise no_policy()
        wanting = [policy for policy in policies if await in_thread(self._wants_signatures, name, policy)]
        return tuple(wanting)

    def _wants_signatures(self, name: str, policy: Policy) -> bool:
        transport, _, details = name.partition(":")
        if transport in self.served:
            found = policy.judge(parse_reference(name))
        else:
            found = policy.judge_other(transport, details)
        if found.verdict is Verdict.REJECT:
            raise PolicyRefused(f"{name} is rejected by {policy.path}, in {found.section}")
        if found.verdict is Verdict.ACCEPT:
            return False
        if transport not in self.served:
            raise PolicyRefused(
                f"{policy.path} wants signatures for {name}, in {found.section}, which only images of"
                f" {', '.join(self.served)} can be checked for here"
            )
        return True

    async def check(self, name: str, policy: Policy, resolved: Inspection) -> None:
        """Returns if the signatures of the manifest that was ``resolved`` are as ``policy`` wants them.

        Raises PolicyRefused.
        """
        await check_policy(
            self.skopeo,
            parse_reference(name),
            policy,
            resolved.plan.manifest,
            platform=self.platform,
            access=self.access,
        )
