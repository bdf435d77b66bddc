"""What a command imports before it does anything: half of the time of a command with little to do.

``LEFT_OUT`` is the table. A row names modules that a command must not import when it runs as in the test;
with a module, all in it are meant. Where a command needs one of them from now on, its row loses the name, and
the table shows what that costs everybody. A name in a row is worth something as long as another command
imports the module: two tests see to that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec

import pytest

from tests.support.imageproxy import layertee_proxy
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

# Of the libraries: what takes long to import, in milliseconds of CPU where it is more than a few.
HTTP = {"aiohttp", "yarl", "layertee.registry.http"}  # 60
LOOP = {"asyncio", "uvloop", "ssl"}  # 20
LAYERS = {"isal", "zstandard", "layertee.core.pool", "layertee.core._ctee", "_cffi_backend"}
TRANSFERS = {"layertee.transfer.fetcher", "layertee.pulling.ingest", "layertee.pulling.pull"}
SIGNATURES = {"cryptography", "sigstore", "layertee.signatures"}  # 50 and more
OTHER_PLACES = {
    *("layertee.places.podman", "layertee.places.ostree", "layertee.places.composefs"),
    *("layertee.places.docker_archive", "layertee.places.oci_archive", "layertee.places.blobinfocache"),
}
SERVER = {"layertee.serve", "prometheus_client", "bcrypt"}
RARE = SERVER | {"rich", "yaml", "layertee.pulling.verify", "layertee.pulling.stream", "layertee.store.gc"}
NOT_TO_PULL = SIGNATURES | OTHER_PLACES | RARE | {"isal", "zstandard", "layertee.imageproxy"}
NO_STORE = {"sqlite3", "dataclasses", "tomllib", "layertee.engine", "layertee.options", "layertee.store"}

LIBRARY = "import layertee; layertee.Engine, layertee.Options, layertee.Store, layertee.Want, layertee.pull"
# How many times the CPU of importing the libraries that it cannot do without a command may take: 1.6 and 1.2
# when this was written.
MOST = {
    "--version": (2.2, "import argparse, logging, urllib.parse"),
    "pull": (1.4, "import aiohttp, argparse, sqlite3, uvloop"),
}

LEFT_OUT: dict[str, set[str]] = {
    "--version": HTTP | LOOP | LAYERS | TRANSFERS | NOT_TO_PULL | NO_STORE,
    "--help": HTTP | LOOP | LAYERS | TRANSFERS | NOT_TO_PULL | NO_STORE,
    "help": HTTP | LOOP | LAYERS | TRANSFERS | NOT_TO_PULL | NO_STORE,
    "ls": HTTP | LOOP | LAYERS | TRANSFERS | {"tomllib"} | (NOT_TO_PULL - {"layertee.store.gc"}),
    "doctor": HTTP
    | (LOOP - {"ssl"})  # whose version of OpenSSL it shows
    | TRANSFERS
    | SIGNATURES
    | {"rich", "isal", "zstandard", "layertee.imageproxy"}
    | SERVER,
    "inspect": LAYERS | TRANSFERS | NOT_TO_PULL,
    "pull": NOT_TO_PULL,  # of an image that is all here
    "pull oci:": HTTP | SIGNATURES | {"rich", "isal", "zstandard", "layertee.places.podman"},
    "library": HTTP
    | LAYERS
    | TRANSFERS
    | {"rich", "layertee.cli", "layertee.imageproxy"}
    | SERVER
    | SIGNATURES,
    "Initialize": HTTP | LAYERS | TRANSFERS | (NOT_TO_PULL - {"layertee.imageproxy", "layertee.store.gc"}),
}


def names_in(trace: str) -> set[str]:
    """The modules in what Python tells on standard error, with PYTHONPROFILEIMPORTTIME in the environment."""
    lines = trace.splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def among(imported: set[str], unwanted: Iterable[str]) -> set[str]:
    """Those of ``unwanted`` that were imported, or a module in them."""
    return {name for name in unwanted if any(f"{one}.".startswith(f"{name}.") for one in imported)}


@pytest.fixture(scope="module")
def image(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, BuiltImage]:
    """Its name at the registry, and it as a layout: 40 layers, as images of systems have them."""
    layers = [text_layer({f"file{n}": f"{n}\n" * 100}) for n in range(40)]
    built = build_image(tmp_path_factory.mktemp("forty"), layers, compression="gzip-fast")
    return upload(built, "start/forty:latest", registry), built


@pytest.fixture(scope="module")
def imported(image: tuple[str, BuiltImage], tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What each command imported."""
    user = Cli(tmp_path_factory.mktemp("home"))
    name, built = image
    user.pull(name)
    runs = {
        "--version": ("--version",),
        "--help": ("--help",),
        "help": ("help",),
        "ls": ("ls",),
        "doctor": ("doctor",),
        "inspect": ("inspect", PLAIN, name),
        "pull": ("pull", PLAIN, name),
        "pull oci:": ("pull", f"oci:{built.root}"),
    }
    found = {row: names_in(user.run(*words, PYTHONPROFILEIMPORTTIME="1").err) for row, words in runs.items()}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", LIBRARY],
        capture_output=True,
        text=True,
        env=user.environment(),
        check=True,
    )
    found["library"] = names_in(done.stderr)
    with layertee_proxy(user.store, PLAIN, PYTHONPROFILEIMPORTTIME="1") as proxy:
        proxy.value("Initialize")
        found["Initialize"] = names_in(proxy.stderr())
        proxy.open(f"docker://{name}")
        found["OpenImage"] = names_in(proxy.stderr())
    return found


@pytest.mark.parametrize("row", LEFT_OUT)
def test_a_command_imports_nothing_that_it_does_not_need(imported: dict[str, set[str]], row: str) -> None:
    assert "layertee" in imported[row]
    assert among(imported[row], LEFT_OUT[row]) == set()


def test_what_is_left_out_is_imported_where_it_is_needed(imported: dict[str, set[str]]) -> None:
    needed = HTTP | LOOP | TRANSFERS | {"layertee.core.pool"}
    assert among(imported["pull"], needed) == needed
    assert among(imported["OpenImage"], HTTP) == HTTP


def test_every_name_in_the_table_is_that_of_a_module() -> None:
    """A module that is renamed would be left out for ever."""
    ours = {name for row in LEFT_OUT.values() for name in row if name.startswith("layertee.")}
    missing = {name for name in ours if find_spec(name) is None}
    assert missing <= {"layertee.core._ctee"}, "it is built, and may not be"


def cpu_s(command: Sequence[str], environment: dict[str, str]) -> float:
    """CPU seconds of ``command``, which must end well."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.alone
@pytest.mark.parametrize("row", MOST)
def test_a_command_costs_little_beyond_its_libraries(
    image: tuple[str, BuiltImage], user: Cli, row: str
) -> None:
    user.pull(image[0])
    words = {"--version": ("--version",), "pull": ("pull", PLAIN, "--quiet", image[0])}[row]
    most, libraries = MOST[row]
    commands = (user.command(*words), [sys.executable, "-c", libraries])
    spent = [[cpu_s(command, user.environment()) for command in commands] for _ in range(6)]
    ours, theirs = (min(each) for each in zip(*spent, strict=True))
    sys.stdout.write(f"{row}: {ours:.3f} CPU-s; its libraries: {theirs:.3f}\n")
    assert ours < most * theirs
