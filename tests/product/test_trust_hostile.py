"""Registries that swap signatures, offer thousands of them, or stall: no layer is asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.image.document import Digest
from layertee.image.media import OCI_INDEX, OCI_MANIFEST
from tests.support.bundlekit import BUNDLE_TYPE, Sigstore, statement
from tests.support.fakes.catalogue import CATALOGUE
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer
from tests.support.sigstorekit import new_key, public_pem

pytestmark = pytest.mark.slow

KEY = new_key()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("hostile"), [text_layer({"first": "first"})])


class Hostile:
    """A registry whose signatures are what a test wants, and a machine that asks for them."""

    def __init__(self, server: FaultServer, image: BuiltImage, directory: Path) -> None:
        self.server = server
        self.image = image
        self.tag = image.digest.replace(":", "-")
        self.bundle = Sigstore().by_key(KEY, statement(image.digest), logged=False)
        (directory / "k.pub").write_bytes(public_pem(KEY))
        (directory / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        trust = f'[scope."{server.host}"]\ntransparency-log = false\nsigner = [{{key = "k.pub"}}]\n'
        (directory / "trust.toml").write_text(trust)
        policy = ("--policy", str(directory / "policy.json"))
        self.options = [PLAIN, *policy, "--trust-file", str(directory / "trust.toml")]

    def artifact(self, bundle: bytes, named: bytes, name: str = "artifact") -> str:
        """An artifact whose manifest names the bytes ``named``, in whose place ``bundle`` is; its digest.

        ``name``: what else it is served as.
        """
        digest = str(Digest.of(named))
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": BUNDLE_TYPE,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": 2},
            "layers": [{"mediaType": BUNDLE_TYPE, "digest": digest, "size": len(named)}],
            "subject": {"mediaType": OCI_MANIFEST, "digest": self.image.digest, "size": 1},
        }
        raw = json.dumps(document).encode()
        self.server.put(raw, OCI_MANIFEST, "rig/image", name, {digest: bundle})
        return str(Digest.of(raw))

    def list(self, *digests: str) -> None:
        """What refers to the image."""
        entries = [
            {"mediaType": OCI_MANIFEST, "artifactType": BUNDLE_TYPE, "digest": digest, "size": 900}
            for digest in digests
        ]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        self.server.put(json.dumps(index).encode(), OCI_INDEX, "rig/image", self.tag, {})

    def refused(self, user: Cli, code: int, *options: str) -> str:
        """What a pull says; no layer may be asked for."""
        said = user.run("pull", *options, *self.options, self.server.reference, code=code).err
        self.server.settle()
        assert [self.server.requests("blob", layer.digest) for layer in self.image.layers] == [[]]
        return said


@pytest.fixture
def hostile(image: BuiltImage, tmp_path: Path) -> Iterator[Hostile]:
    with FaultServer(image) as server:
        yield Hostile(server, image, tmp_path)


def test_an_honest_one_is_believed(user: Cli, hostile: Hostile) -> None:
    hostile.list(hostile.artifact(hostile.bundle, hostile.bundle))
    user.run("pull", *hostile.options, hostile.server.reference)


def test_a_bundle_that_was_swapped_is_refused(user: Cli, hostile: Hostile) -> None:
    other = hostile.bundle.replace(b"sig", b"sag")
    hostile.list(hostile.artifact(hostile.bundle, other))
    assert "[DIGEST_MISMATCH]" in hostile.refused(user, 3)


def test_an_artifact_that_was_swapped_is_refused(user: Cli, hostile: Hostile) -> None:
    listed = str(Digest.of(b"another artifact"))
    hostile.artifact(hostile.bundle, hostile.bundle, listed)
    hostile.list(listed)
    assert "[DIGEST_MISMATCH]" in hostile.refused(user, 3)


def test_ten_thousand_are_refused_without_a_look(user: Cli, hostile: Hostile) -> None:
    hostile.list(*(str(Digest.of(str(n).encode())) for n in range(10_000)))
    begin = time.monotonic()
    assert "more than 1024 artifacts" in hostile.refused(user, 1)
    assert time.monotonic() - begin < 60
    assert len(hostile.server.requests("manifest")) < 10


@pytest.mark.parametrize("where", ["list", "bundle"])
def test_a_deadline_holds_while_signatures_are_looked_for(user: Cli, hostile: Hostile, where: str) -> None:
    hostile.list(hostile.artifact(hostile.bundle, hostile.bundle))
    stall = CATALOGUE["stall-after-head"]
    rule = (
        on("manifest", stall, reference=hostile.tag)
        if where == "list"
        else on("blob", stall, reference=str(Digest.of(hostile.bundle)))
    )
    hostile.server.script([rule])
    begin = time.monotonic()
    # Without one, the limit of a minute for all signatures holds: tests/unit/signatures/test_referrers.py
    assert "[DEADLINE]" in hostile.refused(user, 4, "--deadline", "2s")
    assert time.monotonic() - begin < 30
