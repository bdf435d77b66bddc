"""The registry that has tars in place of blobs does what it says."""

from __future__ import annotations

import gzip
import http.client
import json

import pytest

from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer
from tests.support.fakes.tars import HOLDS, KNOWS, REPOSITORY, has_tars
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"a": "a"}), text_layer({"b": "b"}), text_layer({"c": "c"})]
    return build_image(tmp_path_factory.mktemp("image"), layers, compression=["gzip", "zstd", "gzip"])


def ask(server: FaultServer, method: str, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(server.host)
    try:
        connection.request(method, f"/v2/{REPOSITORY}/{path}")
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_is_gone_and_its_tar_is_there(image: BuiltImage, method: str) -> None:
    gone, kept = image.layers[:2], image.layers[2]
    with FaultServer(image) as server:
        server.script(has_tars(server, image, gone))
        assert ask(server, method, "manifests/latest")[0].headers[KNOWS] == "1"
        for layer in gone:
            answer, body = ask(server, method, f"blobs/{layer.digest}")
            assert (answer.status, answer.headers[HOLDS]) == (404, layer.diff_id)
            if method == "GET":
                (error,) = json.loads(body)["errors"]
                assert error["detail"] == {"digest": layer.digest, "diffID": layer.diff_id}
            answer, body = ask(server, method, f"blobs/{layer.diff_id}")
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(layer.uncompressed_size))
            assert method == "HEAD" or digest_of(body) == layer.diff_id
        answer, body = ask(server, "GET", f"blobs/{kept.digest}")
        assert answer.status == 200 and digest_of(gzip.decompress(body)) == kept.diff_id
        assert ask(server, method, f"blobs/{kept.diff_id}")[0].status == 404


def test_it_may_say_nothing_about_diff_ids(image: BuiltImage) -> None:
    with FaultServer(image) as server:
        server.script(has_tars(server, image, marked=False, tells=False))
        assert ask(server, "GET", "manifests/latest")[0].headers[KNOWS] is None
        layer = image.layers[0]
        answer, _ = ask(server, "GET", f"blobs/{layer.digest}")
        assert (answer.status, answer.headers[HOLDS]) == (404, None)
        assert ask(server, "GET", f"blobs/{layer.diff_id}")[0].status == 200
