"""Which pool there is: the C core's where it can be had, else the one over the fallback core."""

from __future__ import annotations

import logging
import os

from .loading import choose, why_python
from .pool import N_IN, N_OUT, N_OUT_PER_WORKER, Pool
from .pool_c import CPool
from .pool_python import ThreadPool

log = logging.getLogger(__name__)

# No network brings what more of them could inflate, and each has work of its own in memory.
MAX_WORKERS = 16


def open_pool(
    *, workers: int | None = None, n_in: int = N_IN, n_out: int | None = None, core: str | None = None
) -> Pool:
    """A pool on the current event loop, on the core that :func:`layertee.core.loading.choose` names.

    As many ``workers`` as this process may use cores, up to 16, unless their number is given.
    """
    workers = workers or min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    name = choose(core)
    if name == "c":
        return CPool(workers, n_in, n_out or max(N_OUT, N_OUT_PER_WORKER * workers))
    if core is None:
        log.info("the core in Python does the work, which takes longer: %s", why_python())
    return ThreadPool(workers, n_in)
