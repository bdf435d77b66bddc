"""How an engine behaves: one value, the same for the library and for the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .image.document import Platform
from .image.holding import Basis, Place
from .image.placename import Where
from .transfer.limits import FetchLimits


@dataclass(frozen=True, slots=True)
class Options:
    """The defaults are those of the command line.

    ``tls_verify`` False also allows plain HTTP, for the registries that images name; tokens and
    redirects stay on what the registry offers. ``places`` to take layers from: an OCI layout by its
    path, others by their names, or any object that is a Place. ``trust`` says how well a place must
    know what it holds before a download is skipped (``plan.plan``). ``anonymous``: use no credentials,
    whatever files there are. ``trusted_realms``: hosts of token services that may be sent the credentials of
    a registry which names them, where the two are on different hosts. ``user_agent_prefix`` names the
    program that this one works for. ``opaque_layers``: also take images that do not name the DiffID of
    every layer; of such a layer only the blob's digest is checked.
    """

    platform: Platform = field(default_factory=Platform.host)
    authfile: Path | None = None
    tls_verify: bool = True
    cert_dir: Path | None = None
    limits: FetchLimits = field(default_factory=FetchLimits)
    places: tuple[Where | Place, ...] = ()
    core: str | None = None
    trust: Basis = Basis.ATTESTED
    anonymous: bool = False
    trusted_realms: tuple[str, ...] = ()
    user_agent_prefix: str = ""
    opaque_layers: bool = False
