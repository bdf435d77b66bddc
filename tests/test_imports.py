"""The architecture, as a table that fails when it is not true.

Data flows reference → registry → plan → fetch → tee → sink → catalog. Imports point the other way, at
the vocabulary, and the stages do not know each other: ``pulling`` and ``engine`` hand one stage's
output to the next.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import layertee

PACKAGE = Path(layertee.__file__).parent

# Words: what a digest, an image, an error is. No I/O.
WORDS = {
    "errors": set(),
    "strictjson": {"errors"},
    "digests": {"errors", "strictjson"},
    "platforms": {"errors"},
    "oci": {"errors", "strictjson", "digests", "platforms"},
    "reference": {"errors", "oci", "storagename"},
    "storagename": {"errors"},
    "placename": {"errors", "reference", "storagename"},
    "ranges": {"errors"},
    "pacing": set(),
    "widening": set(),
    "threads": set(),
    "tasks": set(),
}
# The registry: who may be asked what, and told what.
REGISTRY = {
    "certs": set(),
    "origins": {"errors"},
    "statuses": {"errors", "strictjson"},
    "credentials": {"errors", "strictjson"},
    "receiving": {"errors"},
    "transport": {"errors", "receiving"},
    "auth": {"errors", "strictjson", "origins", "statuses", "credentials", "transport"},
    "exchange": {"errors", "oci", "reference", "origins", "statuses", "credentials", "auth", "transport"},
    "registry": {
        "errors",
        "strictjson",
        "oci",
        "reference",
        "statuses",
        "credentials",
        "exchange",
        "transport",
    },
}
# The core: bytes in, digests and bytes out.
CORE = {
    "tee": {"errors", "oci", "_ctee", "_tee_python"},
    "_tee_python": {"errors", "oci"},
    "pool": {"errors", "oci", "tee", "pool_c", "pool_threads"},
    "pool_c": {"pool", "tee"},
    "pool_threads": {"oci", "pool", "tee"},
}
# What brings bytes to the core: the network, a local file; and what hands them on to a caller.
FETCH = {
    "segment": {"errors", "pacing", "pool", "widening"},
    "transfer": {"errors", "oci", "pacing", "pool", "ranges", "segment"},
    "fetch": {"oci", "pool", "segment", "transfer", "widening"},
    "local": {"errors", "pool", "threads"},
    "localtar": {"inventory.readback", "pool", "threads"},
    "stream": {"errors", "pool", "tee"},
}
# The disk: one commit protocol, a layout that others can read, a map beside it.
STORE = {
    "sink": {"errors", "oci"},
    "locks": {"errors", "sink"},
    "space": {"sink"},
    "catalogfile": {"errors", "sink"},
    "catalog": {"errors", "oci", "tee", "locks", "catalogfile"},
    "layoutindex": {"errors", "oci"},
    "layout": {"errors", "oci", "sink", "locks", "layoutindex"},
    "localimage": {"errors", "oci", "inventory", "layout", "catalog"},
    "store": {
        *("errors", "oci", "tee", "inventory", "sink", "locks", "space"),
        *("catalog", "layout", "layoutindex", "localimage"),
    },
    "gc": {"errors", "oci", "sink", "locks", "layout", "layoutindex", "store"},
}
# What is here already, and what follows from it.
PLAN = {
    "inventory": {"oci"},
    "inventory.own": {"errors", "oci", "inventory", "store"},
    "inventory.oci_layout": {"errors", "oci", "inventory", "layout"},
    "inventory.oci_archive": {
        *("errors", "strictjson", "oci", "local", "sink", "layout", "inventory", "inventory.oci_layout"),
        *("inventory.readback", "inventory.tarindex"),
    },
    "inventory.tarindex": set(),
    "inventory.readback": {"inventory"},
    "inventory.attested": {"oci", "inventory"},
    "inventory.blobinfocache": {"errors", "oci", "inventory", "inventory.attested"},
    "inventory.composefs": {"oci", "inventory"},
    "inventory.beneath": {"strictjson", "local", "sink"},
    "inventory.tarsplit": {"local"},
    "inventory.layerreader": {"local", "sink", "inventory.beneath", "inventory.tarsplit"},
    "inventory.storageconf": {"errors", "storagename", "inventory.layerreader"},
    "inventory.storagerecords": {"errors", "oci"},
    "inventory.containers_storage": {
        *("errors", "strictjson", "oci", "storagename", "local", "inventory", "inventory.beneath"),
        *("inventory.layerreader", "inventory.readback", "inventory.storageconf", "inventory.storagerecords"),
    },
    "inventory.gvariant": {"errors"},
    "inventory.ostreenames": {"digests"},
    "inventory.ostreeimages": {"oci"},
    "inventory.ostreerepo": {"errors", "sink", "inventory.gvariant"},
    "prepared": {"errors", "strictjson", "oci", "sink", "inventory", "inventory.ostreenames"},
    "inventory.ostree": {
        *("errors", "oci", "prepared", "inventory", "inventory.ostreeimages", "inventory.ostreenames"),
        "inventory.ostreerepo",
    },
    "plan": {"errors", "oci", "inventory"},
    "report": {"oci", "inventory", "plan"},
}
# Where the stages are joined, and nowhere else.
JOIN = {
    "imageplan": {"oci", "fetch", "inventory", "plan", "report"},
    "ingest": {
        *("errors", "oci", "tee", "pool", "fetch", "local", "localtar", "sink", "locks", "space", "store"),
        *("inventory", "inventory.readback", "plan", "imageplan", "report", "tasks", "threads"),
    },
    "pulling": {
        *("oci", "pool", "fetch", "locks", "store", "localimage", "inventory", "plan", "imageplan", "ingest"),
        *("report", "tasks", "threads"),
    },
    "verify": {"threads", "errors", "oci", "tee", "pool", "local", "store", "ingest", "tasks"},
    "policyfile": {"errors", "strictjson"},
    "policy": {"errors", "strictjson", "reference", "storagename", "policyfile"},
    "options": {"oci", "fetch", "inventory", "placename"},
    "sources": {
        *("errors", "oci", "reference", "storagename", "placename", "certs", "credentials", "transport"),
        *("registry", "fetch", "layout", "options", "threads"),
        *("inventory", "inventory.blobinfocache", "inventory.composefs", "inventory.containers_storage"),
        *("inventory.oci_archive", "inventory.oci_layout", "inventory.ostree"),
    },
    "present": {
        *("errors", "oci", "storagename", "placename", "store", "sources"),
        *("inventory", "inventory.attested", "inventory.blobinfocache", "inventory.own"),
    },
    "engine": {
        *("errors", "oci", "reference", "transport", "tee", "pool", "fetch", "local", "localtar", "stream"),
        *("store", "inventory", "inventory.attested", "inventory.readback", "options", "sources", "present"),
        *("plan", "imageplan", "ingest", "report", "pulling", "verify", "tasks", "threads", "__init__"),
    },
    "refwriter": {
        *("errors", "oci", "sink", "locks", "prepared"),
        *("inventory.ostree", "inventory.ostreenames", "inventory.ostreerepo"),
    },
    "prepare": {
        *("errors", "oci", "plan", "prepared", "refwriter", "inventory"),
        *("inventory.ostree", "inventory.ostreeimages", "inventory.ostreerepo"),
    },
    "sync": {"engine", "plan", "report", "store"},
}
# For programs that speak the image-proxy protocol: an engine behind a socket.
PROXY = {
    "proxy": set(),
    "proxy.wire": set(),
    "proxy.server": {"errors", "proxy.wire"},
    "proxy.prefetch": {"errors", "oci", "locks", "store", "inventory", "plan", "report", "ingest"},
    "proxy.cache": {"errors", "oci", "space", "store", "gc"},
    "proxy.documents": {"errors", "oci", "inventory", "layout", "localimage", "store", "engine"},
    "proxy.images": {
        *("errors", "oci", "reference", "storagename", "placename", "local", "inventory", "plan", "present"),
        *("engine", "threads", "proxy", "proxy.documents", "proxy.prefetch", "proxy.server", "proxy.wire"),
    },
    "proxy.delegate": {"errors", "proxy.wire"},
    "proxy.realskopeo": {
        *("errors", "strictjson", "oci", "platforms", "reference", "storagename", "policy", "shim", "sink"),
        "threads",
    },
    "proxy.judge": {"errors", "reference", "platforms", "policy", "engine", "threads", "proxy.realskopeo"},
    "proxy.session": {
        *("errors", "reference", "storagename", "policy", "engine", "threads", "proxy.cache"),
        *("proxy.delegate", "proxy.images", "proxy.judge", "proxy.server", "proxy.wire"),
    },
}
# For people.
FRONT = {
    "console": {"plan", "report", "space"},
    "preparecmd": {
        *("cli", "commands", "sync", "engine", "errors", "oci", "reference", "inventory", "prepare"),
        *("space", "store", "printing"),
    },
    "printing": set(),
    "proxyargs": set(),
    "arguments": {"__init__", "proxyargs"},
    "shim": {"errors", "sink"},
    "shimcmd": {"cli", "errors", "policy", "printing", "shim", "proxy.realskopeo"},
    "proxycmd": {
        *("cli", "sync", "engine", "errors", "options", "placename", "platforms", "sources"),
        *("proxy.cache", "proxy.delegate", "proxy.images", "proxy.judge", "proxy.realskopeo", "proxy.server"),
        *("proxy.session", "proxy.wire"),
    },
    "cli": {
        *("arguments", "commands", "preparecmd", "proxyargs", "proxycmd", "shimcmd", "errors", "fetch"),
        *("inventory", "options", "placename"),
        "platforms",
    },
    "commands": {
        *("cli", "console", "sync", "engine", "errors", "oci", "reference", "tee", "plan", "report"),
        *("imageplan", "verify", "store", "space", "gc", "printing", "shimcmd"),
    },
    "__main__": {"cli"},
    "__init__": {
        *("engine", "errors", "fetch", "imageplan", "inventory", "oci", "plan", "report", "store", "stream"),
        *("sync", "tee"),
    },
}
ALLOWED = WORDS | REGISTRY | CORE | FETCH | STORE | PLAN | JOIN | PROXY | FRONT

# Who alone may import what. Anything else outside the standard library is nobody's.
FOREIGN = {
    "aiohttp": {"transport"},
    "yarl": {"transport"},
    "uvloop": {"sync"},
    "rich": {"console"},
    "isal": {"_tee_python"},
    "zstandard": {"_tee_python"},
    "sqlite3": {"catalog", "catalogfile", "inventory.blobinfocache"},
    "ssl": {"transport"},
    "argparse": {"arguments", "cli", "commands", "preparecmd", "proxyargs", "proxycmd", "shimcmd"},
    "subprocess": set(),
}
MODULES = sorted(p for p in PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each import: its name, and whether it is one of ours."""
    is_package = path.name == "__init__.py"
    here = name_of(path).split(".") if name_of(path) != "__init__" else []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            yield node.module.split(".")[0], False
        elif isinstance(node, ast.ImportFrom):
            up = node.level - 1 if is_package and here else node.level
            base = here[: len(here) - up] if here else []
            if node.module:
                yield ".".join([*base, node.module]), True
            else:
                for alias in node.names:
                    target = PACKAGE.joinpath(*base, alias.name)
                    found = (
                        target.with_suffix(".py").exists() or target.is_dir() or alias.name.startswith("_c")
                    )
                    yield ".".join([*base, alias.name]) if found else ".".join(base) or "__init__", True


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_only_what_the_table_allows(path: Path) -> None:
    ours = {name for name, own in imports(path) if own}
    assert ours <= ALLOWED[name_of(path)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_foreign_libraries_have_one_home_each(path: Path) -> None:
    for name, own in imports(path):
        if not own and name in FOREIGN:
            assert name_of(path) in FOREIGN[name], f"{name} is not for {name_of(path)}"


def test_the_table_has_no_row_for_a_module_that_is_gone() -> None:
    assert set(ALLOWED) == {name_of(path) for path in MODULES}


def test_stages_do_not_import_each_other() -> None:
    for one, others in (
        ("registry", FETCH | STORE | PLAN),
        ("fetch", REGISTRY | STORE | PLAN),
        ("plan", REGISTRY | CORE | FETCH | STORE),
        ("sink", REGISTRY | CORE | FETCH | PLAN),
    ):
        assert not ALLOWED[one] & set(others)


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 500, name_of(path)
