"""What registries may give as the signatures of an image, beside the newest containers/image.

That asks the same registry; where it does not take the image, it is not taken here.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from layertee import Engine, Options
from layertee.errors import LayerteeError
from layertee.image.digest import Digest
from layertee.options import PolicyOptions
from layertee.signatures.signature import Attachment
from layertee.sync import run
from tests.support import sigstorekit as kit
from tests.support.fakes.fault_server import FaultServer, Rule, on
from tests.support.fakes.faults import ContentEncoding, Header, OtherBody, Replace
from tests.support.fakes.refusals import Status
from tests.support.imagepolicy import ImagePolicy, imagepolicy
from tests.support.openpgp import Signer, payload, signer
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer
from tests.support.rig.prebuild import NotBuilt, program

pytestmark = [pytest.mark.slow, pytest.mark.builds("imagepolicy")]

KEY, OTHER = kit.new_key(), kit.new_key()
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Rig:
    """An image in a registry, a key of GnuPG, and the judge."""

    server: FaultServer
    image: BuiltImage
    gpg: Signer
    peer: ImagePolicy
    root: Path

    @property
    def lookaside(self) -> Path:
        return self.root / "lookaside"

    @property
    def registries_d(self) -> Path:
        return self.root / "registries.d"

    def name(self, repository: str) -> str:
        return f"{self.server.host}/{repository}:1"

    def here(self, policy: dict[str, Any], name: str, store: Path) -> str | None:
        """Why it is not taken; None if it is."""
        file = self.root / "policy.json"
        file.write_text(json.dumps(policy))
        options = Options(tls_verify=False, policy=PolicyOptions(file=file, registries_d=self.registries_d))

        async def planned() -> None:
            async with Engine(store, options=options) as engine:
                await engine.plan(name)

        try:
            run(planned())
        except LayerteeError as exc:
            return str(exc)
        return None


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    try:
        there = program("imagepolicy")
    except NotBuilt as exc:
        pytest.skip(str(exc))
    root = tmp_path_factory.mktemp("beside")
    image = build_image(root / "image", [text_layer({"a": "a"})])
    with signer() as gpg, FaultServer(image) as server, imagepolicy(there) as peer:
        gpg.key("key")
        found = Rig(server, image, gpg, peer, root)
        found.lookaside.mkdir()
        found.registries_d.mkdir()
        everywhere = {"lookaside": found.lookaside.as_uri(), "use-sigstore-attachments": True}
        (found.registries_d / "all.yaml").write_text(json.dumps({"default-docker": everywhere}))
        yield found


@dataclass
class Beside:
    """What is beside the image in a case, to begin with as cosign puts it there."""

    raw: bytes
    blobs: dict[str, bytes]
    media_type: str = kit.OCI_MANIFEST
    tag: str | None = ""
    rules: tuple[Rule, ...] = ()

    def edit(self, **changes: Any) -> None:
        """Other keys of the manifest; None leaves one out."""
        document = json.loads(self.raw) | changes
        self.raw = json.dumps({key: value for key, value in document.items() if value is not None}).encode()

    def layer(self, **changes: Any) -> None:
        """The same for its first layer."""
        layers = json.loads(self.raw)["layers"]
        layers[0] = {key: value for key, value in (layers[0] | changes).items() if value is not None}
        self.edit(layers=layers)

    def replace(self, old: bytes, new: bytes) -> None:
        assert old in self.raw
        self.raw = self.raw.replace(old, new, 1)

    @property
    def payload_digest(self) -> str:
        return str(json.loads(self.raw)["layers"][0]["digest"])

    def answer(self, behaviour: Any) -> None:
        """To the question for the manifest."""
        self.rules += (on("manifest", behaviour, reference=self.tag),)

    def blob(self, behaviour: Any) -> None:
        """To the question for the payload."""
        self.rules += (on("blob", behaviour, reference=self.payload_digest),)


def _error(code: str, status: int = 404) -> Status:
    body = json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
    return Status(status, (("Content-Type", "application/json"),), body)


def _larger(beside: Beside) -> None:
    content = b" " * (5 << 20)
    digest = str(Digest.of(content))
    beside.blobs[digest] = content
    beside.layer(digest=digest, size=len(content))


def _not_its_bytes(beside: Beside) -> None:
    beside.blobs[beside.payload_digest] += b" "


CASES: dict[str, Callable[[Beside], None]] = {
    "as it should be": lambda one: None,
    "nothing": lambda one: setattr(one, "tag", None),
    # the manifest
    "no media type inside": lambda one: one.edit(mediaType=None),
    "another media type inside": lambda one: one.edit(mediaType=DOCKER),
    "an index inside": lambda one: one.edit(mediaType=INDEX),
    "a manifest and an index": lambda one: one.edit(manifests=[]),
    "schema 1": lambda one: one.edit(schemaVersion=1),
    "no schema": lambda one: one.edit(schemaVersion=None),
    "no config": lambda one: one.edit(config=None),
    "a config of another type": lambda one: one.edit(
        config={"mediaType": "x/y", "digest": str(Digest.of(b"{}")), "size": 2}
    ),
    "no layers": lambda one: one.edit(layers=[]),
    "layers left out": lambda one: one.edit(layers=None),
    "layers are no list": lambda one: one.edit(layers={}),
    "a subject": lambda one: one.edit(
        subject={"mediaType": kit.OCI_MANIFEST, "digest": str(Digest.of(b"{}")), "size": 2}
    ),
    "an artifact": lambda one: one.edit(artifactType="x/y"),
    "keys that nobody knows": lambda one: one.edit(more=1),
    "keys twice": lambda one: one.replace(b'"layers"', b'"layers": [], "layers"'),
    "keys in capitals": lambda one: one.replace(b'"layers"', b'"Layers"'),
    "no JSON": lambda one: setattr(one, "raw", b"{"),
    "more after it": lambda one: setattr(one, "raw", one.raw + b"{}"),
    "spaces after it": lambda one: setattr(one, "raw", one.raw + b"\n"),
    "as Docker's": lambda one: setattr(one, "media_type", DOCKER),
    "as an index": lambda one: setattr(one, "media_type", INDEX),
    "as JSON": lambda one: setattr(one, "media_type", "application/json"),
    "with a parameter": lambda one: setattr(one, "media_type", f"{kit.OCI_MANIFEST}; charset=utf-8"),
    "in capitals": lambda one: setattr(one, "media_type", kit.OCI_MANIFEST.upper()),
    # the layer
    "no annotations": lambda one: one.layer(annotations=None),
    "annotations are text": lambda one: one.layer(annotations="x"),
    "an annotation is null": lambda one: one.layer(annotations={kit.SIGNATURE: None}),
    "an annotation is a number": lambda one: one.layer(annotations={kit.SIGNATURE: 7}),
    "another type of layer": lambda one: one.layer(mediaType=kit.OCI_CONFIG),
    "no type of layer": lambda one: one.layer(mediaType=None),
    "a type in capitals": lambda one: one.layer(mediaType=kit.SIMPLE_SIGNING.upper()),
    "no size": lambda one: one.layer(size=None),
    "size 0": lambda one: one.layer(size=0),
    "size -1": lambda one: one.layer(size=-1),
    "a size too small": lambda one: one.layer(size=5),
    "a size too large": lambda one: one.layer(size=5000),
    "a size as text": lambda one: one.layer(size="233"),
    "no digest": lambda one: one.layer(digest=None),
    "a digest of MD5": lambda one: one.layer(digest=f"md5:{'a' * 32}"),
    "a digest in capitals": lambda one: one.layer(digest=one.payload_digest.upper()),
    "a digest that is a path": lambda one: one.layer(digest="sha256:../../manifests/1"),
    "a digest of nothing": lambda one: one.layer(digest=str(Digest.of(b"nothing"))),
    "URLs": lambda one: one.layer(urls=["http://127.0.0.1:1/x"]),
    "a foreign layer": lambda one: one.layer(
        mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    ),
    "data in the descriptor": lambda one: one.layer(data=kit.b64(b"else")),
    "more than 4 MiB": _larger,
    "not its bytes": _not_its_bytes,
    # answers
    **{
        f"manifest: {status}": (lambda one, status=status: one.answer(Status(status)))  # type: ignore[misc]
        for status in (204, 206, 400, 403, 404, 405, 410, 418)
    },
    **{
        f"manifest: {code} {status}": (
            lambda one, code=code, status=status: one.answer(_error(code, status))  # type: ignore[misc]
        )
        for code in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND", "UNKNOWN", "DENIED", "UNSUPPORTED")
        for status in (400, 403, 404)
    },
    "manifest: 404 in words": lambda one: one.answer(Status(404, (), b"no such thing")),
    "manifest: 404 in HTML": lambda one: one.answer(
        Status(404, (("Content-Type", "text/html"),), b"<html>404</html>")
    ),
    "manifest: 404 with the manifest": lambda one: one.answer(Status(404, (), one.raw)),
    "manifest: another digest said": lambda one: one.answer(
        Header("Docker-Content-Digest", str(Digest.of(b"x")))
    ),
    "manifest: no digest said": lambda one: one.answer(Header("Docker-Content-Digest", None)),
    "manifest: no media type said": lambda one: one.answer(Header("Content-Type", None)),
    "manifest: empty": lambda one: one.answer(Replace(b"")),
    "manifest: zipped": lambda one: one.answer(ContentEncoding("gzip", really=True)),
    "manifest: zipped in words only": lambda one: one.answer(ContentEncoding("gzip")),
    **{
        f"payload: {status}": (lambda one, status=status: one.blob(Status(status)))  # type: ignore[misc]
        for status in (204, 206, 400, 403, 404, 410)
    },
    "payload: other bytes": lambda one: one.blob(OtherBody()),
    "payload: empty": lambda one: one.blob(Replace(b"")),
    "payload: zipped": lambda one: one.blob(ContentEncoding("gzip", really=True)),
    "payload: a zip of it": lambda one: one.blob(Replace(gzip.compress(one.blobs[one.payload_digest]))),
    "payload: HTML by its name": lambda one: one.blob(Header("Content-Type", "text/html")),
}

# Refused here, and taken there. Each is in docs/reference/sigstore-signing.md.
NARROWER = frozenset(
    {
        *("another media type inside", "an index inside", "schema 1", "no schema", "no config"),
        *("a config of another type", "layers left out", "keys twice", "keys in capitals"),
        *("no type of layer", "no size", "size 0", "size -1", "a size too small", "a size too large"),
        *("data in the descriptor", "manifest: another digest said"),
        *("manifest: MANIFEST_UNKNOWN 400", "manifest: MANIFEST_UNKNOWN 403"),
    }
)
# An error there, and for a reason that says nothing of the image: a body that is not compressed is read as it
# is, whatever is said of it.
OTHER_WORDS = frozenset({"manifest: zipped in words only"})


def attachments(rig: Rig, name: str) -> list[Attachment]:
    """Good ones, and one that is not."""
    repository = name.rpartition(":")[0]
    content = kit.payload(rig.image.digest, repository)
    return [kit.by_key(KEY, content), kit.by_key(OTHER, kit.payload(rig.image.digest, f"{repository}/x"))]


def policies(rig: Rig) -> dict[str, dict[str, Any]]:
    """What the attachment is for, and what another signature is for: errors count for both."""
    matched = {"signedIdentity": {"type": "matchRepository"}}
    by_key = {"type": "sigstoreSigned", "keyData": kit.b64(kit.public_pem(KEY))} | matched
    public = kit.b64(rig.gpg.public("key"))
    by_gpg = {"type": "signedBy", "keyType": "GPGKeys", "keyData": public}
    return {"key": {"default": [by_key]}, "gpg": {"default": [by_gpg]}}


@pytest.mark.parametrize("asked", ["key", "gpg"])
def test_nothing_is_taken_that_is_refused_there(rig: Rig, asked: str, tmp_path: Path) -> None:
    digest = Digest(rig.image.digest)
    policy = policies(rig)[asked]
    wider, narrower, n_taken = [], [], 0
    in_other_words = set()
    for number, (what, change) in enumerate(CASES.items()):
        repository = f"{asked}/case-{number}"
        name = rig.name(repository)
        rig.server.add(rig.image, repository, "1")
        simple = rig.lookaside / repository / f"@{digest.algorithm}={digest.hex}"
        simple = simple.parent.parent / f"case-{number}{simple.name}"
        simple.mkdir(parents=True)
        (simple / "signature-1").write_bytes(rig.gpg.sign(payload(digest, name), "key"))
        one = Beside(*kit.manifest(attachments(rig, name)), tag=kit.tag_of(digest))
        change(one)
        if one.tag is not None:
            rig.server.put(one.raw, one.media_type, repository, one.tag, one.blobs)
        rig.server.script(one.rules)
        there = rig.peer.refusal_from_registry(policy, name, rig.registries_d)
        rig.server.script(one.rules)
        here = rig.here(policy, name, tmp_path / "store")
        n_taken += here is None
        if here is None and there is not None:
            in_other_words |= {what} & OTHER_WORDS
            if what not in OTHER_WORDS:
                wider.append(f"{what}: {there}")
        if here is not None and there is None and what not in NARROWER:
            narrower.append(f"{what}: {here}")
    assert n_taken > 4
    assert not wider, "\n".join(wider)
    assert not narrower, "\n".join(narrower)
    assert in_other_words == OTHER_WORDS
