"""The importer that bootc has, ostree-ext, at every place that is served: all give the same system."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.process import Cli
from tests.support.rig import prebuild
from tests.support.rig.images import BuiltImage
from tests.support.rig.ostree import IMAGES, OSTreeRig, layer_ref
from tests.support.rig.ostreeclient import OSTreeClient, small_os
from tests.support.rig.registry import RegistryServer
from tests.support.served import NAME, PLACES, REPOSITORY, TAG, Shop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.builds("ostreeclient"),
    pytest.mark.needs_root("ostree imports as root"),
]
PATH = "/usr/bin:/bin"


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return prebuild.program("ostreeclient")
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="module")
def system(program: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    work = tmp_path_factory.mktemp("system")
    return small_os(program, work / "layout", NAME, work)


@pytest.fixture(scope="module", params=PLACES)
def shop(
    request: pytest.FixtureRequest,
    system: BuiltImage,
    registry: RegistryServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    work = tmp_path_factory.mktemp("server")
    with ExitStack() as stack:
        server = PLACES[request.param](system, registry, work, stack)
        yield Shop(stack.enter_context(server), system)


@pytest.fixture(scope="module")
def installed(program: Path, system: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tree that the importer makes of the layout itself, without any server."""
    work = tmp_path_factory.mktemp("installed")
    repo = OSTreeRig.create(work / "repo")
    pulled = OSTreeClient(program, PATH, work).pull(repo, system.skopeo_name)
    assert pulled.code == 0, pulled.err
    return tree(repo)


def tree(repo: OSTreeRig) -> str:
    """The checksum of the only image's files."""
    (ref,) = (ref for ref in repo.refs() if ref.startswith(f"{IMAGES}/"))
    return repo.run("ls", "-dC", ref, "/").split()[4]


@pytest.mark.parametrize("by", ["shim", "plain"])
def test_the_system_is_the_same(shop: Shop, installed: str, program: Path, tmp_path: Path, by: str) -> None:
    repo = OSTreeRig.create(tmp_path / "repo")
    path = PATH
    if by == "shim":
        path = f"{tmp_path}/bin:{PATH}"
        options = ("--store", tmp_path / "store", "--client-repo", repo.root)
        Cli(tmp_path).run("install-shim", tmp_path / "bin", "--", *options)
    name = f"docker://{shop.server.host}/{REPOSITORY}:{TAG}"
    layers = [layer["digest"] for layer in json.loads(shop.manifest)["layers"]]
    shop.server.reset()
    pulled = OSTreeClient(program, path, tmp_path).pull(repo, name)
    assert pulled.layers[:2] == (0, len(layers)), pulled.err
    assert tree(repo) == installed
    asked = {access.reference for access in shop.server.accesses() if access.kind == "blob"}
    assert set(layers) <= asked
    if by == "plain":  # which knows only the manifest that is there for everybody
        assert {layer_ref(digest) for digest in layers} <= set(repo.refs())
    repo.check()
