"""Images that skopeo has signed, with its signatures where skopeo has put them."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from layertee.config.registries_d import SignatureConfig, SignaturePlaces
from layertee.config.requirements import Identity, IdentityKind, Material, SignedBy
from layertee.errors import PolicyRefused
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.registry.http import Transport
from layertee.signatures.openpgp.simple import verify_signed_by
from layertee.signatures.signature import Signature, SignatureSource, Subject, Verified
from layertee.signatures.stores import DirectorySignatures, LookasideSignatures
from layertee.sync import run
from tests.support.openpgp import Signer, signer
from tests.support.rig.images import BuiltImage, BuiltIndex, build_image, build_index, run_tool
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Rig:
    """A key, and a lookaside directory that skopeo writes to."""

    signer: Signer
    key: Path
    lookaside: Path
    registries_d: Path

    def copy(self, *words: str) -> None:
        """``skopeo copy``, with the signatures that there are."""
        run_tool(
            *("env", f"GNUPGHOME={self.signer.home}", "skopeo", "--registries.d", str(self.registries_d)),
            *("--insecure-policy", "copy", "--quiet", "--preserve-digests", *words),
        )

    def push(
        self, image: BuiltImage | BuiltIndex, server: RegistryServer, name: str, *words: str
    ) -> Reference:
        """Push and sign ``image`` as ``name``."""
        whole = f"docker://{server.host}/{name}"
        key = self.signer.fingerprints("key")[0]
        self.copy(*words, "--sign-by", key, *server.skopeo_options("dest"), image.skopeo_name, whole)
        found = parse_reference(whole)
        assert isinstance(found, Reference)
        return found

    def check(self, source: SignatureSource, raw: bytes, name: Reference) -> Verified:
        """What is verified of the manifest ``raw`` with the signatures that ``source`` has."""

        async def main() -> Verified:
            digest = Digest.of(raw)
            wanted = SignedBy("GPGKeys", Material((self.key,)), Identity(IdentityKind.MATCH_EXACT))
            return await verify_signed_by(wanted, Subject(raw, digest, name), await source.signatures(digest))

        return run(main())


@dataclass(frozen=True)
class Lookaside:
    """A source with a transport for each question."""

    name: Reference
    places: SignaturePlaces

    async def signatures(self, digest: Digest) -> list[Signature]:
        transport = Transport(user_agent="test")
        try:
            return await LookasideSignatures(transport, self.name, self.places).signatures(digest)
        finally:
            await transport.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    root = tmp_path_factory.mktemp("signed")
    key, lookaside, registries_d = root / "key.gpg", root / "look aside", root / "registries.d"
    lookaside.mkdir()
    registries_d.mkdir()
    where = lookaside.as_uri()
    config = {"default-docker": {"lookaside": where, "lookaside-staging": where}}
    (registries_d / "all.yaml").write_text(json.dumps(config))
    with signer() as home:
        home.key("key")
        key.write_bytes(home.public("key", armor=True))
        yield Rig(home, key, lookaside, registries_d)


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    return build_image(tmp_path / "image", [text_layer({"a": "signed"})])


def test_a_signature_in_a_lookaside_directory_is_found_and_holds(
    rig: Rig, registry: RegistryServer, image: BuiltImage
) -> None:
    name = rig.push(image, registry, "simple/files:1")
    source = Lookaside(name, SignatureConfig.read(rig.registries_d).places(name))
    verified = rig.check(source, image.manifest, name)
    assert verified.signed == image.digest
    assert verified.signed_name == str(name)
    assert verified.key == rig.signer.fingerprints("key")[0]
    assert Path(verified.place).is_relative_to(rig.lookaside)
    other = parse_reference(f"docker://{name.name}:2")
    assert isinstance(other, Reference)
    with pytest.raises(PolicyRefused, match="which matchExact refuses"):
        rig.check(source, image.manifest, other)
    with pytest.raises(PolicyRefused, match="there is none"):
        rig.check(source, b"other", name)


class Quiet(SimpleHTTPRequestHandler):
    """It does not write about every request."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_a_signature_on_a_web_server_is_found_and_holds(
    rig: Rig, registry: RegistryServer, image: BuiltImage
) -> None:
    name = rig.push(image, registry, "simple/web:1")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=rig.lookaside)) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            where = f"http://127.0.0.1:{server.server_address[1]}"
            source = Lookaside(name, SignaturePlaces(where, None, False, None))
            verified = rig.check(source, image.manifest, name)
        finally:
            server.shutdown()
            serving.join()
    assert verified.signed == image.digest
    assert verified.place.startswith(f"{where}/simple/web@")


def test_each_manifest_of_an_index_has_its_own(rig: Rig, registry: RegistryServer, tmp_path: Path) -> None:
    platforms = ("linux/amd64", "linux/arm64/v8")
    images = [
        build_image(tmp_path / name.replace("/", "-"), [text_layer({"a": name})], platform=name)
        for name in platforms
    ]
    index = build_index(tmp_path / "index", images)
    name = rig.push(index, registry, "simple/index:1", "--all")
    copied = tmp_path / "copied"
    rig.copy("--all", *registry.skopeo_options("src"), f"docker://{name}", f"dir:{copied}")
    source = DirectorySignatures(copied, Digest.of(index.raw))
    for raw in (index.raw, *(each.manifest for each in images)):
        assert rig.check(source, raw, name).signed == Digest.of(raw)
    with pytest.raises(PolicyRefused, match="there is none"):
        rig.check(source, b"other", name)
