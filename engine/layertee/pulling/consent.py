"""What this machine says to one image before a layer is asked for: the verdict, and what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import PolicyRefused
from ..record import dataclass

if TYPE_CHECKING:
    from ..image.document import Digest
    from ..signatures.signature import Verified


@dataclass(frozen=True, slots=True)
class Section:
    """One file's word on the image: ``verdict`` is accept, signatures (they decide) or reject. ``file`` may
    end in ``:LINE``.
    """

    file: str
    section: str
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """Its object of ``--json``."""
        return {"file": self.file, "section": self.section, "verdict": self.verdict}


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """The verdict on one image.

    ``sections`` are those that hold for it, of policy.json and trust.toml; empty where the machine has
    neither file, and where they were set aside. ``refused`` is None, or why the image is not taken.
    ``verified`` are the signatures by which it is, ``signed`` the digests that they are for, each on the way
    from the name to the manifest: the index's, or the manifest's own. ``by``: who judged them, None where
    nobody had to.
    """

    sections: tuple[Section, ...] = ()
    insecure: bool = False
    refused: str | None = None
    verified: tuple[Verified, ...] = ()
    signed: tuple[Digest, ...] = ()
    by: str | None = None

    @property
    def unasked(self) -> bool:
        """Whether this machine has no policy at all, so that nothing was asked of the image."""
        return not self.sections and not self.insecure

    def check(self) -> None:
        """Raise PolicyRefused if the image is not taken."""
        if self.refused is not None:
            raise PolicyRefused(self.refused)

    def to_json(self) -> dict[str, Any]:
        """The object ``policy`` of ``--json``."""
        return {
            "accepted": self.refused is None,
            "refused": self.refused,
            "insecure": self.insecure,
            "sections": [section.to_json() for section in self.sections],
            "signed": list(self.signed),
            "verified": [one.to_json() for one in self.verified],
            "by": self.by,
        }
