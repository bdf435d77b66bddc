"""The rig of ``layertee serve``: what it counts, and what it does not let pass."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.support.rig.images import BuiltImage
from tests.support.rig.registry import RigError
from tests.support.rig.serve import ServeRig
from tests.support.served import REPOSITORY, TAG, Shop, build

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build(tmp_path_factory.mktemp("served"))


def test_requests_and_their_bytes_are_counted_from_a_reset_on(image: BuiltImage, tmp_path: Path) -> None:
    first, second, *_ = image.layers
    with ServeRig(tmp_path, f"oci:{image.root}") as server:
        server.get(f"/v2/{REPOSITORY}/blobs/{first.digest}")
        assert server.blob_bytes() == first.size
        server.reset()
        server.get(f"/v2/{REPOSITORY}/blobs/{second.digest}", {"Range": "bytes=5-104"})
        server.get(f"/v2/{REPOSITORY}/blobs/{first.digest}", method="HEAD")
        assert Shop(server, image).manifest == image.manifest
        asked = [(one.method, one.kind, one.status, one.nbytes) for one in server.accesses()]
        assert asked == [
            ("GET", "blob", 206, 100),
            ("HEAD", "blob", 200, 0),
            ("GET", "manifest", 200, len(image.manifest)),
        ]
        assert (server.blob_bytes(), server.blob_bytes(digests=[first.digest])) == (100, 0)
        assert server.json(f"/v2/{REPOSITORY}/tags/list") == {"name": REPOSITORY, "tags": [TAG]}
        # The server's own count has the rig's requests, too.
        counted = re.search(rb"^layertee_serve_sent_bytes_total (\S+)$", server.get("/metrics")[2], re.M)
        assert counted is not None and float(counted[1]) > first.size + 100 + len(image.manifest)


def test_what_does_not_come_up_says_why(tmp_path: Path) -> None:
    with pytest.raises(RigError, match="nowhere"):
        ServeRig(tmp_path, options=[f"--htpasswd={tmp_path}/nowhere"]).start()


def test_what_was_killed_did_not_end_well(image: BuiltImage, tmp_path: Path) -> None:
    server = ServeRig(tmp_path, f"oci:{image.root}")
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(RigError, match="-9"):
        server.stop()
