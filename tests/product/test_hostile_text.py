"""What others wrote is shown without its control characters, on both outputs, at every level of logging."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socketserver
import subprocess
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.refusals import Redirect, Status
from tests.support.process import PLAIN, Cli, Ran, authfile
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer

pytestmark = pytest.mark.slow

# Clear the screen, colour, C1, title, override of direction, line separator, carriage return, line feed.
EVIL = "\x1b[2J\x1b[31m\x9b1m\x1b]0;t\x07\u202e\u2066\u2028\r\nlayertee: all is well\x7f"
LABEL = "\x1b[31mred\u202e\nlayertee: all is well"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/name": "name\n" * 1000})]
    labels = {"evil": LABEL, LABEL: "value"}
    return build_image(tmp_path_factory.mktemp("hostile"), layers, labels=labels)


def assert_clean(ran: Ran) -> None:
    """Every line is one that this program made, of visible characters only."""
    for text in (ran.out, ran.err):
        assert text == "" or text.endswith("\n")
        for line in text.split("\n"):
            assert all(unicodedata.category(char)[0] != "C" for char in line), ascii(line)
            assert not line.startswith("layertee: all is well")


# --- registries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["manifest", "blob"])
@pytest.mark.parametrize("code", [400, 403, 404, 500])
def test_what_a_registry_says_in_an_error(user: Cli, image: BuiltImage, kind: str, code: int) -> None:
    error = {"errors": [{"code": EVIL, "message": EVIL, "detail": EVIL}], "details": EVIL}
    answer = Status(code, (("Content-Type", "application/json"),), json.dumps(error).encode())
    with FaultServer(image, [on(kind, answer)]) as server:
        for words in (["pull"], ["inspect"], ["pull", "--debug"]):
            ran = user.run(*words, PLAIN, "--stall-timeout=1", server.reference, code=None)
            assert_clean(ran)


def test_the_words_of_the_registry_are_shown_without_their_controls(user: Cli, image: BuiltImage) -> None:
    error = {"errors": [{"code": "DENIED", "message": EVIL}]}
    with FaultServer(image, [on("manifest", Status(403, (), json.dumps(error).encode()))]) as server:
        ran = user.run("pull", PLAIN, server.reference, code=1)
    assert_clean(ran)
    assert "[2J" in ran.err and "all is well" in ran.err


@pytest.mark.parametrize("body", [EVIL.encode(), b'{"a": "' + EVIL.encode() + b'"}', b"\xff\x1b[2J\x00"])
def test_a_document_that_is_something_else(user: Cli, image: BuiltImage, body: bytes) -> None:
    types = (("Content-Type", "text/html; charset=\x9b1m"),)
    for headers in ((), types):
        with FaultServer(image, [on("manifest", Status(200, headers, body))]) as server:
            assert_clean(
                user.run("--debug", "pull", "--store", user.store, PLAIN, server.reference, code=None)
            )


def test_a_redirect_to_a_place_with_a_hostile_name(user: Cli, image: BuiltImage) -> None:
    for location in ("http://\x9b1m.example/", "ftp://x/\xad\x85", "http://[\x9b1m/", "//\x1b[2J"):
        with FaultServer(image, [on("manifest", Redirect(location))]) as server:
            assert_clean(
                user.run("--debug", "pull", "--store", user.store, PLAIN, server.reference, code=None)
            )


class _Proxy(socketserver.StreamRequestHandler):
    """Answers everything with an error in which every part is hostile."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        reason = EVIL.replace("\r\n", " ").encode("latin-1", "replace")
        self.wfile.write(b"HTTP/1.1 407 " + reason + b"\r\nContent-Length: 0\r\nX-Why: \x9b2J\r\n\r\n")


@pytest.fixture
def proxy() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("secure", [True, False])
def test_what_a_proxy_says(user: Cli, proxy: str, secure: bool) -> None:
    words = ["pull", "host.example/os:1"] if secure else ["pull", PLAIN, "host.example/os:1"]
    ran = user.run(*words, code=None, http_proxy=proxy, https_proxy=proxy)
    assert ran.code in (1, 4) and "host.example" in ran.err
    assert_clean(ran)


# --- images and stores ---------------------------------------------------------------------------


def test_labels_are_shown_escaped_and_come_whole_in_json(user: Cli, image: BuiltImage) -> None:
    with FaultServer(image) as server:
        ran = user.run("inspect", PLAIN, server.reference)
        assert_clean(ran)
        assert ran.out.count("\\x1b[31mred\\u202e\\nlayertee: all is well") == 2
        ran = user.run("inspect", PLAIN, "--json", server.reference)
        assert_clean(ran)
        assert ran.out.isascii()
        assert ran.json["labels"] == {"evil": LABEL, LABEL: "value"}


def test_names_in_a_layout_that_somebody_else_wrote(user: Cli, image: BuiltImage) -> None:
    with FaultServer(image) as server:
        user.pull(server.reference)
    index = user.store / "index.json"
    document = json.loads(index.read_text())
    for entry in document["manifests"]:
        entry["annotations"]["org.opencontainers.image.ref.name"] = LABEL
    index.chmod(0o600)
    index.write_text(json.dumps(document))
    for words, code in (
        (("ls",), None),
        (("ls", "--json"), None),
        (("rm", "other"), None),
        (("pull", "--dry-run", f"oci:{user.store}:other"), None),
        (("inspect", f"oci:{user.store}:{LABEL}"), None),
        (("verify",), None),
        (("gc",), None),
        (("doctor",), None),
        (("rm", LABEL), None),
    ):
        assert_clean(user.run(*words, code=code))


@pytest.mark.parametrize("name", [LABEL, "\udcff\udc9b", "a\u202eb"])
def test_names_of_files(user: Cli, image: BuiltImage, name: str) -> None:
    there = user.home / name
    with FaultServer(image) as server:
        assert_clean(user.run("pull", "--debug", PLAIN, "--store", there, server.reference))
        assert_clean(user.run("pull", PLAIN, "--to", f"oci:{there}/to", server.reference, code=None))
    for words in (
        ("doctor", "--store", there),
        ("verify", "--store", there),
        ("ls", "--store", there / "none"),
        ("pull", "--from", f"oci:{there}", "--from", f"oci-archive:{there}/none", f"oci:{there}/none"),
        ("pull", "--authfile", there / "none", "host.invalid/x:1"),
        ("pull", "--cert-dir", there / "none", "host.invalid/x:1"),
        ("install-shim", there / "bin", "--skopeo", there / "none"),
        ("install-shim", "--remove", there / "none"),
    ):
        ran = user.run(*words, code=None)
        assert ran.out or ran.err
        assert_clean(ran)


def test_what_is_in_a_file_of_logins(user: Cli, image: BuiltImage, tmp_path: Path) -> None:
    auth = authfile(tmp_path / "auth.json", EVIL, EVIL, EVIL)
    with FaultServer(image) as server:
        assert_clean(user.run("pull", "--debug", PLAIN, "--authfile", auth, server.reference, code=None))
    auth.write_text(EVIL)
    with FaultServer(image) as server:
        assert_clean(user.run("pull", PLAIN, "--authfile", auth, server.reference, code=None))


def test_arguments_that_cannot_be_parsed(user: Cli) -> None:
    for words in ((EVIL,), ("ls", EVIL), ("pull", EVIL), ("pull", "--layers", EVIL, "x"), ("help", EVIL)):
        ran = user.run(*words, code=1)
        assert_clean(ran)
        assert "\\x1b[2J" in ran.err


# --- terminals ------------------------------------------------------------------------------------


def test_on_a_terminal_it_is_no_different(user: Cli, image: BuiltImage) -> None:
    ours, theirs = pty.openpty()
    with (
        FaultServer(image) as server,
        subprocess.Popen(
            user.command("inspect", PLAIN, server.reference),
            stdout=theirs,
            stderr=theirs,
            env=user.environment(TERM="xterm-256color", COLUMNS="100"),
        ) as process,
    ):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
    assert process.returncode == 0
    assert b"\\x1b[31mred" in shown and b"\x1b" not in shown
