"""A trusted root from a TUF repository: made known by the sigstore library, kept, and asked for anew."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from layertee.errors import TrustFileError
from tests.support.bundlekit import WORKFLOW, Sigstore
from tests.support.sigstorekit import ISSUER
from tests.support.trustmachine import FOR_IMAGE, Machine

pytestmark = pytest.mark.slow

KEYLESS = f'signer = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}"}}]'
SERVICES = {
    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
    "rekorTlogConfig": {"selector": "ANY"},
    "tsaConfig": {"selector": "ANY"},
}


class Repository:
    """A TUF repository in ``directory``, with one key for all roles, as sigstore's have it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._signer = CryptoSigner.generate_ed25519()
        self._version = 0
        self._expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
        root = Root(expires=self._expires, consistent_snapshot=True)
        for role in ("root", "timestamp", "snapshot", "targets"):
            root.add_key(self._signer.public_key, role)
        self._write("1.root.json", Metadata(root))

    @property
    def root(self) -> Path:
        """What a client begins with."""
        return self.directory / "1.root.json"

    def publish(self, trusted_root: bytes) -> None:
        """A new version, with this trusted root."""
        self._version += 1
        n = self._version
        targets = Targets(version=n, expires=self._expires)
        (self.directory / "targets").mkdir(exist_ok=True)
        for name, raw in (
            ("trusted_root.json", trusted_root),
            ("signing_config.v0.2.json", json.dumps(SERVICES).encode()),
        ):
            target = TargetFile.from_data(name, raw, ["sha256"])
            targets.targets[name] = target
            (self.directory / "targets" / f"{target.hashes['sha256']}.{name}").write_bytes(raw)
        self._write(f"{n}.targets.json", Metadata(targets))
        snapshot = Snapshot(version=n, expires=self._expires, meta={"targets.json": MetaFile(n)})
        self._write(f"{n}.snapshot.json", Metadata(snapshot))
        timestamp = Timestamp(version=n, expires=self._expires, snapshot_meta=MetaFile(n))
        self._write("timestamp.json", Metadata(timestamp))

    def _write(self, name: str, metadata: Metadata) -> None:
        metadata.sign(self._signer)
        metadata.to_file(str(self.directory / name))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[Repository, str]]:
    """One, and its URL."""
    (tmp_path / "repository").mkdir()
    made = Repository(tmp_path / "repository")
    handler = functools.partial(_Quiet, directory=str(made.directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_root_is_made_known_kept_and_asked_for_anew(
    repository: tuple[Repository, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuf, url = repository
    for name in ("cache", "data"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    first, second = Sigstore(), Sigstore()
    tuf.publish(first.trusted_root())
    machine = Machine(tmp_path, first)
    kept = f'tuf = true\ntuf-url = "{url}"\n{KEYLESS}'
    anew = f'tuf = true\ntuf-url = "{url}"\ntuf-refresh = true\n{KEYLESS}'
    by_first, by_second = first.keyless(FOR_IMAGE), second.keyless(FOR_IMAGE)
    for text in (kept, anew):
        with pytest.raises(TrustFileError, match="cannot be had by TUF"):
            machine.check(text, by_first, root=False)
    known = ["--instance", url, "trust-instance", str(tuf.root)]
    subprocess.run([sys.executable, "-m", "sigstore", *known], check=True, capture_output=True)
    for text in (kept, anew):
        assert machine.check(text, by_first, root=False)
        machine.refuses(text, by_second, root=False)
    tuf.publish(second.trusted_root())
    assert machine.check(kept, by_first, root=False)
    assert machine.check(anew, by_second, root=False)
    assert machine.check(kept, by_second, root=False)
    machine.refuses(kept, by_first, root=False)
    (tuf.directory / "timestamp.json").unlink()
    assert machine.check(kept, by_second, root=False)
    with pytest.raises(TrustFileError, match="cannot be had by TUF"):
        machine.check(anew, by_second, root=False)
