"""What checking signatures costs: ``python -m bench.signatures [--runs N]``.

One image of a small layer in a real docker-registry over loopback, signed in every way. ``layertee inspect``
resolves it and judges it; rounds are shuffled, the first is not counted. What is measured beside the same
command with --insecure-policy: wall time of the whole command, and the body bytes that the registry sent.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import sigstorekit as kit
from tests.support.bundlekit import WORKFLOW, Sigstore, statement
from tests.support.openpgp import payload, signer
from tests.support.rig.beside import Beside
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

LAYERTEE = str(Path(sys.executable).with_name("layertee"))
ACCEPT = {"type": "insecureAcceptAnything"}
REPOSITORY = "os/image"


@dataclass(frozen=True, slots=True)
class Way:
    """A way of signing, and the options under which it has to be there."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rig:
    """One image, signed in every way, and files that ask for each."""

    root: Path
    server: RegistryServer
    image: str

    def write(self, name: str, content: bytes | str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def policy(self, name: str, *requirements: dict[str, Any]) -> tuple[str, ...]:
        path = self.write(f"{name}.json", json.dumps({"default": list(requirements)}))
        return ("--policy", str(path), "--registries.d", str(self.root / "registries.d"))

    def ways(self, digest: str, gpg_home: Any) -> list[Way]:
        """Signs the image. The first way asks for no signature."""
        name = f"{self.server.host}/{REPOSITORY}"
        beside = Beside(self.server, REPOSITORY)
        identity = {"signedIdentity": {"type": "matchRepository"}}
        key, root, log = kit.new_key(), kit.Authority.root(), kit.Log()
        signed = kit.payload(digest, name)
        raw, blobs = kit.manifest(
            [kit.by_key(key, signed), kit.keyless(root.intermediate("between"), log, signed)]
        )
        for blob in blobs.values():
            beside.put_blob(blob)
        beside.put_manifest(digest.replace(":", "-") + ".sig", raw)
        gpg_home.key("rig")
        blob = gpg_home.sign(payload(digest, f"{name}:latest"), "rig")
        where = f"lookaside/{REPOSITORY}@{digest.replace(':', '=')}/signature-1"
        self.write(where, blob)
        self.write(
            "registries.d/all.yaml",
            json.dumps(
                {
                    "default-docker": {
                        "lookaside": f"file://{self.root}/lookaside",
                        "use-sigstore-attachments": True,
                    }
                }
            ),
        )
        public = Sigstore()
        beside.attach(digest, public.keyless(statement(digest)))
        self.write("root.json", public.trusted_root())
        trust = self.write(
            "trust.toml",
            f'[scope."{self.server.host}"]\nforms = ["bundle"]\ntrusted-root = "root.json"\n'
            f'[[scope."{self.server.host}".signer]]\nissuer = "{kit.ISSUER}"\nsubject = "{WORKFLOW}"\n',
        )
        by_key = {"type": "sigstoreSigned", "keyData": kit.b64(kit.public_pem(key))} | identity
        fulcio = {
            "caData": kit.b64(root.pem),
            "oidcIssuer": kit.ISSUER,
            "subjectEmail": kit.EMAIL,
        }
        keyless = {
            "type": "sigstoreSigned",
            "fulcio": fulcio,
            "rekorPublicKeyData": kit.b64(log.pem),
        } | identity
        gpg = {"type": "signedBy", "keyType": "GPGKeys", "keyData": kit.b64(gpg_home.public("rig"))}
        return [
            Way("no signature is asked for", ("--insecure-policy",)),
            Way("sigstoreSigned, a key", self.policy("key", by_key)),
            Way("sigstoreSigned, Fulcio and Rekor", self.policy("fulcio", keyless)),
            Way("signedBy, lookaside in a directory", self.policy("gpg", gpg)),
            Way("trust.toml, a workflow's bundle", (*self.policy("any", ACCEPT), "--trust-file", str(trust))),
        ]

    def run(self, way: Way) -> tuple[float, int]:
        """Seconds, and body bytes that the registry sent."""
        self.server.reset()
        command = [LAYERTEE, "inspect", "--json", "--tls-verify=false", "--store", str(self.root / "store")]
        begin = time.perf_counter()
        done = subprocess.run([*command, *way.options, self.image], capture_output=True, check=False)
        took = time.perf_counter() - begin
        if done.returncode or not json.loads(done.stdout)["policy"]["accepted"]:
            raise SystemExit(f"{way.name}: {done.stderr.decode()}{done.stdout.decode()}")
        return took, sum(one.nbytes for one in self.server.accesses())


def main(words: Sequence[str] | None = None) -> int:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.signatures", description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args(words).runs
    with (
        tempfile.TemporaryDirectory() as scratch,
        signer() as home,
        RegistryServer(Path(scratch, "r")) as server,
    ):
        root = Path(scratch)
        image = build_image(root / "image", [text_layer({"a": "a"})])
        upload(image, f"{REPOSITORY}:latest", server)
        rig = Rig(root, server, f"{server.host}/{REPOSITORY}:latest")
        ways = rig.ways(image.digest, home)
        found: dict[str, list[tuple[float, int]]] = {way.name: [] for way in ways}
        for number in range(runs + 1):
            for way in random.sample(ways, len(ways)):
                measured = rig.run(way)
                if number:
                    found[way.name].append(measured)
    wall = {name: statistics.median(took for took, _ in rows) for name, rows in found.items()}
    sent = {name: rows[-1][1] for name, rows in found.items()}
    base = ways[0].name
    print("| | wall ms | beside no check | bytes beside |\n|---|---|---|---|")
    for way in ways:
        more, nbytes = (wall[way.name] - wall[base]) * 1000, sent[way.name] - sent[base]
        print(f"| {way.name} | {wall[way.name] * 1000:.0f} | {more:+.0f} | {nbytes:+d} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
