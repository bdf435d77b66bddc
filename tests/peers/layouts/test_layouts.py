"""Image layouts that other tools made, and ours as other tools read them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from layertee.errors import NotFound
from layertee.image.holding import Form
from layertee.places.oci_layout import OCILayoutPlace
from layertee.store.layout import Layout
from layertee.store.store import Store
from tests.contract.place_suite import diff_ids
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, build_image, run_tool
from tests.support.rig.layers import empty_layer, incompressible_layer, text_layer
from tests.support.store import AMD64, pull

TOOLS = [tool for tool in ("skopeo", "umoci") if shutil.which(tool)]
needs_umoci = pytest.mark.skipif("umoci" not in TOOLS, reason="umoci is not installed")


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    layers = [text_layer({"a": "1"}), incompressible_layer(20_000), empty_layer(), text_layer({"b": "2"})]
    return build_image(tmp_path / "built", layers, annotations={"org.example": "kept"}, ref="first")


# --- ours, read by others -----------------------------------------------------------------------


@pytest.mark.parametrize("tool", TOOLS)
def test_other_tools_read_an_index_that_was_changed(image: BuiltImage, tool: str) -> None:
    layout = Layout.open(image.root)
    layout.set_entry("docker.io/library/x:1", layout.find("first"))
    layout.remove_entry("first")
    if tool == "skopeo":
        out = run_tool("skopeo", "inspect", "--raw", f"oci:{image.root}:docker.io/library/x:1")
        assert out.encode() == image.manifest
    else:
        assert run_tool("umoci", "ls", "--layout", str(image.root)).split() == ["docker.io/library/x:1"]


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("tool", TOOLS)
def test_other_tools_read_what_the_store_keeps(
    image: BuiltImage, tmp_path: Path, tool: str, form: Form
) -> None:
    root = tmp_path / "store"
    with Store.open(root) as store:
        pull(store, image.root, "first", "docker.io/x/y:1", form)
    if tool == "skopeo":
        target = tmp_path / "copied"
        run_tool("skopeo", "copy", "--quiet", f"oci:{root}:docker.io/x/y:1", f"dir:{target}")
        assert (target / image.config_digest[7:]).read_bytes() == image.config
    else:
        run_tool(
            "umoci", "raw", "unpack", "--rootless", "--image", f"{root}:docker.io/x/y:1", str(tmp_path / "u")
        )
        assert (tmp_path / "u" / "b").read_text() == "2"


# --- what others made ---------------------------------------------------------------------------


@needs_umoci
def test_a_layout_that_umoci_began_is_empty_and_takes_an_image(image: BuiltImage, tmp_path: Path) -> None:
    root = tmp_path / "begun"
    run_tool("umoci", "init", "--layout", str(root))
    assert json.loads((root / "index.json").read_bytes())["manifests"] is None, "else this tests nothing"
    assert Layout.open(root).refs() == []
    with pytest.raises(NotFound, match="no images"):
        Layout.open(root).resolve(None, AMD64)
    assert OCILayoutPlace(root, known=lambda _: None).find(diff_ids(image)) == {}
    with Store.open(root, private=False) as store:
        assert store.warnings == ()
        pull(store, image.root, "first", "taken")
    assert run_tool("umoci", "ls", "--layout", str(root)).split() == ["taken"]
    run_tool("umoci", "tag", "--image", f"{root}:taken", "again")
    assert Layout.open(root).refs() == ["taken", "again"]


@needs_umoci
def test_the_command_pulls_into_and_out_of_a_layout_of_umoci(image: BuiltImage, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    root = tmp_path / "begun"
    run_tool("umoci", "init", "--layout", str(root))
    empty = cli.run("inspect", f"oci:{root}", code=2)
    assert "no images" in empty.err
    ran = cli.run("pull", "--json", "--to", f"oci:{root}:taken", f"oci:{image.root}:first")
    assert ran.json["manifest_digest"] == image.digest
    ran = cli.run("pull", "--json", f"oci:{root}:taken")
    assert ran.json["manifest_digest"] == image.digest


@needs_umoci
def test_an_image_of_umoci_without_layers_is_an_image(tmp_path: Path) -> None:
    root = tmp_path / "begun"
    run_tool("umoci", "init", "--layout", str(root))
    run_tool("umoci", "new", "--image", f"{root}:empty")
    found = Layout.open(root).resolve("empty", AMD64)
    assert found.layers == ()
    with Store.open(tmp_path / "store") as store:
        pull(store, root, "empty", "localhost/empty:1")
        (kept,) = store.images.all()
        assert (kept.problem, kept.nbytes) == (None, 0)
