"""What measures servers of images: the client that throws bytes away, the reading of files, the summaries."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import reading
from bench.drain import DrainError, drain
from bench.floor import FloorError
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import Entry, LayerSpec, hard_link_layer, incompressible_layer, text_layer
from tests.support.rig.nginx import NginxRegistry
from tests.support.rig.storage import StorageRig


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    files = LayerSpec(tuple(Entry(f"usr/f{n}", seed=n, size=70_000) for n in range(9)), "files")
    layers = [incompressible_layer(3_000_000), text_layer({"etc/release": "1\n", "etc/empty": ""}), files]
    return build_image(tmp_path_factory.mktemp("image"), [*layers, hard_link_layer()], compression="none")


@pytest.mark.slow
@pytest.mark.parametrize("hashed", [True, False])
def test_every_blob_is_received_once(image: BuiltImage, tmp_path: Path, hashed: bool) -> None:
    paths = {f"/v2/os/blobs/{digest}": digest for digest in image.layer_digests}
    with NginxRegistry(tmp_path) as server:
        server.add(image, "os:1")
        taken = drain(server.host, list(paths), connections=2, hashed=hashed)
        assert taken.nbytes == image.blob_bytes == server.blob_bytes()
        assert taken.digests == (paths if hashed else {})
        assert len({access.connection for access in server.requests()}) <= 2
        with pytest.raises(DrainError, match="404"):
            drain(server.host, ["/v2/os/blobs/none"])


@contextmanager
def answering(*pieces: bytes) -> Iterator[str]:
    """A server that answers the first connection with these bytes, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def test_a_body_in_one_piece_with_its_head_is_counted_to_the_byte() -> None:
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello") as host:
        taken = drain(host, ["/"], hashed=True)
    assert taken.nbytes == 5
    assert taken.digests["/"].startswith("sha256:2cf24dba5fb0a30e")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "1 bytes are missing"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "no answer"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "200 OK"),
        (b"HTTP/1.1 206 Partial\r\nContent-Length: 5\r\n\r\nhello", "206 Partial"),
    ],
)
def test_less_than_a_whole_blob_is_refused(answer: bytes, why: str) -> None:
    with answering(answer) as host, pytest.raises(DrainError, match=why):
        drain(host, ["/"])


@pytest.mark.slow
@pytest.mark.needs_root("podman's store")
def test_files_are_read_as_the_layers_have_them(image: BuiltImage, tmp_path: Path) -> None:
    store = StorageRig(tmp_path / "s", "overlay")
    store.take(image.skopeo_name, "localhost/os:1")
    diff_ids = [layer.diff_id for layer in image.layers]
    files = list(reading.files_of(store, diff_ids))
    names = [file.relative_to(store.tree(diff_ids[2])).as_posix() for file in files[2:11]]
    assert names == [f"usr/f{n}" for n in range(9)]
    assert reading.write_list(tmp_path / "files", iter(files)) == len(files)
    program = reading.build(tmp_path)
    read = reading.run_once(program, tmp_path / "files")
    assert read.nbytes == sum(file.stat().st_size for file in files) > 3_630_000
    assert read.cpu_s > 0 and read.wall_s > 0
    (tmp_path / "files").write_bytes(b"/nowhere\0")
    with pytest.raises(FloorError, match="/nowhere: No such file"):
        reading.run_once(program, tmp_path / "files")
