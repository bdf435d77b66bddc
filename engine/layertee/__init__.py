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
    from .disk.keeping import KeepPartials
    from .disk.space import KeepFree
    from .engine import Engine, Inspection, Options
    from .errors import LayerteeError
    from .image.document import DiffID, Digest, Platform
    from .image.holding import Basis, Found, Holding, Place
    from .pulling.imageplan import ImagePlan
    from .pulling.plan import Action, Form, Keep, LayerPlan, Verify, Want
    from .pulling.report import LayerResult, Progress, PullResult
    from .pulling.stream import LayerStream
    from .store.store import Store
    from .sync import SyncEngine, pull
    from .transfer.limits import FetchLimits, RangeMode

_HOMES = {
    "config.logins": ("Login",),
    "core.result": ("TeeResult",),
    "core.tee": ("Tee",),
    "disk.keeping": ("KeepPartials",),
    "disk.space": ("KeepFree",),
    "engine": ("Engine", "Inspection", "Options"),
    "errors": ("LayerteeError",),
    "image.document": ("DiffID", "Digest", "Platform"),
    "image.holding": ("Basis", "Found", "Holding", "Place"),
    "pulling.imageplan": ("ImagePlan",),
    "pulling.plan": ("Action", "Form", "Keep", "LayerPlan", "Verify", "Want"),
    "pulling.report": ("LayerResult", "Progress", "PullResult"),
    "pulling.stream": ("LayerStream",),
    "store.store": ("Store",),
    "sync": ("SyncEngine", "pull"),
    "transfer.limits": ("FetchLimits", "RangeMode"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Action",
    "Basis",
    "DiffID",
    "Digest",
    "Engine",
    "FetchLimits",
    "Form",
    "Found",
    "Holding",
    "ImagePlan",
    "Inspection",
    "Keep",
    "KeepFree",
    "KeepPartials",
    "LayerPlan",
    "LayerResult",
    "LayerStream",
    "LayerteeError",
    "Login",
    "Options",
    "Place",
    "Platform",
    "Progress",
    "PullResult",
    "RangeMode",
    "Store",
    "SyncEngine",
    "Tee",
    "TeeResult",
    "Verify",
    "Want",
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
