"""Soak: thousands of pulls and of image-proxy sessions in one process, and how much memory one pull takes.

A process that has pulled two thousand images is no larger than after the first thousand, has as many
descriptors and threads, and its catalog is as large. And one ``layertee pull`` with default options takes no
more than 128 MiB, whatever the image is.

    python -m tests.torture --only soak [--scale F] [--case pulls|sessions|PEAK …]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from layertee import Options, Store, sync
from layertee.store.gc import gc
from tests.support.fakes.fault_server import FaultServer
from tests.support.imageproxy import ImageProxy, assert_clean, layertee_proxy
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer, zeros_layer
from tests.support.store import assert_store_is_sound
from tests.torture.results import Budget, Findings

__all__ = ["PEAKS", "Sample", "child", "judge", "run"]

_ROOT = Path(__file__).resolve().parents[2]
MIB: Final = 1 << 20
FULL: Final = 2_000  # pulls, and sessions
SAMPLES: Final = 20
IMAGES: Final = 8  # in turn, each removed before it is pulled again
GROWTH_MOST: Final = 1 * MIB  # of the resident memory, over the second half
CATALOG_MOST: Final = 1 * MIB
PEAK_MOST: Final = 128  # MiB
# A process keeps the connections that it has made, as many as it needed at one time: up to eight to a
# registry, by default. How many that were is a matter of which answer came first.
SOCKETS_MOST: Final = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process has after ``n`` rounds. Sizes in bytes; ``fds`` are the descriptors but for sockets."""

    n: int
    rss: int
    fds: int
    sockets: int
    threads: int
    catalog: int

    @classmethod
    def of(cls, n: int, pid: int, store: Path) -> Sample:
        """Of a process that works on ``store``."""
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        catalog = sum(path.stat().st_size for path in (store / "layertee").glob("catalog.sqlite*"))
        n_fds, n_sockets = _descriptors(pid)
        return cls(
            n, int(fields["VmRSS"].split()[0]) << 10, n_fds, n_sockets, int(fields["Threads"]), catalog
        )


def _descriptors(pid: int) -> tuple[int, int]:
    """How many a process has open: files and the like, and sockets."""
    opened = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.append(os.readlink(path))
    sockets = sum(target.startswith("socket:") for target in opened)
    return len(opened) - sockets, sockets


def judge(samples: Sequence[Sample], growth_most: int = GROWTH_MOST) -> None:
    """AssertionError if something grew over the second half of ``samples``."""
    late = samples[len(samples) // 2 :]
    grown = _slope([sample.n for sample in late], [sample.rss for sample in late])
    assert grown < growth_most, f"resident memory grew by {grown / MIB:.2f} MiB over the second half"
    for what in ("fds", "threads"):
        counts = [getattr(sample, what) for sample in late]
        assert max(counts) <= getattr(late[0], what), f"{what}: {counts}"
    assert max(sample.sockets for sample in late) <= SOCKETS_MOST, f"sockets: {[s.sockets for s in late]}"
    assert late[-1].catalog <= CATALOG_MOST, f"the catalog has {late[-1].catalog} bytes"
    assert late[-1].catalog <= late[0].catalog * 1.05, f"the catalog grows: {[s.catalog for s in late]}"


def _slope(xs: Sequence[int], ys: Sequence[int]) -> float:
    """By how much ``ys`` grow from the first of ``xs`` to the last, by the straight line that fits best."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    per_round = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return per_round * (xs[-1] - xs[0])


def _images(root: Path) -> dict[str, BuiltImage]:
    """Of three layers each, one of which all of them have."""
    shared = text_layer({"usr/lib/shared": "shared\n" * 20_000})
    return {
        f"soak/os:{n}": build_image(
            root / str(n),
            [shared, incompressible_layer(60_000, seed=10 + n), text_layer({"n": str(n)})],
            compression=("gzip", "zstd", "none"),
        )
        for n in range(IMAGES)
    }


# --- pulls in one process --------------------------------------------------------------------------


def child(host: str, store: Path, count: int) -> Iterator[Sample]:
    """``count`` pulls in this process, each of an image that is not there, and what it has now and then."""
    options = Options(tls_verify=False)
    for n in range(1, count + 1):
        name = f"{host}/soak/os:{n % IMAGES}"
        result = sync.pull(name, store=store, options=options)
        assert result.bytes_fetched > 0, f"{name} was there already"
        with Store.open(store) as opened:
            opened.images.remove(opened.images.all()[0].name)
            gc(opened)
        if n % (count // SAMPLES) == 0:
            yield Sample.of(n, os.getpid(), store)


def _pulls(count: int) -> list[Sample]:
    with TemporaryDirectory(prefix="layertee-soak-") as directory:
        root = Path(directory)
        with FaultServer(_images(root / "images")) as server:
            words = [sys.executable, "-m", "tests.torture.soak", server.host, str(root / "store"), str(count)]
            samples = []
            with subprocess.Popen(words, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    samples.append(Sample(**json.loads(line)))
                    server.forget()
            assert process.returncode == 0, f"the process ends with {process.returncode}"
        assert_store_is_sound(root / "store")
    return samples


# --- sessions of one image-proxy -------------------------------------------------------------------


def _sessions(count: int) -> list[Sample]:
    """Open an image, get every layer of it, close it, ``count`` times; half of what was got is kept."""
    samples: list[Sample] = []
    with TemporaryDirectory(prefix="layertee-soak-") as directory:
        root = Path(directory)
        store, images = root / "store", _images(root / "images")
        words = ("--tls-verify=false", "--cache-max", "250Ki")
        with FaultServer(images) as server, layertee_proxy(store, *words) as proxy:
            proxy.value("Initialize")
            for n in range(1, count + 1):
                name, image = list(images.items())[n % IMAGES]
                _session(proxy, f"docker://{server.host}/{name}", image)
                if n % (count // SAMPLES) == 0:
                    samples.append(Sample.of(n, proxy.pid, store))
                    assert server.requests("blob", image.layers[1].digest), "nothing was fetched any more"
                    server.forget()
            proxy.hang_up()
            assert proxy.exit_status() == 0, proxy.stderr()
        assert_clean(store)
    return samples


def _session(proxy: ImageProxy, name: str, image: BuiltImage) -> None:
    number = proxy.open(name)
    digest, _ = proxy.manifest(number)
    assert digest == image.digest
    proxy.body("GetFullConfig", number)
    for layer in image.layers:
        assert proxy.blob(number, layer) == image.blob_path(layer.digest).read_bytes(), layer.digest
    proxy.value("CloseImage", number)


# --- the peak of one pull --------------------------------------------------------------------------


def _padded_config(config: dict[str, Any]) -> None:
    """One string that makes the document almost as large as it may be."""
    config["config"]["Labels"] = {"padding": "p" * (4 * MIB - 20_000)}


def _crowded_config(config: dict[str, Any]) -> None:
    """As many small values as may be in one document: what costs most once it is parsed."""
    config["config"]["Labels"] = {f"{n:x}": "" for n in range(125_000)}


def _padded_manifest(manifest: dict[str, Any]) -> None:
    manifest["annotations"] = {"padding": "p" * (4 * MIB - 20_000)}


def _crowded_manifest(manifest: dict[str, Any]) -> None:
    manifest["annotations"] = {f"{n:x}": "" for n in range(125_000)}


def _zeros(sizes: Sequence[int]) -> list[LayerSpec]:
    return [zeros_layer(size * MIB) for size in sizes]


def _big(root: Path, compression: str, scale: float) -> BuiltImage:
    """Four layers, each of which fills any window; half of it in a sample."""
    sizes = [round(n * (1.0 if scale >= 1 else 0.5)) for n in (320, 319, 318, 317)]
    return build_image(root, _zeros(sizes), compression=compression)


def _noise(root: Path, scale: float) -> BuiltImage:
    mib = 64 if scale >= 1 else 24
    layers = [incompressible_layer(mib * MIB, seed=1 + n) for n in range(4)]
    return build_image(root, layers, compression="gzip-fast")


def _many(root: Path, _: float) -> BuiltImage:
    return build_image(root, [text_layer({f"{n}": f"{n}\n" * 50}) for n in range(400)])


def _documents(**edits: Any) -> Callable[[Path, float], BuiltImage]:
    return lambda root, _: build_image(root, [text_layer({"a": "a"})], **edits)


PEAKS: Final[Mapping[str, Callable[[Path, float], BuiltImage]]] = {
    "gzip": _noise,
    "gzip of zeros": lambda root, scale: _big(root, "gzip-fast", scale),
    "zstd, windows of 8 MiB": lambda root, scale: _big(root, "zstd-8m", scale),
    "zstd, windows of 128 MiB": lambda root, scale: _big(root, "zstd-128m", scale),
    "a padded config": _documents(edit_config=_padded_config),
    "a crowded config": _documents(edit_config=_crowded_config),
    "a padded manifest": _documents(edit_manifest=_padded_manifest),
    "a crowded manifest": _documents(edit_manifest=_crowded_manifest),
    "padded documents": _documents(edit_config=_padded_config, edit_manifest=_padded_manifest),
    "crowded documents": _documents(edit_config=_crowded_config, edit_manifest=_crowded_manifest),
    "400 layers": _many,
}
# What takes more (MiB), and why: a window is so much memory, for one layer at a time.
ABOVE: Final[Mapping[str, int]] = {"zstd, windows of 128 MiB": 64 + 128}


@contextmanager
def _served(image: BuiltImage) -> Iterator[str]:
    with FaultServer(image) as server:
        yield server.reference


def _peak(name: str, scale: float) -> dict[str, int]:
    """MiB at the peak, by the form that layers are kept in."""
    found = {}
    with TemporaryDirectory(prefix="layertee-soak-") as directory:
        root = Path(directory)
        with _served(PEAKS[name](root / "image", scale)) as reference:
            for form in ("as-is", "uncompressed"):
                cli = Cli(root / form)
                found[form] = -(-cli.peak_kib("pull", PLAIN, "-q", "--layers", form, reference) // 1024)
                shutil.rmtree(root / form)
    return found


# --- the part --------------------------------------------------------------------------------------


def run(budget: Budget) -> Mapping[str, object]:
    """Everything; of a sample fewer rounds, and some of the peaks."""
    findings = Findings("soak", budget)
    figures: dict[str, object] = {}
    count = budget.count(FULL, least=5 * SAMPLES) // SAMPLES * SAMPLES
    # At the begin of its life a process still grows: caches fill, the allocator finds its arenas, more on a
    # busy machine. A sample finds what loses 120 kB a round: a layer, or the documents of an image.
    most = GROWTH_MOST if budget.scale >= 1 else 6 * GROWTH_MOST
    for name, rounds in {"pulls": _pulls, "sessions": _sessions}.items():
        if not budget.wants(name):
            continue
        try:
            samples = rounds(count)
            late = samples[len(samples) // 2 :]
            grown = _slope([one.n for one in late], [one.rss for one in late])
            figures[name] = {"rounds": count, "grown_mib": round(grown / MIB, 2), **asdict(samples[-1])}
            judge(samples, most)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            findings.add(name, error if isinstance(error, AssertionError) else repr(error))
    peaks = [name for name in PEAKS if budget.wants(name)]
    if budget.scale < 1 and not budget.cases:
        peaks = budget.random("peaks").sample(peaks, budget.count(len(peaks), least=3))
    measured: dict[str, dict[str, int]] = {}
    for name in peaks:
        try:
            measured[name] = _peak(name, budget.scale)
            high, bound = max(measured[name].values()), ABOVE.get(name, PEAK_MOST)
            assert high <= bound, f"{measured[name]} MiB at the peak, at most {bound}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            findings.add(name, error if isinstance(error, AssertionError) else repr(error))
    return figures | {"peaks_mib": measured} | findings.figures()


if __name__ == "__main__":
    for found in child(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])):
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
        sys.stdout.flush()
