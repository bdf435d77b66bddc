"""A machine that takes signed images only: its policy.json and registries.d, and keys of OpenPGP signers."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from layertee import Options
from layertee.options import PolicyOptions
from tests.support.rig.images import BuiltImage, run_tool
from tests.support.rig.registry import RegistryServer

__all__ = [
    "ACCEPT",
    "REJECT",
    "Enforced",
    "by_gpg",
    "by_sigstore",
    "layer_requests",
    "on_the_web",
    "run_with",
]

ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}


def by_gpg(key: Path, **identity: str) -> dict[str, Any]:
    """``signedBy`` the keys in that file; ``identity`` is signedIdentity, left out if it is empty."""
    found: dict[str, Any] = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(key)}
    return found | ({"signedIdentity": identity} if identity else {})


def by_sigstore(key: Path, **identity: str) -> dict[str, Any]:
    """``sigstoreSigned`` by the public key in that file."""
    found: dict[str, Any] = {"type": "sigstoreSigned", "keyPath": str(key)}
    return found | {"signedIdentity": identity or {"type": "matchRepository"}}


@dataclass(frozen=True, slots=True)
class Enforced:
    """The files below ``home``, which is a user's home: tools find them there, and ours gets their names."""

    home: Path

    @property
    def policy(self) -> Path:
        return self.home / ".config" / "containers" / "policy.json"

    @property
    def registries_d(self) -> Path:
        return self.home / ".config" / "containers" / "registries.d"

    @property
    def options(self) -> list[str]:
        """Of our commands."""
        return ["--policy", str(self.policy), "--registries.d", str(self.registries_d)]

    @property
    def library(self) -> Options:
        policy = PolicyOptions(file=self.policy, registries_d=self.registries_d)
        return Options(tls_verify=False, policy=policy)

    def want(self, transport: str, scope: str, *requirements: dict[str, Any]) -> None:
        """Take images of that scope by ``requirements``, and no others."""
        sections = {transport: {scope: list(requirements)}}
        self.policy.parent.mkdir(parents=True, exist_ok=True)
        self.policy.write_text(json.dumps({"default": [REJECT], "transports": sections}))

    def find(self, **where: object) -> None:
        """Signatures of all registries are there, by the keys of registries.d (``_`` for ``-``)."""
        self.registries_d.mkdir(parents=True, exist_ok=True)
        section = {key.replace("_", "-"): value for key, value in where.items()}
        (self.registries_d / "all.yaml").write_text(json.dumps({"default-docker": section}))


def run_with(environment: Mapping[str, str | Path], *command: str) -> str:
    """A program of the machine with these variables; what it prints. Raises RigError."""
    return run_tool("env", *(f"{name}={value}" for name, value in environment.items()), *command)


def layer_requests(server: RegistryServer, *images: BuiltImage) -> list[str]:
    """The layers of ``images`` that the registry was asked for, in any way, since it was reset."""
    layers = {layer.digest for image in images for layer in image.layers}
    return [one.path for one in server.accesses() if one.kind == "blob" and one.reference in layers]


class _Quiet(SimpleHTTPRequestHandler):
    """It does not write about every request."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def on_the_web(directory: Path) -> Iterator[str]:
    """The files of ``directory`` on a web server of 127.0.0.1; its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=directory)) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()
