"""Which pool there is: the C core's where it can be had, else the one over the fallback core."""

from __future__ import annotations

import os

from .loading import choose
from .pool import N_IN, N_OUT, Pool
from .pool_c import CPool
from .pool_python import ThreadPool


def open_pool(
    *, workers: int | None = None, n_in: int = N_IN, n_out: int = N_OUT, core: str | None = None
) -> Pool:
    """A pool on the current event loop, on the core that :func:`layertee.core.loading.choose` names."""
    workers = workers or len(os.sched_getaffinity(0))
    if choose(core) == "c":
        return CPool(workers, n_in, n_out)
    return ThreadPool(workers, n_in)
