"""The results as one JSON document: which machine, which programs, which images, and every single run."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.rig.images import BuiltImage

__all__ = ["Results", "Row", "machine"]

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One run. Seconds, MiB; ``wire_nbytes`` are bytes of layer blobs that the server sent."""

    regime: str
    shape: str
    compression: str
    dest: str
    n_cpus: int
    peer: str
    work: str
    wall_s: float
    user_s: float
    sys_s: float
    server_cpu_s: float
    rss_mib: float
    wire_nbytes: int


@dataclass(slots=True)
class Results:
    """Everything that is written. ``notes`` are what a reader must know and the numbers don't say."""

    command: str
    versions: dict[str, str]
    machine: dict[str, Any]
    regimes: list[dict[str, str]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    floor: list[dict[str, Any]] = field(default_factory=list)
    size: list[dict[str, Any]] = field(default_factory=list)
    startup: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    filesystems: dict[str, str] = field(default_factory=dict)
    date: str = field(default_factory=lambda: str(datetime.date.today()))

    def add_image(self, shape: str, compression: str, image: BuiltImage, content: str) -> None:
        """Describe an image, once."""
        entry = {
            "shape": shape,
            "compression": compression,
            "n_layers": len(image.layers),
            "compressed_nbytes": image.blob_bytes,
            "uncompressed_nbytes": image.uncompressed_bytes,
            "content": content,
        }
        if entry not in self.images:
            self.images.append(entry)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def write(self, directory: Path) -> Path:
        """Write ``<date>-<machine>.json``; one of the same name is replaced."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.date}-{self.machine['slug']}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(_one_run_a_line(self.document()))
        temporary.rename(path)
        return path


def _one_run_a_line(document: Mapping[str, Any]) -> str:
    """A diff of two results then shows which runs differ."""
    parts = []
    for key, value in document.items():
        if isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value)
            parts.append(f"{json.dumps(key)}: [\n  {lines}\n ]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def machine() -> dict[str, Any]:
    """This one: CPU, memory, system. The slug has the CPU's name and the number of CPUs."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    cpu = model[1].strip() if model else platform.machine()
    name = re.search(r"EPYC|Xeon|Ryzen|Core|Neoverse|Graviton", cpu, re.IGNORECASE)
    n_cpus = len(os.sched_getaffinity(0))
    release = platform.freedesktop_os_release()
    return {
        "slug": f"{(name[0] if name else platform.machine()).lower()}-{n_cpus}cpu",
        "cpu": cpu,
        "n_cpus": n_cpus,
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kernel": platform.release(),
        "os": release.get("PRETTY_NAME", platform.system()),
        "python": platform.python_version(),
        "virtual": re.search(r"^flags\s*:.*\bhypervisor\b", info, re.MULTILINE) is not None,
    }
