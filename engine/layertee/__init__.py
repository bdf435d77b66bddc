"""layertee: only the layers a machine lacks, each in one pass, verified at both ends.

The public names. They are imported on first use, so that ``import layertee`` and ``layertee
--version`` cost next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .config.logins import Login
    from .core.result import TeeResult
    from .core.tee import Tee
    from .disk.blob_file import FileContent
    from .disk.keeping import KeepPartials
    from .disk.space import KeepFree
    from .engine import Engine, ImageName, Inspection
    from .errors import LayerteeError
    from .image.blobname import BlobName, KnownNames
    from .image.document import Descriptor, DiffID, Digest, ImageConfig, Index, Layer, Manifest, Unreadable
    from .image.holding import Basis, BlobContent, BlobReader, Form, Found, Holding, Place
    from .image.media import Compression
    from .image.platform import Platform
    from .image.reference import Reference
    from .image.resolved import Member, ResolvedImage, Whole
    from .options import Budget, Options, PolicyOptions, SignaturesBy
    from .pulling.consent import Consent, Section
    from .pulling.freshness import Freshness
    from .pulling.imageplan import ImagePlan
    from .pulling.plan import Action, LayerPlan, Plan, Source, SourceKind, TarAt
    from .pulling.report import (
        Asked,
        LayerProgress,
        LayerResult,
        Progress,
        ProgressCallback,
        PullResult,
        VerifyCallback,
        VerifyProgress,
    )
    from .pulling.stream import LayerStream
    from .pulling.tags import RepositoryTags
    from .pulling.verify import BadBlob, FalseClaim, VerifyReport
    from .pulling.want import Keep, Verify, Want
    from .signatures.signature import Verified
    from .store.seen import Seen
    from .store.store import Store
    from .sync import SyncEngine, pull
    from .transfer.limits import FetchLimits, RangeMode

_HOMES = {
    "config.logins": ("Login",),
    "core.result": ("TeeResult",),
    "core.tee": ("Tee",),
    "disk.blob_file": ("FileContent",),
    "disk.keeping": ("KeepPartials",),
    "disk.space": ("KeepFree",),
    "engine": (
        "Engine",
        "ImageName",
        "Inspection",
    ),
    "errors": ("LayerteeError",),
    "image.blobname": (
        "BlobName",
        "KnownNames",
    ),
    "image.document": (
        "Descriptor",
        "DiffID",
        "Digest",
        "ImageConfig",
        "Index",
        "Layer",
        "Manifest",
        "Unreadable",
    ),
    "image.holding": (
        "Basis",
        "BlobContent",
        "BlobReader",
        "Form",
        "Found",
        "Holding",
        "Place",
    ),
    "image.media": ("Compression",),
    "image.platform": ("Platform",),
    "image.reference": ("Reference",),
    "image.resolved": ("Member", "ResolvedImage", "Whole"),
    "options": (
        "Budget",
        "Options",
        "PolicyOptions",
        "SignaturesBy",
    ),
    "pulling.consent": (
        "Consent",
        "Section",
    ),
    "pulling.freshness": ("Freshness",),
    "pulling.imageplan": ("ImagePlan",),
    "pulling.plan": (
        "Action",
        "LayerPlan",
        "Plan",
        "Source",
        "SourceKind",
        "TarAt",
    ),
    "pulling.report": (
        "Asked",
        "LayerProgress",
        "LayerResult",
        "Progress",
        "ProgressCallback",
        "PullResult",
        "VerifyCallback",
        "VerifyProgress",
    ),
    "pulling.stream": ("LayerStream",),
    "pulling.tags": ("RepositoryTags",),
    "pulling.verify": (
        "BadBlob",
        "FalseClaim",
        "VerifyReport",
    ),
    "pulling.want": (
        "Keep",
        "Verify",
        "Want",
    ),
    "signatures.signature": ("Verified",),
    "store.seen": ("Seen",),
    "store.store": ("Store",),
    "sync": (
        "SyncEngine",
        "pull",
    ),
    "transfer.limits": (
        "FetchLimits",
        "RangeMode",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Action",
    "Asked",
    "BadBlob",
    "Basis",
    "BlobContent",
    "BlobName",
    "BlobReader",
    "Budget",
    "Compression",
    "Consent",
    "Descriptor",
    "DiffID",
    "Digest",
    "Engine",
    "FalseClaim",
    "FetchLimits",
    "FileContent",
    "Form",
    "Found",
    "Freshness",
    "Holding",
    "ImageConfig",
    "ImageName",
    "ImagePlan",
    "Index",
    "Inspection",
    "Keep",
    "KeepFree",
    "KeepPartials",
    "KnownNames",
    "Layer",
    "LayerPlan",
    "LayerProgress",
    "LayerResult",
    "LayerStream",
    "LayerteeError",
    "Login",
    "Manifest",
    "Member",
    "Options",
    "Place",
    "Plan",
    "Platform",
    "PolicyOptions",
    "Progress",
    "ProgressCallback",
    "PullResult",
    "RangeMode",
    "Reference",
    "RepositoryTags",
    "ResolvedImage",
    "Section",
    "Seen",
    "SignaturesBy",
    "Source",
    "SourceKind",
    "Store",
    "SyncEngine",
    "TarAt",
    "Tee",
    "TeeResult",
    "Unreadable",
    "Verified",
    "Verify",
    "VerifyCallback",
    "VerifyProgress",
    "VerifyReport",
    "Want",
    "Whole",
    "__version__",
    "pull",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
