"""Registries and servers of signatures that mean ill, before a machine that takes signed images only.

Whatever they do, the command ends in a few seconds, says why, keeps to its memory, and asks for no layer.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertee.image.document import Digest
from tests.support import sigstorekit as kit
from tests.support.enforced import ACCEPT, Enforced, by_gpg, by_sigstore
from tests.support.fakes.exchange import Exchange
from tests.support.fakes.fault_server import FaultServer, Rule, on
from tests.support.fakes.faults import Behaviour, Replace, Stall
from tests.support.fakes.floods import Endless
from tests.support.fakes.refusals import Status
from tests.support.mirrors import At, write_conf
from tests.support.openpgp import signer
from tests.support.process import NOT_FOR_USERS, PLAIN, Cli, Ran
from tests.support.rig.images import OCI_INDEX, BuiltImage, build_image
from tests.support.rig.layers import text_layer

pytestmark = pytest.mark.slow

KEY, OTHER = kit.new_key(), kit.new_key()
MANY = 10_000
PEAK = 200 << 20  # bytes
STALL_S = 0.3
IN_TIME_S = 50  # three tries of STALL_S, pauses between them, and a busy machine
OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n"


@functools.cache
def bomb() -> bytes:
    """512 MiB of spaces, gzipped. It takes a second."""
    packer = zlib.compressobj(1, wbits=31)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(512)) + packer.flush()


class Bomb:
    """A body that is small, and large once it is unpacked."""

    async def respond(self, exchange: Exchange) -> None:
        """Send it."""
        headers = (("Content-Encoding", "gzip"), ("Content-Type", kit.OCI_MANIFEST))
        await Status(200, headers, bomb()).respond(exchange)


# A process of its own: the peak of a child counts that of the process that it was forked from.
_MEASURE = (
    "import resource, subprocess, sys\n"
    "done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL)\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    "sys.exit(done.returncode)\n"
)


@dataclass(frozen=True)
class Machine:
    """It takes what KEY has signed for the repository of ``server``'s image, which is signed by it."""

    user: Cli
    files: Enforced
    server: FaultServer
    image: BuiltImage

    @property
    def tag(self) -> str:
        """Where the image's signatures are."""
        return kit.tag_of(Digest(self.image.digest))

    def manifest(self, *keys: kit.PrivateKey) -> bytes:
        """Of signatures by ``keys``, whose blobs the server then has."""
        name = f"{self.server.host}/rig/image"
        raw, blobs = kit.manifest([kit.by_key(key, kit.payload(self.image.digest, name)) for key in keys])
        self.server.put(raw, kit.OCI_MANIFEST, "rig/image", "some", blobs)
        return raw

    def signed_by(self, *keys: kit.PrivateKey) -> None:
        self.server.put(self.manifest(*keys), kit.OCI_MANIFEST, "rig/image", self.tag, {})

    def behaves(self, *rules: Rule) -> None:
        if any(isinstance(rule.behaviour, Bomb) for rule in rules):
            bomb()  # made before the server has to answer with it
        self.server.script(rules)
        self.server.forget()

    def pull(self, *options: str, code: int | None = 1) -> Ran:
        """With short patience. Within bounds of time and memory, and without a layer if it fails."""
        words = ("pull", PLAIN, "--stall-timeout", str(STALL_S), *self.files.options, *options)
        command = self.user.command(*words, self.server.reference)
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-S", "-c", _MEASURE, *command],
            capture_output=True,
            text=True,
            timeout=200,
            env=self.user.environment(),
            check=False,
        )
        assert time.monotonic() - begin < IN_TIME_S, done.stderr
        assert code is None or done.returncode == code, done.stderr
        out, _, peak = done.stdout.rstrip("\n").rpartition("\n")
        assert int(peak) << 10 < PEAK
        assert not any(word in done.stderr for word in NOT_FOR_USERS), done.stderr
        if done.returncode:
            self.no_layer_was_asked_for()
        return Ran(done.returncode, out, done.stderr)

    def no_layer_was_asked_for(self) -> None:
        self.server.settle()
        for layer in self.image.layers:
            assert self.server.requests("blob", layer.digest) == []


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("image"), [text_layer({"a": "a"}), text_layer({"b": "b"})])


@pytest.fixture
def machine(image: BuiltImage, tmp_path: Path) -> Iterator[Machine]:
    key = tmp_path / "cosign.pub"
    key.write_bytes(kit.public_pem(KEY))
    with FaultServer(image) as server:
        files = Enforced(tmp_path / "machine")
        files.want("docker", server.host, by_sigstore(key))
        files.find(use_sigstore_attachments=True)
        found = Machine(Cli(tmp_path / "home"), files, server, image)
        found.signed_by(KEY)
        yield found


# --- signatures beside the image ------------------------------------------------------------------------


def test_the_registry_is_honest(machine: Machine) -> None:
    """Else what follows would prove nothing."""
    assert "signed: by key" in machine.pull(code=0).out


def test_signatures_that_change_between_two_questions_are_those_of_one_answer(machine: Machine) -> None:
    """They are asked for once; what comes later, or to a HEAD, is not looked at."""
    for first, second, code in ((OTHER, KEY, 1), (KEY, OTHER, 0)):
        machine.signed_by(first)
        later = Replace(machine.manifest(second))
        machine.behaves(
            on("manifest", later, reference=machine.tag, first=2),
            on("manifest", later, reference=machine.tag, method="HEAD"),
        )
        machine.pull(code=code)
        asked = machine.server.requests("manifest", machine.tag)
        assert [request.method for request in asked] == ["GET"]


def test_signatures_other_than_the_registry_says_are_refused(machine: Machine) -> None:
    """Its head names one document, and its body is another, though one with a good signature."""
    good = machine.manifest(KEY)
    machine.signed_by(OTHER)
    machine.behaves(on("manifest", Replace(good), reference=machine.tag))
    said = machine.pull(code=None)
    assert said.code != 0
    assert "[DIGEST_MISMATCH]" in said.err


def test_too_many_signatures_are_refused_before_one_is_asked_for(machine: Machine) -> None:
    raw, blobs = kit.manifest(
        [kit.by_key(KEY, kit.payload(machine.image.digest, f"{machine.server.host}/rig/image"))]
    )
    document = json.loads(raw)
    document["layers"] *= MANY
    raw = json.dumps(document).encode()
    assert len(raw) < 4 << 20
    machine.server.put(raw, kit.OCI_MANIFEST, "rig/image", machine.tag, blobs)
    machine.behaves()
    assert f"are {MANY}; at most" in machine.pull().err
    for digest in blobs:
        assert machine.server.requests("blob", digest) == []


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (Stall(), "NET_"),
        (Endless(OK_HEAD, b" " * 1000), "larger than"),
        (Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "too much before the answer"),
        (Status(401), "UNAUTHORIZED"),
        (Status(404, (), b'{"errors":[{"code":"DENIED","message":"no"}]}'), "POLICY"),
        (Status(200, (), b"<html>"), "WEB_PAGE"),
        (Bomb(), "larger than"),
    ],
    ids=["silent", "endless", "endless interim", "401", "404 for another reason", "a page", "a bomb"],
)
def test_a_registry_that_answers_all_but_for_signatures(
    machine: Machine, behaviour: Behaviour, says: str
) -> None:
    machine.behaves(on("manifest", behaviour, reference=machine.tag))
    assert says in machine.pull(code=None).err
    assert machine.server.requests("manifest", machine.tag)
    machine.no_layer_was_asked_for()


def test_a_payload_without_end_is_refused(machine: Machine) -> None:
    (payload,) = (blob for blob in _payloads(machine))
    machine.behaves(on("blob", Endless(OK_HEAD, b"x" * 1000), reference=payload))
    assert machine.pull(code=None).code != 0


def _payloads(machine: Machine) -> list[str]:
    return [layer["digest"] for layer in json.loads(machine.manifest(KEY))["layers"]]


def test_a_mirror_without_the_signatures_is_named(machine: Machine, tmp_path: Path) -> None:
    """They are looked for where the image came from; its origin has them, and is not asked."""
    with FaultServer({"copy/image:latest": machine.image}) as mirror:
        name = f"{machine.server.host}/rig/image"
        conf = write_conf(tmp_path, name, [At(f"{mirror.host}/copy/image")])
        machine.behaves()
        said = machine.pull("--registries-conf", str(conf)).err
        assert f"{mirror.host}/copy/image" in said
        assert "mirror" in said
        assert machine.server.requests() == []
        mirror.settle()
        assert mirror.requests("manifest", machine.tag)
        assert not any(mirror.requests("blob", layer.digest) for layer in machine.image.layers)


# --- what refers to the image ---------------------------------------------------------------------------


TRUST = """\
[scope."{host}"]
transparency-log = false
[[scope."{host}".signer]]
key = "{key}"
"""


@pytest.fixture
def by_trust(machine: Machine, tmp_path: Path) -> Callable[..., Ran]:
    """A pull where trust.toml asks for a bundle by KEY, and policy.json for nothing."""
    machine.files.want("docker", machine.server.host, ACCEPT)
    trust = tmp_path / "trust.toml"
    trust.write_text(TRUST.format(host=machine.server.host, key=tmp_path / "cosign.pub"))

    def pull(*rules: Rule) -> Ran:
        machine.behaves(*rules)
        return machine.pull("--trust-file", str(trust), code=None)

    return pull


def test_too_many_referrers_are_refused(machine: Machine, by_trust: Callable[..., Ran]) -> None:
    entry = {
        "mediaType": kit.OCI_MANIFEST,
        "size": 100,
        "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    }
    entries = [entry | {"digest": f"sha256:{n:064x}"} for n in range(MANY)]
    listed = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    assert len(listed) < 4 << 20
    said = by_trust(on("other", Replace(listed, OCI_INDEX)))
    assert said.code == 1
    assert "[POLICY]" in said.err
    assert len(machine.server.requests("manifest")) <= 2


@pytest.mark.parametrize(
    "behaviour",
    [
        Stall(),
        Endless(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json\r\n\r\n", b" "),
        Status(401),
        Replace(b'{"manifests": ' + b"[" * 100_000, OCI_INDEX),
    ],
    ids=["silent", "endless", "401", "nested"],
)
def test_a_registry_that_answers_all_but_for_referrers(
    machine: Machine, by_trust: Callable[..., Ran], behaviour: Behaviour
) -> None:
    said = by_trust(on("other", behaviour))
    assert said.code != 0
    assert machine.server.requests("other")


# --- a server of signatures -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [Stall(), Endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x"), Status(401), Status(404), Bomb()],
    ids=["silent", "endless", "401", "404", "a bomb"],
)
def test_a_lookaside_server_that_gives_no_signature(machine: Machine, behaviour: Behaviour) -> None:
    with signer() as home:
        home.key("key")
        key = machine.files.home / "key.gpg"
        key.write_bytes(home.public("key"))
    machine.files.want("docker", machine.server.host, by_gpg(key))
    with FaultServer(script=[on("other", behaviour)]) as web:
        machine.files.find(lookaside=f"{web.url}/sigs")
        said = machine.pull(code=None)
        assert said.code != 0
        web.settle()
        assert 1 <= len(web.requests("other")) <= 3
        assert f"{web.url}/sigs/rig/image@sha256=" in said.err or "there is none" in said.err


def test_a_lookaside_server_with_no_end_of_signatures_is_refused(machine: Machine) -> None:
    """Each of them is one, by another key."""
    with signer() as home:
        home.key("key")
        home.key("other")
        key = machine.files.home / "key.gpg"
        key.write_bytes(home.public("key"))
        signature = home.sign(b"{}", "other")
    machine.files.want("docker", machine.server.host, by_gpg(key))
    with FaultServer(script=[on("other", Status(200, (), signature))]) as web:
        machine.files.find(lookaside=web.url)
        assert "signatures or more" in machine.pull().err
        assert len(web.requests("other")) <= 200
