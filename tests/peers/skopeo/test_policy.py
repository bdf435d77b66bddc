"""The real skopeo as judge: images that are really signed with a key of GnuPG, in a real registry.

A check may only pass if it was made, and on the very manifest that was resolved. Layers are never asked for.
"""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from layertee.config.policy import Policy, read_policy
from layertee.config.requirements import Verdict
from layertee.errors import PolicyRefused
from layertee.image.document import Manifest, Platform, parse_document
from layertee.image.reference import Reference, parse_reference
from layertee.skopeo.check import check_policy
from layertee.skopeo.command import Access
from layertee.skopeo.find import SHIM_MARKER, find_skopeo
from layertee.sync import run
from tests.support.process import until, wait_until
from tests.support.rig.images import BuiltImage, build_image, build_index, push, run_tool
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64", "v8")
ACCEPT = {"type": "insecureAcceptAnything"}
LARGE = 9 << 20  # more than a document may have


@dataclass(frozen=True)
class Signer:
    """A key in a GNUPGHOME of its own, and a lookaside store that skopeo writes to and reads from."""

    home: Path
    fingerprint: str
    public: Path
    registries_d: Path

    def push(self, image: str, server: RegistryServer, name: str, *options: str) -> None:
        """``skopeo copy`` to ``name`` with a signature for that name."""
        run_tool(
            *("env", f"GNUPGHOME={self.home}", "skopeo", "--registries.d", str(self.registries_d), "copy"),
            *("--quiet", "--preserve-digests", "--sign-by", self.fingerprint, *server.skopeo_options("dest")),
            *(*options, image, f"docker://{server.host}/{name}"),
        )

    def requirement(self, identity: str | None = None) -> dict[str, Any]:
        """signedBy this key."""
        kind = {"signedIdentity": {"type": identity}} if identity else {}
        return {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(self.public)} | kind


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    """Debian package gpg, with gpg-agent. In /tmp, since the path of the agent's socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="lt-gpg-") as root:
        home, lookaside, registries_d = (
            Path(root, "home"),
            Path(root, "lookaside"),
            Path(root, "registries.d"),
        )
        for directory in (home, lookaside, registries_d):
            directory.mkdir(mode=0o700)
        gpg = ("gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback")
        try:
            run_tool(
                *gpg, "--passphrase", "", "--quick-generate-key", "rig@example.invalid", "ed25519", "sign"
            )
            listed = run_tool(*gpg, "--with-colons", "--list-keys")
            fingerprint = next(line for line in listed.splitlines() if line.startswith("fpr")).split(":")[9]
            public = Path(root, "key.gpg")
            run_tool(*gpg, "--output", str(public), "--export", fingerprint)
            where = f"file://{lookaside}"
            (registries_d / "all.yaml").write_text(
                json.dumps({"default-docker": {"lookaside": where, "lookaside-staging": where}})
            )
            yield Signer(home, fingerprint, public, registries_d)
        finally:
            run_tool("gpgconf", "--homedir", str(home), "--kill", "all")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """A small layer and one that would be noticed."""
    layers = [text_layer({"first": "first"}), incompressible_layer(1 << 20, seed=11)]
    return build_image(tmp_path_factory.mktemp("signed"), layers)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where checks have their directories; nothing may be left there."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert list(place.iterdir()) == []


@dataclass(frozen=True)
class Checking:
    """One policy in a file, and what it takes to check an image under it."""

    policy: Policy
    access: Access

    def __call__(
        self,
        name: str,
        image: BuiltImage,
        *,
        platform: Platform = AMD64,
        skopeo: Path | None = Path("/usr/bin/skopeo"),
        limit_s: float = 60.0,
    ) -> str:
        made = check_policy(
            *(skopeo, parse_reference(name), self.policy, manifest_of(image)),
            platform=platform,
            access=self.access,
            limit_s=limit_s,
        )
        return run(made)

    def refused(self, name: str, image: BuiltImage, **options: Any) -> str:
        """The message of the refusal."""
        with pytest.raises(PolicyRefused) as caught:
            self(name, image, **options)
        return str(caught.value)


def manifest_of(image: BuiltImage) -> Manifest:
    """As the registry's client resolves it."""
    manifest = parse_document(image.manifest, image.media_type)
    assert isinstance(manifest, Manifest)
    return manifest


@pytest.fixture
def checking(signer: Signer, tmp_path: Path) -> Checking:
    """Everything has to be signed by the key."""
    return under(tmp_path, signer, signer.requirement())


def under(tmp_path: Path, signer: Signer, *requirements: dict[str, Any], **access: Any) -> Checking:
    """These requirements for everything."""
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"default": requirements}))
    options: dict[str, Any] = {"registries_d": signer.registries_d, "tls_verify": False}
    return Checking(read_policy(path), Access(**options | access))


def script(path: Path, text: str) -> Path:
    """Something that is called skopeo."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# -- what passes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_signed_image_is_accepted_and_no_layer_is_asked_for(
    signer: Signer, checking: Checking, registry: RegistryServer, tmp_path: Path, compression: str
) -> None:
    image = build_image(tmp_path / "image", [text_layer({"a": compression})] * 2, compression=compression)
    name = f"signed/{compression}:1"
    signer.push(image.skopeo_name, registry, name)
    registry.reset()
    assert checking(f"{registry.host}/{name}", image) == image.digest
    asked = {(access.kind, access.reference) for access in registry.accesses()} - {("other", None)}
    assert asked == {("manifest", "1"), ("blob", image.config_digest)}


def test_a_signed_docker_manifest_is_compared_byte_for_byte(
    signer: Signer, checking: Checking, registry: RegistryServer, tmp_path: Path
) -> None:
    image = build_image(tmp_path / "image", [text_layer({"a": "docker"})], media="docker")
    plain = push(image, "signed/plain-docker:1", registry)
    signer.push(f"docker://{plain}", registry, "signed/docker:1", "--src-tls-verify=false")
    registry.reset()
    assert checking(f"{registry.host}/signed/docker:1", image) == image.digest
    assert registry.blob_bytes(digests=image.layer_digests) == 0


def test_the_instance_that_was_chosen_is_the_one_that_is_checked(
    signer: Signer, checking: Checking, registry: RegistryServer, tmp_path: Path
) -> None:
    amd64, arm64 = (
        build_image(tmp_path / name.replace("/", "-"), [text_layer({"a": name})], platform=name)
        for name in ("linux/amd64", "linux/arm64/v8")
    )
    index = build_index(tmp_path / "index", [amd64, arm64])
    signer.push(index.skopeo_name, registry, "signed/index:1", "--all")
    name = f"{registry.host}/signed/index"
    assert checking(f"{name}:1", amd64, platform=AMD64) == amd64.digest
    assert checking(f"{name}:1", arm64, platform=ARM64) == arm64.digest
    assert checking(f"{name}@{index.digest}", arm64, platform=ARM64) == arm64.digest
    assert "may have moved" in checking.refused(f"{name}:1", amd64, platform=ARM64)


def test_a_name_with_a_digest_may_have_a_tag_besides(
    image: BuiltImage, signer: Signer, checking: Checking, registry: RegistryServer
) -> None:
    signer.push(image.skopeo_name, registry, "signed/pinned:1")
    name = f"{registry.host}/signed/pinned"
    assert checking(f"{name}@{image.digest}", image) == image.digest
    assert checking(f"{name}:any@{image.digest}", image) == image.digest


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_the_registry_is_reached_with_what_the_client_gave(
    image: BuiltImage, signer: Signer, tmp_path: Path, tls: bool
) -> None:
    with RegistryServer(htpasswd=("user", "secret"), tls=tls) as server:
        signer.push(image.skopeo_name, server, "signed/private:1")
        name = f"{server.host}/signed/private:1"
        authfile = tmp_path / "auth.json"
        auth = base64.b64encode(b"user:secret").decode()
        authfile.write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
        reach: dict[str, Any] = {"cert_dir": server.cert_dir, "tls_verify": tls}
        known = under(tmp_path, signer, signer.requirement(), authfile=authfile, **reach)
        assert known(name, image) == image.digest
        unknown = under(tmp_path, signer, signer.requirement(), no_creds=True, **reach)
        assert "authentication required" in unknown.refused(name, image)
        if tls:
            other = under(tmp_path, signer, signer.requirement(), authfile=authfile, tls_verify=True)
            assert "certificate" in other.refused(name, image)


def test_an_authfile_may_be_a_descriptor(image: BuiltImage, signer: Signer, tmp_path: Path) -> None:
    with RegistryServer(htpasswd=("user", "secret")) as server, tempfile.TemporaryFile() as file:
        signer.push(image.skopeo_name, server, "signed/private:1")
        auth = base64.b64encode(b"user:secret").decode()
        file.write(json.dumps({"auths": {server.host: {"auth": auth}}}).encode())
        file.flush()
        authfile = Path(f"/proc/self/fd/{file.fileno()}")
        known = under(tmp_path, signer, signer.requirement(), authfile=authfile)
        assert known(f"{server.host}/signed/private:1", image) == image.digest


# -- what does not ---------------------------------------------------------------------------------------


def test_an_unsigned_image_is_refused_and_the_reason_is_told(
    image: BuiltImage, checking: Checking, registry: RegistryServer
) -> None:
    name = push(image, "unsigned/image:1", registry)
    registry.reset()
    message = checking.refused(name, image)
    assert "A signature was required, but no signature exists" in message
    assert str(checking.policy.path) in message and name in message and "\n" not in message
    assert registry.blob_bytes() == 0


def test_a_signature_for_another_tag_does_not_count(
    image: BuiltImage, signer: Signer, registry: RegistryServer, tmp_path: Path
) -> None:
    signer.push(image.skopeo_name, registry, "signed/tags:signed")
    other = push(image, "signed/tags:other", registry)  # the same digest, so it finds the same signature
    exact = under(tmp_path, signer, signer.requirement("matchExact"))
    assert exact(f"{registry.host}/signed/tags:signed", image) == image.digest
    assert "rejected" in exact.refused(other, image)
    assert "rejected" in under(tmp_path, signer, signer.requirement()).refused(other, image)
    assert under(tmp_path, signer, signer.requirement("matchRepository"))(other, image) == image.digest


def test_a_signature_of_another_key_does_not_count(
    image: BuiltImage, signer: Signer, registry: RegistryServer, tmp_path: Path
) -> None:
    signer.push(image.skopeo_name, registry, "signed/keys:1")
    empty = {"type": "signedBy", "keyType": "GPGKeys", "keyData": ""}
    message = under(tmp_path, signer, empty).refused(f"{registry.host}/signed/keys:1", image)
    assert "No public keys imported" in message


def test_all_requirements_have_to_hold(
    image: BuiltImage, signer: Signer, registry: RegistryServer, tmp_path: Path
) -> None:
    signer.push(image.skopeo_name, registry, "signed/both:1")
    checking = under(tmp_path, signer, signer.requirement(), {"type": "reject"})
    assert "rejected by policy" in checking.refused(f"{registry.host}/signed/both:1", image)


def test_a_tag_that_moved_since_it_was_resolved_is_refused(
    image: BuiltImage, signer: Signer, checking: Checking, registry: RegistryServer, tmp_path: Path
) -> None:
    newer = build_image(tmp_path / "newer", [text_layer({"a": "newer"})])
    name = f"{registry.host}/signed/moving:1"
    signer.push(image.skopeo_name, registry, "signed/moving:1")
    assert checking(name, image) == image.digest
    signer.push(newer.skopeo_name, registry, "signed/moving:1")
    assert checking(name, newer) == newer.digest
    message = checking.refused(name, image)
    assert newer.digest in message and image.digest in message and "moved" in message


def test_of_a_tag_that_moved_no_large_layer_is_fetched_either(
    image: BuiltImage, signer: Signer, checking: Checking, registry: RegistryServer, tmp_path: Path
) -> None:
    newer = build_image(tmp_path / "newer", [incompressible_layer(LARGE, seed=3)], compression="none")
    signer.push(newer.skopeo_name, registry, "signed/large:1")
    assert "file too large" in checking.refused(f"{registry.host}/signed/large:1", image)


def test_signatures_are_for_registries(image: BuiltImage, signer: Signer, tmp_path: Path) -> None:
    checking = under(tmp_path, signer, signer.requirement())
    assert "no signature exists" in checking.refused(image.skopeo_name, image)
    assert under(tmp_path, signer, ACCEPT)(image.skopeo_name, image) == image.digest
    assert "cannot be checked" in checking.refused("containers-storage:localhost/image:1", image)


def test_a_transport_of_others_is_handed_on_as_it_is(
    image: BuiltImage, signer: Signer, registry: RegistryServer, tmp_path: Path
) -> None:
    name = f"dir:{tmp_path / 'dir'}"
    run_tool("skopeo", "copy", "--quiet", "--preserve-digests", image.skopeo_name, name)
    for requirement, accepted in ((ACCEPT, True), (signer.requirement(), False)):
        policy = under(tmp_path, signer, requirement).policy
        made = check_policy(find_skopeo(), name, policy, manifest_of(image), platform=AMD64)
        if accepted:
            assert run(made) == image.digest
        else:
            with pytest.raises(PolicyRefused, match="no signature exists"):
                run(made)


# -- a check that was not made ---------------------------------------------------------------------------


def test_without_skopeo_nothing_is_accepted(image: BuiltImage, checking: Checking) -> None:
    message = checking.refused("example.com/image:1", image, skopeo=None)
    assert "example.com/image:1 needs a signature check" in message
    assert str(checking.policy.path) in message and "install skopeo" in message
    assert "cannot be started" in checking.refused("example.com/image:1", image, skopeo=Path("/nonexistent"))


def test_a_program_that_only_ends_well_has_checked_nothing(
    image: BuiltImage, checking: Checking, tmp_path: Path
) -> None:
    fake = script(tmp_path / "skopeo", "exit 0")
    assert "as nothing" in checking.refused("example.com/image:1", image, skopeo=fake)


@pytest.mark.parametrize(
    "damage",
    [
        'echo "{\\"manifests\\": []}" >"$layout/index.json"',
        'echo "{}" >"$layout/index.json"',
        'rm "$layout/index.json"',
        'ln -sf /nonexistent "$layout/index.json"',
        'for file in $(find "$layout/blobs" -type f); do echo >>"$file"; done',
    ],
)
def test_what_arrived_is_believed_only_if_it_is_whole(
    image: BuiltImage, signer: Signer, registry: RegistryServer, tmp_path: Path, damage: str
) -> None:
    name = push(image, "unsigned/damaged:1", registry)
    accepting = under(tmp_path, signer, ACCEPT)
    assert accepting(name, image) == image.digest
    lines = ['/usr/bin/skopeo "$@"', "layout=${TMPDIR}/layout", damage]
    fake = script(tmp_path / "skopeo", "\n".join(lines))
    assert "as nothing" in accepting.refused(name, image, skopeo=fake)


def test_the_policy_is_the_one_that_was_read_wherever_else_there_is_one(
    image: BuiltImage, checking: Checking, registry: RegistryServer, tmp_path: Path, monkeypatch: Any
) -> None:
    name = push(image, "unsigned/elsewhere:1", registry)
    other = tmp_path / ".config" / "containers" / "policy.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"default": [ACCEPT]}))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONTAINERS_POLICY_JSON", str(other))
    assert "no signature exists" in checking.refused(name, image)


def test_a_section_for_the_tag_is_not_passed_over_by_naming_the_digest_too(
    image: BuiltImage, signer: Signer, registry: RegistryServer, tmp_path: Path
) -> None:
    name = push(image, "unsigned/scoped:1", registry)
    path = tmp_path / "policy.json"
    scopes = {name: [signer.requirement()]}
    path.write_text(json.dumps({"default": [ACCEPT], "transports": {"docker": scopes}}))
    policy = read_policy(path)
    by_digest, by_both = name.removesuffix(":1") + f"@{image.digest}", f"{name}@{image.digest}"
    verdicts = [policy.judge(parse_reference(one)).verdict for one in (name, by_digest, by_both)]
    assert verdicts == [Verdict.SIGNATURES, Verdict.ACCEPT, Verdict.REJECT]


# -- the end of it ---------------------------------------------------------------------------------------


def gone(file: Path) -> bool:
    """Whether the process whose number is in ``file`` has ended, within seconds; init may reap it later."""
    status = Path(f"/proc/{file.read_text().strip()}/status")
    try:
        wait_until(
            lambda: not status.exists() or "\nState:\tZ" in status.read_text(), "it lives", timeout_s=10
        )
    except TimeoutError:
        return False
    return True


def test_a_check_that_takes_too_long_is_a_refusal(
    image: BuiltImage, checking: Checking, tmp_path: Path
) -> None:
    fake = script(tmp_path / "skopeo", f"sleep 60 & echo $! >{tmp_path}/child\necho $$ >{tmp_path}/pid\nwait")
    message = checking.refused("example.com/image:1", image, skopeo=fake, limit_s=0.5)
    assert "in 0 s" in message or "in 1 s" in message
    assert gone(tmp_path / "pid") and gone(tmp_path / "child")


def test_a_cancelled_check_leaves_neither_a_process_nor_a_file(
    image: BuiltImage, checking: Checking, tmp_path: Path
) -> None:
    fake = script(
        tmp_path / "skopeo", f"echo $$ >{tmp_path}/pid.new\nmv {tmp_path}/pid.new {tmp_path}/pid\nsleep 60"
    )

    async def cancelled() -> None:
        reference = Reference("example.com", "image", "1", None)
        made = check_policy(fake, reference, checking.policy, manifest_of(image), platform=AMD64)
        task = asyncio.ensure_future(made)
        await until((tmp_path / "pid").exists, "it does not start")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(cancelled())
    assert gone(tmp_path / "pid")


def test_much_that_is_said_is_neither_kept_nor_in_the_way(
    image: BuiltImage, checking: Checking, tmp_path: Path
) -> None:
    lines = [
        'yes "a line that nobody needs" | head -c 3000000 >&2',
        """echo 'time=now level=fatal msg="it said \\"no\\""' >&2""",
        "exit 1",
    ]
    message = checking.refused(
        "example.com/image:1", image, skopeo=script(tmp_path / "skopeo", "\n".join(lines))
    )
    assert message.endswith('does not accept it: it said "no"')


# -- which skopeo ----------------------------------------------------------------------------------------


def test_our_own_shim_is_never_taken_for_skopeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").mkdir()
    shim = script(tmp_path / "first" / "skopeo", f"{SHIM_MARKER}\nexit 0")
    monkeypatch.setenv("PATH", str(shim.parent))
    assert find_skopeo() is None and find_skopeo(shim) is None
    monkeypatch.setenv("PATH", f"{shim.parent}:/usr/bin")
    assert find_skopeo() == Path("/usr/bin/skopeo")
    link = tmp_path / "link"
    link.symlink_to(shim)
    assert find_skopeo(link) is None


def test_a_skopeo_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    plain = tmp_path / "skopeo"
    plain.write_text("#!/bin/sh\n")
    assert find_skopeo(plain) is None  # not executable
    assert find_skopeo(tmp_path) is None and find_skopeo(tmp_path / "nothing") is None
    assert find_skopeo(script(plain, "exit 0")) == plain
