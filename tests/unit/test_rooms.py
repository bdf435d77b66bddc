"""The architecture, as a table that fails when it is not true: which room may import which.

A room is a folder of ``engine/layertee``, or a module beside the folders. Imports count wherever they stand
in a file, also inside functions and under TYPE_CHECKING: an arrow that is drawn late is an arrow.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import layertee

PACKAGE = Path(layertee.__file__).parent
WORDS = {"errors", "aio", "backoff", "version", "record"}  # for every room
# In the order in which a reader meets them; each row names rooms of earlier rows only.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "aio": set(),
    "backoff": set(),
    "version": set(),
    "record": set(),
    "image": set(),
    "config": {"image"},
    "disk": {"image"},
    "core": {"image"},
    "registry": {"image", "config"},
    "signatures": {"image", "config", "disk", "registry"},
    "transfer": {"image", "core"},
    "store": {"image", "config", "disk", "core"},
    "places": {"image", "config", "disk", "core", "store"},
    "skopeo": {"image", "config", "disk"},
    "sandbox": set(),
    "options": {"image", "config", "disk", "transfer"},
    "pulling": {
        *("image", "config", "disk", "core", "registry", "signatures", "transfer", "store", "places"),
        *("skopeo", "options"),
    },
    "engine": {"image", "disk", "core", "transfer", "store", "options", "pulling"},
    "sync": {"image", "disk", "store", "pulling", "engine"},
    "imageproxy": {"image", "disk", "core", "store", "signatures", "pulling", "engine"},
    "serve": {"image", "config", "disk", "core", "store", "places"},
    "__init__": {
        *("image", "config", "disk", "core", "signatures", "transfer", "store", "options", "pulling"),
        *("engine", "sync"),
    },
    "cli": {
        *(
            "image",
            "config",
            "disk",
            "core",
            "registry",
            "signatures",
            "transfer",
            "store",
            "places",
            "skopeo",
            "options",
            "pulling",
        ),
        *("engine", "sync", "imageproxy", "serve", "sandbox"),
    },
    "__main__": {"cli"},
}
# Libraries, and parts of the standard library that decide something, have one home each.
HOMES: dict[str, set[str]] = {
    "aiohttp": {
        "registry.http",
        "registry.failures",
        "registry.heads",
        "registry.peers",
        "registry.first_import",
        "serve.http",
    },
    "aiohttp_socks": {"registry.socks"},
    "cryptography": {
        "signatures.keys.publickeys",
        "signatures.keys.certificates",
        "signatures.keys.signers",
        "signatures.keys.rekor",
        "signatures.trust.attached",
        "signatures.trust.bundlekeys",
        "signatures.trust.claims",
        "signatures.trust.keyless",
        "signatures.trust.timestamps",
        "signatures.trust.transparency",
    },
    "sigstore": {"signatures.trust.keyless", "signatures.trust.material"},
    "platformdirs": {"signatures.trust.material"},
    "rfc3161_client": {"signatures.trust.timestamps"},
    "multidict": {"registry.http"},
    "yarl": {"registry.http"},
    "ssl": {
        *("registry.http", "registry.tls", "registry.failures", "registry.first_import", "serve.tls"),
        "cli.libraries",  # its version
        "options",  # for type checkers
    },
    "uvloop": {"sync"},
    "bcrypt": {"serve.access"},
    "prometheus_client": {"cli.metrics", "serve.metrics"},
    "ctypes": {"sandbox.kernel"},
    "cffi": set(),  # the extension brings its own
    "isal": {"core.tee_python"},
    "zstandard": {"core.tee_python"},
    "sqlite3": {"disk.database", "store.catalog", "store.catalog_file", "places.blobinfocache"},
    "argparse": {"cli"},
    "rich": {"cli.progress"},
    "subprocess": set(),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """``registry.http`` for ``registry/http.py``, ``registry`` for its ``__init__``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def room_of(name: str) -> str:
    return name.partition(".")[0]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """What each import statement names, from the package's root for ours, and whether it is ours."""
    folder = list(path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            yield node.module, False
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - (node.level - 1)]
            if node.module or base:
                yield ".".join([*base, *([node.module] if node.module else [])]), True
            else:
                yield from ((alias.name, True) for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    room = room_of(name_of(path))
    ours = {room_of(name) for name, own in imports(path) if own}
    assert ours <= ROOMS[room] | WORDS | {room}


def test_the_table_has_one_row_for_each_room_and_no_arrow_points_up() -> None:
    assert set(ROOMS) == {room_of(name_of(path)) for path in MODULES}
    earlier: set[str] = set()
    for room, allowed in ROOMS.items():
        assert allowed <= earlier
        earlier.add(room)


def test_every_arrow_of_the_table_is_used() -> None:
    used = {(room_of(name_of(path)), room_of(name)) for path in MODULES for name, own in imports(path) if own}
    assert {(room, other) for room, allowed in ROOMS.items() for other in allowed} <= used


def test_modules_of_a_room_do_not_go_in_circles() -> None:
    arrows: dict[str, set[str]] = {}
    names = {name_of(path) for path in MODULES}
    for path in MODULES:
        ours = {name for name, own in imports(path) if own and name in names}
        arrows[name_of(path)] = ours - {name_of(path)}
    while leaves := {name for name, targets in arrows.items() if not targets}:
        arrows = {name: targets - leaves for name, targets in arrows.items() if name not in leaves}
    assert arrows == {}, "imports go in a circle"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_foreign_libraries_have_one_home_each(path: Path) -> None:
    name = name_of(path)
    for imported, own in imports(path):
        homes = HOMES.get(imported.partition(".")[0])
        if not own and homes is not None:
            assert name in homes or room_of(name) in homes, f"{imported} is not for {name}"


def test_there_are_few_modules_beside_the_rooms() -> None:
    beside = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(beside) <= 8


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 500, name_of(path)


# --- tests and benchmarks -------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
# What the files of a folder may import of tests and bench, by names of packages.
MAY_IMPORT = {
    "bench": ("bench", "tests.support"),
    "tests/support": ("tests.support",),
    "tests/torture": ("tests.support", "tests.torture"),
    "tests": ("tests.support", "tests.contract", "tests.fuzz", "tests.torture"),
}


def imports_of_tests(folder: str) -> Iterator[tuple[str, str]]:
    """Where an import of something in tests or bench stands, and its full name."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        where = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((where, name) for name in names if name.split(".")[0] in ("tests", "bench"))


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_tests_share_what_is_in_support_and_know_nothing_of_benchmarks(folder: str) -> None:
    wrong = {
        (where, name)
        for where, name in imports_of_tests(folder)
        if not any(name.startswith(f"{allowed}.") for allowed in MAY_IMPORT[folder])
    }
    assert wrong == set()


@pytest.mark.parametrize("folder", ["tests", "bench"])
def test_no_test_imports_from_a_test_or_what_a_module_keeps_to_itself(folder: str) -> None:
    found = set(imports_of_tests(folder))
    assert found
    for where, name in found:
        parts = [part for part in name.split(".") if part != "__main__"]
        assert not any(part.startswith(("test_", "_")) for part in parts), f"{name} in {where}"
