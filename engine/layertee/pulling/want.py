"""What is wanted of an image's layers: what a plan is decided by, beside what there is."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ..image.basis import Basis
from ..image.given import one_of
from ..image.holding import Form
from ..record import dataclass

if TYPE_CHECKING:
    from ..image.document import Digest, Layer


class Verify(enum.Enum):
    """What is checked of a layer that is fetched.

    ``DIGEST`` inflates nothing of a blob that is kept as it is: its content is then only what the
    image says, no pair is recorded, and the first pull or verification that needs it computes it.
    Layers kept uncompressed are named by their DiffID, so they are always checked against both.
    """

    BOTH = "both"  # the blob's digest and the DiffID
    DIGEST = "digest"  # the blob's digest


class Keep(enum.Enum):
    """Where the layers of an image are to be after a pull."""

    ANYWHERE = "anywhere"  # a layer may be left in a place that has it and cannot give it back
    STORE = "store"  # in the store, in whatever form costs least
    NAMED = "named"  # in the store, under the name that the wanted form gives it, whatever else is there


@dataclass(frozen=True, slots=True)
class Want:
    """What is wanted of an image's layers.

    ``trust``: with ``COMPUTED``, other places are used only for what was computed on this machine; otherwise
    whatever can be read is read, and what can only be shown counts if its basis is ``trust`` or stronger.
    Each may be given by its value, "uncompressed" for example; ValueError for one that there is not.
    """

    form: Form = Form.AS_IS
    verify: Verify = Verify.BOTH
    keep: Keep = Keep.ANYWHERE
    trust: Basis = Basis.ATTESTED

    if TYPE_CHECKING:

        def __init__(
            self,
            form: Form | str = ...,
            verify: Verify | str = ...,
            keep: Keep | str = ...,
            trust: Basis | str = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name, kind in (("form", Form), ("verify", Verify), ("keep", Keep), ("trust", Basis)):
            object.__setattr__(self, name, one_of(kind, getattr(self, name), name))

    @property
    def digest_only(self) -> bool:
        """Whether a blob of the image is hashed and not inflated."""
        return self.verify is Verify.DIGEST and self.form is Form.AS_IS

    @property
    def blobs_only(self) -> bool:
        """Whether nothing will do in place of the blobs that the image names."""
        return self.keep is Keep.NAMED and self.form is Form.AS_IS

    def name_of(self, layer: Layer) -> Digest:
        """What the store calls ``layer`` in the wanted form: the blob's digest, or the DiffID for the tar."""
        return layer.digest if self.form is Form.AS_IS else layer.tar_digest
