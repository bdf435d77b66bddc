"""One large layer while another core idles: ``python -m bench lone [--small] [--rounds N]``.

The largest layer of *big*, from memory through the pool of the C core: by one worker, by two as a pull has
them, and by two of which the second decodes blocks before their turn, as it is done on more cores. Then
whole pulls of an image of that layer alone, by a client on one CPU and on all of them. Wall time, in
interleaved rounds; what a block ahead of its turn costs is taken from the pool's own counters.
"""

from __future__ import annotations

import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.contenders import layertee
from bench.content import Images
from bench.held.document import Body, paired
from bench.held.rounds import interleaved
from bench.regimes import REGIMES, Case, serve
from bench.runner import Round, require_space
from bench.tools import find_tools
from bench.where import BUILT, DESTINATIONS, cache
from layertee.core.pool import N_IN, N_OUT, LayerJob, Pool, PoolStats
from layertee.core.pool_c import CPool
from layertee.core.workers import open_pool
from layertee.image.media import Compression
from layertee.sync import run
from tests.support.rig.blobs import BuiltLayer
from tests.support.rig.images import BuiltImage, some_layers

_PIECE = 1 << 20
_FORMS = {"gzip": Compression.GZIP, "zstd": Compression.ZSTD}
GOAL = 0.65


@dataclass(frozen=True, slots=True)
class Pools:
    """A pool of so many workers as a pull has it; ``pieces``: so many are decoded ahead, which a pull on two
    cores does not do.
    """

    name: str
    workers: int
    pieces: int | None = None

    def open(self) -> Pool:
        if self.pieces is None:
            return open_pool(workers=self.workers)
        return CPool(self.workers, N_IN, N_OUT, self.pieces)


ONE, TWO, AHEAD = Pools("one worker", 1), Pools("two workers", 2), Pools("two, a piece ahead", 2, 1)


def through(blob: memoryview, compression: Compression, pools: Pools, out: Path) -> tuple[str, PoolStats]:
    """``blob`` through a pool of its own, its tar written to ``out``; the DiffID, and the counters."""

    async def main() -> tuple[str, PoolStats]:
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        pool = pools.open()
        try:
            layer = pool.open_layer(LayerJob(compression, len(blob), fd=fd, write="out", check_crc=False))
            for start in range(0, len(blob), _PIECE):
                piece = blob[start : start + _PIECE]
                buf = await pool.take_soon()
                buf.view[: len(piece)] = piece
                if not layer.submit(buf, len(piece)):
                    break
            layer.end()
            return str((await layer.result()).diff_id), pool.stats()
        finally:
            pool.close()
            os.close(fd)

    return run(main())


def largest(image: BuiltImage) -> BuiltLayer:
    """The layer whose tar is the largest."""
    return max(image.layers, key=lambda layer: layer.uncompressed_size)


def measure(body: Body, images: Images, *, seconds: float, rounds: int | None = None) -> None:
    """Fill ``body``, ``seconds`` long but for at least three rounds of each.

    Raises CommandFailed, WrongResult, ValueError, OSError.
    """
    for form, share in (("gzip", 0.45), ("zstd", 0.15)):
        image = images.get("big", f"{form}:podman")
        body.profile[f"image big, {form}:podman"] = image.digest
        from_memory(body, image, form, seconds * share, rounds)
    whole(body, images.get("big", "gzip:podman"), seconds * 0.4, rounds)


def from_memory(body: Body, image: BuiltImage, form: str, seconds: float, rounds: int | None) -> None:
    """Rows and ratios of the pool alone, and what a byte costs ahead of its turn."""
    layer = largest(image)
    scratch = DESTINATIONS["tmpfs"]
    require_space(scratch, layer.uncompressed_size + (64 << 20))
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="layertee-lone-", dir=scratch))
        file = stack.enter_context(image.blob_path(layer.digest).open("rb"))
        mapped = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        blob = stack.enter_context(memoryview(mapped))
        out = Path(directory) / "out"

        def once(pools: Pools) -> dict[str, Any]:
            began, spent = time.perf_counter(), time.process_time()
            diff_id, stats = through(blob, _FORMS[form], pools, out)
            took = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - spent}
            out.unlink()
            if diff_id != layer.diff_id:
                raise ValueError(f"{pools.name}: {diff_id} instead of {layer.diff_id}")
            return took | {"stats": stats}

        field = {pools: partial(once, pools) for pools in (ONE, TWO, AHEAD)}
        taken = interleaved(field, seconds=seconds, rounds=rounds, warm=False)
    what = f"{form} layer from memory"
    for pools, one in taken.items():
        body.rows.append(_row(what, pools.name, one) | _counters([it["stats"] for it in one]))
    body.ratios.append(paired(f"{what}: two workers over one", taken[TWO], taken[ONE], goal_wall=GOAL))
    key = f"{what}: two workers with a piece ahead over two without"
    body.ratios.append(paired(key, taken[AHEAD], taken[TWO]))
    body.facts[f"ahead_{form}"] = ahead_cost(taken[TWO], taken[AHEAD], layer.uncompressed_size)


def ahead_cost(
    plain: Sequence[Mapping[str, Any]], ahead: Sequence[Mapping[str, Any]], out_nbytes: int
) -> dict[str, float]:
    """Of a byte that is decoded ahead of its turn, over one that is decoded in its turn; and their share.

    ``decode``: the decoding ahead itself, by the pool's clock. ``all``: by what a whole run takes more of the
    CPUs than one with nothing ahead. Medians of runs; 0 where nothing was decoded ahead.
    """
    turn_s = statistics.median(it["stats"].inflate_ns for it in plain) / out_nbytes / 1e9
    nbytes = statistics.median(it["stats"].ahead_nbytes for it in ahead)
    if nbytes == 0:
        return {"share": 0.0, "decode": 0.0, "all": 0.0}
    decode_s = statistics.median(it["stats"].ahead_ns for it in ahead) / nbytes / 1e9
    more_s = statistics.median(one["cpu_s"] - other["cpu_s"] for one, other in zip(ahead, plain, strict=True))
    return {
        "share": round(nbytes / out_nbytes, 4),
        "decode": round(decode_s / turn_s, 4),
        "all": round(1 + max(more_s, 0.0) / nbytes / turn_s, 4),
    }


def whole(body: Body, image: BuiltImage, seconds: float, rounds: int | None) -> None:
    """Rows and a ratio of whole pulls of the layer, from nginx: by one CPU, and by all."""
    tools, _ = find_tools(cache() / "peers", [])
    (contender,) = [it for it in layertee(tools["layertee"].program) if it.work == "decompress"]
    body.versions["layertee"] = tools["layertee"].version
    case = Case(REGIMES["nginx"], "big", "gzip", "tmpfs")
    BUILT.mkdir(parents=True, exist_ok=True)
    require_space(DESTINATIONS["tmpfs"], largest(image).uncompressed_size + (64 << 20))
    with ExitStack() as stack:
        storage = stack.enter_context(tempfile.TemporaryDirectory(prefix="server-", dir=BUILT))
        scratch = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="layertee-lone-", dir=DESTINATIONS["tmpfs"])
        )
        place = Path(storage).absolute()
        lone = some_layers(image, [image.layers.index(largest(image))], place / "image")
        server = stack.enter_context(serve(case.regime, place))
        it = Round(case, server, {case.pulled: lone}, Path(scratch))
        first = min(os.sched_getaffinity(0))
        it.run(contender, counted=False)

        def once(cpu: int | None) -> dict[str, Any]:
            row = it.run(contender, counted=True, cpu=cpu)
            return {"wall_s": row.wall_s, "cpu_s": row.user_s + row.sys_s}

        field = {cpu: partial(once, cpu) for cpu in (first, None)}
        taken = interleaved(field, seconds=seconds, rounds=rounds, warm=False)
    n_cpus = len(os.sched_getaffinity(0))
    for cpu, name in ((first, "on one CPU"), (None, f"on {n_cpus} CPUs")):
        body.rows.append(_row("pull of that layer, tars written", name, taken[cpu]))
    body.ratios.append(paired(f"pull of one gzip layer: {n_cpus} CPUs over one", taken[None], taken[first]))


def _row(what: str, how: str, taken: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"what": what, "how": how, "rounds": len(taken)}
    return row | {key: round(statistics.median(it[key] for it in taken), 4) for key in ("wall_s", "cpu_s")}


def _counters(stats: Sequence[PoolStats]) -> dict[str, float]:
    """Medians, in seconds, of what the pool counts."""
    names = ("inflate_ns", "hash_ns", "write_ns", "idle_ns", "ahead_ns", "lock_wait_ns")
    found = {
        name.replace("_ns", "_s"): round(statistics.median(getattr(it, name) for it in stats) / 1e9, 4)
        for name in names
    }
    return found | {"n_locks": statistics.median(it.n_locks for it in stats)}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: medians."""
    names = ("wall_s", "cpu_s", "inflate_s", "ahead_s", "hash_s", "write_s", "idle_s", "lock_wait_s")
    heads = [
        name.removesuffix("_s").replace("_", " ") + (" s" if i < 2 else "") for i, name in enumerate(names)
    ]
    lines = [f"| what | by | {' | '.join(heads)} | rounds |", "|---" * (len(names) + 3) + "|"]
    for row in rows:
        cells = " | ".join(f"{row[name]:.2f}" if name in row else "" for name in names)
        lines.append(f"| {row['what']} | {row['how']} | {cells} | {row['rounds']} |")
    return lines
