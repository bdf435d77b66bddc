"""What measures servers of images: the client that throws bytes away, the reading of files, the summaries."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import reading, serve
from bench.contenders import WrongResult
from bench.drain import DrainError, drain
from bench.floor import FloorError
from bench.serve import GOALS, Run, Served, ratio, sending_ratios, sending_rows, tables
from bench.where import BUILT, RESULTS
from tests.support.rig.clients import read_layout
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


# --- the whole, on a small image ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.needs_root("podman's store")
def test_every_server_sends_the_same_blobs(image: BuiltImage, tmp_path: Path) -> None:
    runs = serve.send(image, tmp_path, rounds=1, connections=2)
    ours = {serve.OURS, serve.PODMANS, serve.FIRST, serve.LAYOUT}
    assert set(runs) == {*ours, serve.READING, serve.REGISTRY, serve.NGINX}
    sent = {name: run.nbytes for name, (run,) in runs.items()}
    assert sent.pop(serve.READING) < image.uncompressed_bytes  # tars have heads
    assert set(sent.values()) == {image.uncompressed_bytes}


@pytest.mark.slow
@pytest.mark.needs_root("podman builds as root")
def test_the_loop_is_timed_both_ways(image: BuiltImage, tmp_path: Path) -> None:
    taken = serve.loop(image, tmp_path, 1, changes={"a line": False}, clients=["skopeo"])
    ((what, ways),) = taken.items()
    assert what == "a line, skopeo"
    assert {way: len(seconds) for way, seconds in ways.items()} == {"served": 1, "pushed": 1}
    images = [read_layout(tmp_path / f"skopeo {way}", "os") for way in ways]
    assert images[0].config == images[1].config
    assert images[0].diff_ids == images[1].diff_ids
    assert images[0].diff_ids[:-1] == tuple(layer.diff_id for layer in image.layers)


@pytest.mark.slow
def test_another_blob_than_was_asked_for_is_no_result(image: BuiltImage, tmp_path: Path) -> None:
    first, second, *_ = image.layers
    with NginxRegistry(tmp_path) as server:
        server.add(image, "os:1")
        served = Served(server.host, "os", server.pid)
        assert served.send([first.digest], 1, hashed=True).nbytes == first.size
        wrong = tmp_path / "files/v2/os/blobs" / first.digest
        wrong.unlink()
        wrong.symlink_to(image.blob_path(second.digest))
        with pytest.raises(WrongResult, match=second.digest):
            served.send([first.digest], 1, hashed=True)


def test_ratios_are_those_of_the_rounds() -> None:
    runs = {
        name: [Run(cpu * factor, 1.0, 10**9) for factor in (1, 2, 4)]
        for name, cpu in (
            *((serve.READING, 1.0), (serve.OURS, 0.5), (serve.PODMANS, 1.6)),
            *((serve.FIRST, 1.5), (serve.LAYOUT, 0.5), (serve.REGISTRY, 1.0), (serve.NGINX, 0.25)),
        )
    }
    rows = {row["server"]: row for row in sending_rows(runs)}
    assert (rows[serve.PODMANS]["cpu_s"], rows[serve.PODMANS]["cpu_s_per_gb"]) == (3.2, 3.2)
    ratios = {entry["what"]: entry for entry in sending_ratios(runs)}
    ours = ratios[f"{serve.OURS}, over {serve.REGISTRY}"]
    assert (ours["ratio"], ours["goal"], ours["met"], ours["rounds"]) == (0.5, 1.0, True, 3)
    podmans = ratios[f"{serve.PODMANS}, over {serve.READING}"]
    assert (podmans["ratio"], podmans["goal"], podmans["met"]) == (1.6, 1.5, False)
    assert sum("goal" in entry for entry in ratios.values()) == len(GOALS)
    looped = serve.loop_rows({"a line, skopeo": {"served": [1.0, 2.0, 9.0], "pushed": [4.0, 4.0, 10.0]}})
    assert looped == [{"served_s": 2.0, "pushed_s": 4.0, **ratio("a line, skopeo", [0.25, 0.5, 0.9], 1 / 3)}]
    text = tables({"sending": rows.values(), "sending_ratios": ratios.values(), "loop": looped})
    assert (
        f"| {serve.PODMANS}, over {serve.READING} | 1.600 (1.600-1.600) | 1.500 **not reached** | 3 |" in text
    )
    assert "| a line, skopeo | 2.00 | 4.00 | 0.500 (0.250-0.900) | 0.333 **not reached** | 3 |" in text


def test_results_stay_out_of_those_of_a_whole_measurement() -> None:
    assert serve.arguments([]).out == RESULTS / "serve"
    assert serve.arguments([]).part == ["sending", "loop"]
    for some in (["--small"], ["--part", "loop"]):
        assert serve.arguments(some).out == BUILT / "results" / "serve"
