"""Bundles in a real registry that has no API for referrers are found under the tag in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.config.logins import Credentials
from layertee.errors import PolicyRefused
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.registry.client import Registry
from layertee.registry.http import TLSPolicy, Transport
from layertee.signatures.signature import Subject, Verified
from layertee.signatures.trust.check import RegistryTrustSource, check_trust
from tests.support.bundlekit import WORKFLOW, Sigstore, statement
from tests.support.rig.beside import Beside
from tests.support.rig.images import BuiltImage, build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.sigstorekit import ISSUER, Log, by_key, manifest, new_key, payload, tag_of
from tests.support.trustmachine import Machine

pytestmark = pytest.mark.slow

KEYLESS = f'signer = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}"}}]'
KEY = 'signer = [{key = "a.pub"}]'


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("signed"), [text_layer({"etc/motd": "hello\n"})])


@pytest.fixture
def server(image: BuiltImage) -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        upload(image, "a/b:1", server)
        yield server


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, Sigstore())


def check(machine: Machine, text: str, image: BuiltImage, server: RegistryServer) -> tuple[Verified, ...]:
    """What is verified of the image in ``server``."""
    name = parse_reference(f"{server.host}/a/b:1")
    assert isinstance(name, Reference)

    async def checked() -> tuple[Verified, ...]:
        transport = Transport(user_agent="layertee-test/1")
        try:
            registry = Registry(
                transport, name, Credentials.no_credentials(), tls=TLSPolicy(verify=False), allow_http=True
            )
            subject = Subject(image.manifest, Digest(image.digest), name)
            source = RegistryTrustSource(registry, name.name)
            return await check_trust([machine.rules(text)], [subject], source)
        finally:
            await transport.close()

    return asyncio.run(checked())


def test_the_list_under_the_tag_is_read(machine: Machine, image: BuiltImage, server: RegistryServer) -> None:
    beside = Beside(server, "a/b")
    with pytest.raises(PolicyRefused, match="no signatures were found"):
        check(machine, KEYLESS, image, server)
    beside.attach(image.digest, Sigstore().keyless(statement(image.digest)))
    with pytest.raises(PolicyRefused, match="1 signature was found"):
        check(machine, KEYLESS, image, server)
    beside.attach(image.digest, b"a list of packages", kind="application/spdx+json")
    artifact = beside.attach(image.digest, machine.sigstore.keyless(statement(image.digest)))
    (verified,) = check(machine, KEYLESS, image, server)
    assert verified.subject == WORKFLOW
    assert verified.place.endswith(f" in {artifact}")


def test_the_tag_of_older_signatures_is_read(
    machine: Machine, image: BuiltImage, server: RegistryServer
) -> None:
    beside, key = Beside(server, "a/b"), new_key()
    machine.key("a.pub", key)
    log = Log(machine.sigstore.rekor.key)
    raw, blobs = manifest([by_key(key, payload(image.digest, f"{server.host}/a/b"), log=log)])
    for blob in (*blobs.values(), b"{}"):
        beside.put_blob(blob)
    beside.put_manifest(tag_of(Digest(image.digest)), raw)
    (verified,) = check(machine, KEY, image, server)
    assert (verified.kind, verified.signed_name) == ("attachment", f"{server.host}/a/b")
