"""An image that Cosign signs with a certificate of a company's authority, and policies with ``pki``.

Cosign leaves the root out of the chain that it attaches, and containers/image passes over the last
certificate of a chain as its root: where there is one intermediate, the policy has to have that, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.support import sigstorekit as kit
from tests.support.enforced import Enforced, layer_requests
from tests.support.process import PLAIN, Cli
from tests.support.rig.cosign import Cosign
from tests.support.rig.images import build_image, push
from tests.support.rig.layers import text_layer
from tests.support.rig.prebuild import NotBuilt
from tests.support.rig.registry import RegistryServer

pytestmark = [pytest.mark.slow, pytest.mark.builds("cosign3")]


def test_what_is_signed_with_a_certificate_is_taken_for_its_authority_and_address(
    registry: RegistryServer, tmp_path: Path
) -> None:
    (tmp_path / "signer").mkdir()
    try:
        cosign = Cosign(tmp_path / "signer")
    except NotBuilt as exc:
        pytest.skip(str(exc))
    public = load_pem_public_key(cosign.make_key().read_bytes())
    assert isinstance(public, kit.PublicKey)
    root, other = kit.Authority.root(), kit.Authority.root("other")
    between = root.intermediate()
    leaf = between.leaf(
        public,
        names=[x509.RFC822Name(kit.EMAIL)],
        extensions=(),
        since=kit.NOW - kit.DAY_S,
        until=kit.NOW + kit.DAY_S,
    )
    (tmp_path / "leaf.pem").write_bytes(kit.certificate_pem(leaf))
    (tmp_path / "chain.pem").write_bytes(between.chain_pem)
    image = build_image(tmp_path / "image", [text_layer({"a": "a"})])
    name = push(image, "certified/image:1", registry)
    cosign.sign_certified(name, tmp_path / "leaf.pem", tmp_path / "chain.pem")
    machine, user = Enforced(tmp_path / "machine"), Cli(tmp_path / "home")
    machine.find(use_sigstore_attachments=True)

    between_them: dict[str, str] = {}

    def want(authority: kit.Authority, **subject: str) -> None:
        pki = {"caRootsData": kit.b64(authority.pem)} | subject | between_them
        identity = {"type": "matchRepository"}
        machine.want(
            "docker", registry.host, {"type": "sigstoreSigned", "pki": pki, "signedIdentity": identity}
        )

    want(root, subjectEmail=kit.EMAIL)
    assert "its certificate is not accepted" in user.run("pull", PLAIN, *machine.options, name, code=1).err
    between_them["caIntermediatesData"] = kit.b64(between.pem)
    want(root, subjectEmail=kit.EMAIL)
    (verified,) = user.pull(*machine.options, name).json["policy"]["verified"]
    assert (verified["kind"], verified["subject"]) == ("sigstoreSigned", kit.EMAIL)
    registry.reset()
    for authority, subject in (
        (other, {"subjectEmail": kit.EMAIL}),
        (root, {"subjectEmail": f"x{kit.EMAIL}"}),
        (root, {"subjectEmail": kit.EMAIL, "subjectHostname": "example.com"}),
    ):
        want(authority, **subject)
        assert "[POLICY]" in user.run("pull", PLAIN, *machine.options, name, code=1).err
    assert layer_requests(registry, image) == []
