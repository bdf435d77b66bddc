"""Other programs that take an image from a registry, each as it is typed, and what they have then.

What they have is read by code of this file's own, and hashed: the claims of documents are not believed.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import zstandard

from tests.support.compress import digest_of
from tests.support.process import Cli, authfile
from tests.support.rig import prebuild
from tests.support.rig.blobs import blob_path
from tests.support.rig.certs import Certificates
from tests.support.rig.images import REF_NAME, BuiltImage, run_tool
from tests.support.rig.registry import RegistryServer, RigError
from tests.support.rig.storage import StorageRig

__all__ = ["BUILT", "CLIENTS", "Endpoint", "Taken", "as_built", "read_layout"]

BUILT = ("crane", "oras", "regctl")
_RUN_S = 100


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registry on this machine: plain HTTP, or under an authority; ``credentials``: user, password."""

    host: str
    certificates: Certificates | None = None
    credentials: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """One image: the digest of the manifest, that of the config, and what is in each layer."""

    manifest: str
    config: str
    diff_ids: tuple[str, ...]


Client: TypeAlias = Callable[[Endpoint, str, Path], Taken]


def as_built(image: BuiltImage) -> Taken:
    """What is to be taken where the image is served as it is."""
    return Taken(image.digest, image.config_digest, tuple(layer.diff_id for layer in image.layers))


def read_layout(root: Path, ref: str | None = None) -> Taken:
    """The image ``ref`` of the OCI layout ``root``, or its only one.

    Raises RigError for a blob that is not what it is called.
    """
    index = json.loads((root / "index.json").read_bytes())
    named = [one for one in index["manifests"] if ref in (None, one.get("annotations", {}).get(REF_NAME))]
    digests = {entry["digest"] for entry in named}
    if len(digests) != 1:
        raise RigError(f"{root} has {len(digests)} images: {index}")
    (digest,) = digests
    manifest = json.loads(_blob(root, {"digest": digest}))
    config = json.loads(_blob(root, manifest["config"]))
    tars = [_tar(_blob(root, layer)) for layer in manifest["layers"]]
    diff_ids = tuple(map(digest_of, tars))
    if list(diff_ids) != config["rootfs"]["diff_ids"]:
        raise RigError(f"{root}: layers are {diff_ids}, its config says {config['rootfs']}")
    return Taken(digest, manifest["config"]["digest"], diff_ids)


def _blob(root: Path, descriptor: dict[str, Any]) -> bytes:
    content = blob_path(root, descriptor["digest"]).read_bytes()
    if digest_of(content) != descriptor["digest"] or descriptor.get("size", len(content)) != len(content):
        raise RigError(f"{root}: {descriptor} is {digest_of(content)} with {len(content)} bytes")
    return content


def _tar(blob: bytes) -> bytes:
    if blob.startswith(b"\x1f\x8b"):
        return subprocess.run(["gzip", "-dc"], input=blob, capture_output=True, check=True).stdout
    if blob.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True).read()
    return blob


# --- how each is typed ----------------------------------------------------------------------------------
# ``name`` is ``repository:tag`` or ``repository@digest``; ``work`` is an empty directory of this run's own.


def skopeo(endpoint: Endpoint, name: str, work: Path) -> Taken:
    """Into an OCI layout."""
    options = _skopeo_options(endpoint, "src-")
    source = f"docker://{endpoint.host}/{name}"
    run_tool("skopeo", "copy", "--quiet", "--preserve-digests", *options, source, f"oci:{work}/layout:1")
    return read_layout(work / "layout")


def podman(endpoint: Endpoint, name: str, work: Path) -> Taken:
    """``podman login``, where that takes credentials, and ``podman pull`` into a store of its own.

    Its path is short: podman takes no runroot of more than 50 characters.
    """
    with tempfile.TemporaryDirectory(prefix="store-", dir="/tmp") as root:
        store = StorageRig(Path(root) / "s", "overlay")
        try:
            return _podman_pull(store, endpoint, name, work / "auth.json")
        finally:
            store.unmount()


def _podman_pull(store: StorageRig, endpoint: Endpoint, name: str, authfile: Path) -> Taken:
    options = _skopeo_options(Endpoint(endpoint.host, endpoint.certificates))
    if endpoint.credentials:
        user, password = endpoint.credentials
        options.append(f"--authfile={authfile}")
        run_tool("podman", "login", *options, f"--username={user}", f"--password={password}", endpoint.host)
    image = store.run("podman", "pull", "--quiet", *options, f"{endpoint.host}/{name}")
    (told,) = json.loads(store.run("podman", "image", "inspect", image))
    stored = {row["diff-digest"] for row in store.rows()}  # computed by podman while it unpacked them
    if set(told["RootFS"]["Layers"]) != stored:
        raise RigError(f"podman stored {stored} of {told['RootFS']}")
    return Taken(told["Digest"], f"sha256:{told['Id']}", tuple(told["RootFS"]["Layers"]))


def crane(endpoint: Endpoint, name: str, work: Path) -> Taken:
    """Into an OCI layout."""
    options = [] if endpoint.certificates else ["--insecure"]
    if endpoint.credentials:
        user, password = endpoint.credentials
        _built("crane", work, endpoint, "auth", "login", endpoint.host, "-u", user, "-p", password, *options)
    source = f"{endpoint.host}/{name}"
    _built("crane", work, endpoint, "pull", "--format=oci", *options, source, str(work / "layout"))
    return read_layout(work / "layout")


def oras(endpoint: Endpoint, name: str, work: Path) -> Taken:
    """Into an OCI layout."""
    tls = endpoint.certificates
    options = [f"--from-ca-file={tls.authority}" if tls else "--from-plain-http"]
    if endpoint.credentials:
        user, password = endpoint.credentials
        options += [f"--from-username={user}", f"--from-password={password}"]
    source, target = f"{endpoint.host}/{name}", f"{work}/layout:1"
    _built("oras", work, endpoint, "copy", *options, "--to-oci-layout", source, target)
    return read_layout(work / "layout")


def regctl(endpoint: Endpoint, name: str, work: Path) -> Taken:
    """Into an OCI layout."""
    about: dict[str, str] = {"tls": "enabled" if endpoint.certificates else "disabled"}
    if endpoint.certificates:
        about["regcert"] = endpoint.certificates.authority.read_text()
    if endpoint.credentials:
        about["user"], about["pass"] = endpoint.credentials
    (work / "regctl.json").write_text(json.dumps({"hosts": {endpoint.host: about}}))
    _built("regctl", work, endpoint, "image", "copy", f"{endpoint.host}/{name}", f"ocidir://{work}/layout:1")
    return read_layout(work / "layout")


def pull_through(endpoint: Endpoint, name: str, work: Path) -> Taken:
    """docker-registry as a cache of the endpoint, which must ask for no credentials, and skopeo at it."""
    tls = endpoint.certificates
    url = f"{'https' if tls else 'http'}://{endpoint.host}"
    with RegistryServer(proxy_of=url, proxy_authority=tls.authority if tls else None) as cache:
        return skopeo(Endpoint(cache.host), name, work)


def layertee(endpoint: Endpoint, name: str, work: Path) -> Taken:
    """Our own, into an OCI layout, layers as they come."""
    cli = Cli(work / "home")
    tls = endpoint.certificates
    options = [f"--cert-dir={tls.certs_d(endpoint.host)}" if tls else "--tls-verify=false"]
    if endpoint.credentials:
        options.append(f"--authfile={authfile(work / 'auth.json', endpoint.host, *endpoint.credentials)}")
    target = f"oci:{work}/layout:1"
    cli.run("pull", "--insecure-policy", *options, "--to", target, f"{endpoint.host}/{name}")
    return read_layout(work / "layout")


CLIENTS: dict[str, Client] = {
    "skopeo": skopeo,
    "podman": podman,
    "crane": crane,
    "oras": oras,
    "regctl": regctl,
    "docker-registry": pull_through,
    "layertee": layertee,
}


def _skopeo_options(endpoint: Endpoint, side: str = "") -> list[str]:
    tls = endpoint.certificates
    options = [f"--{side}cert-dir={tls.certs_d(endpoint.host)}" if tls else f"--{side}tls-verify=false"]
    return [*options, f"--{side}creds={':'.join(endpoint.credentials)}"] if endpoint.credentials else options


def _built(name: str, work: Path, endpoint: Endpoint, *words: str) -> None:
    """Run a program that was built for the tests, with ``work`` as its home. Raises RigError, NotBuilt."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "REGCTL_CONFIG": str(work / "regctl.json"),
        **({"SSL_CERT_FILE": str(endpoint.certificates.authority)} if endpoint.certificates else {}),
    }
    done = subprocess.run(
        [prebuild.program(name), *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_RUN_S,
        check=False,
    )
    if done.returncode:
        raise RigError(f"{name} {words[0]}: {done.stdout}{done.stderr}")
