"""layertee: only the layers a machine lacks, each in one pass, verified at both ends.

The public names. They are imported on first use, so that ``import layertee`` and ``layertee
--version`` cost next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .engine import Engine, Inspection, Options
    from .errors import LayerteeError
    from .fetch import FetchLimits, RangeMode
    from .imageplan import ImagePlan
    from .inventory import Basis
    from .oci import DiffID, Digest, Platform
    from .plan import Action, Form, LayerPlan, Verify
    from .report import LayerResult, Progress, PullResult
    from .store import Store
    from .stream import LayerStream
    from .sync import pull
    from .tee import Tee, TeeResult

_HOMES = {
    "engine": ("Engine", "Inspection", "Options"),
    "errors": ("LayerteeError",),
    "fetch": ("FetchLimits", "RangeMode"),
    "imageplan": ("ImagePlan",),
    "inventory": ("Basis",),
    "oci": ("DiffID", "Digest", "Platform"),
    "plan": ("Action", "Form", "LayerPlan", "Verify"),
    "report": ("LayerResult", "Progress", "PullResult"),
    "store": ("Store",),
    "stream": ("LayerStream",),
    "sync": ("pull",),
    "tee": ("Tee", "TeeResult"),
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
    "ImagePlan",
    "Inspection",
    "LayerPlan",
    "LayerResult",
    "LayerStream",
    "LayerteeError",
    "Options",
    "Platform",
    "Progress",
    "PullResult",
    "RangeMode",
    "Store",
    "Tee",
    "TeeResult",
    "Verify",
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
