"""``--json``: every command's object, its errors' included, is what the published schema says."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Gate, Held, OtherBody
from tests.support.fakes.refusals import Status
from tests.support.jsonshapes import PUBLISHED, SHAPES, check
from tests.support.process import PLAIN, Cli, flip_a_byte
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/name": "name\n"}), incompressible_layer(400_000, seed=3)]
    return build_image(tmp_path_factory.mktemp("json"), layers, labels={"version": "1"})


@pytest.fixture
def server(image: BuiltImage) -> Iterator[FaultServer]:
    with FaultServer(image) as server:
        yield server


def printed(user: Cli, *words: object, code: int = 0) -> dict[str, Any]:
    """What is on standard output, which is one object."""
    name, *rest = map(str, words)
    document: dict[str, Any] = json.loads(user.run(name, "--json", *rest, code=code).out)
    return document


def test_what_is_published_is_a_schema() -> None:
    Draft202012Validator.check_schema(PUBLISHED)
    named = json.dumps(PUBLISHED)
    for name in PUBLISHED["$defs"]:
        assert f'"#/$defs/{name}"' in named, "nothing leads to it"


def test_a_key_that_is_in_no_schema_is_seen() -> None:
    check("rm", {"schema": 1, "removed": []})
    for wrong in ({"schema": 1, "removed": [], "more": 1}, {"schema": 2, "removed": []}, {"schema": 1}):
        with pytest.raises(ValidationError):
            check("rm", wrong)
    Draft202012Validator(PUBLISHED).validate({"schema": 1, "removed": [], "more": 1})
    assert "rm" in SHAPES


def test_every_command_prints_what_its_schema_says(user: Cli, server: FaultServer) -> None:
    name = server.reference
    planned = printed(user, "pull", PLAIN, "--dry-run", name)
    pulled = printed(user, "pull", PLAIN, name)
    for value in (planned, pulled):
        check("pull", value)
    assert (planned["dry_run"], pulled["dry_run"]) == (True, False)
    check("inspect", printed(user, "inspect", PLAIN, name))
    for words, shape in {
        ("ls",): "ls",
        ("ls", "--partial"): "ls_partial",
        ("map",): "map",
        ("gc",): "gc",
        ("verify",): "verify",
        ("doctor",): "doctor",
        ("doctor", name): "doctor_image",
    }.items():
        check(shape, printed(user, *words))
    check("rm", printed(user, "rm", name))


def test_a_verification_that_could_not_repair_says_what_it_found_and_why_it_failed(
    user: Cli, image: BuiltImage, server: FaultServer
) -> None:
    user.pull(server.reference)
    flip_a_byte(user.blob(image.layers[1].digest))
    server.script([on("manifest", Status(503))])
    value = printed(user, "verify", PLAIN, "--repair", server.reference, code=4)
    check("verify_error", value)
    assert [bad["digest"] for bad in value["bad"]] == [image.layers[1].digest]
    assert value["error"]["code"] == "HTTP_5XX" and value["error"]["status"] == 503
    assert server.host in value["error"]["url"] and value["error"]["retryable"] is True


def test_a_pull_that_failed_says_what_it_kept(user: Cli, image: BuiltImage, server: FaultServer) -> None:
    server.script([on("blob", OtherBody(0), reference=image.layers[1].digest)])
    value = printed(user, "pull", PLAIN, "--verify=digest", server.reference, code=3)
    check("pull_error", value)
    assert value["manifest_digest"] == image.digest
    assert value["kept"]["layers_total"] == 2 and value["kept"]["store"] == str(user.store)
    error = value["error"]
    assert (error["code"], error["want"]) == ("DIGEST_MISMATCH", image.layers[1].digest)
    assert error["got"] not in (None, error["want"]) and error["exit_code"] == 3


def test_a_pull_that_is_ended_says_by_what(user: Cli, image: BuiltImage, server: FaultServer) -> None:
    gate, layer = Gate(), image.layers[1]
    server.script([on("blob", Held(gate, layer.size // 2), reference=layer.digest)])
    process = user.start("pull", PLAIN, "--json", server.reference)
    gate.wait_arrived()
    process.send_signal(signal.SIGTERM)
    value = json.loads(user.finish(process, 143).out)
    check("pull_error", value)
    assert (value["error"]["code"], value["error"]["signal"]) == ("INTERRUPTED", "SIGTERM")
    assert value["error"]["exit_code"] == 143


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("pull",), 1, "USAGE"),
        (("ls", "--frobnicate"), 1, "USAGE"),
        (("pull", "--to", "docker-archive:x", "a.test/b"), 1, "BAD_REF"),
        (("rm", "x"), 2, "NOT_FOUND"),
        (("pull", "oci:/nonexistent"), 2, "NOT_FOUND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_whatever_fails_is_an_object_with_a_code(
    user: Cli, words: tuple[str, ...], code: int, what: str, tmp_path: Path
) -> None:
    value = printed(user, *words, code=code)
    check("error", value)
    assert (value["error"]["code"], value["error"]["exit_code"]) == (what, code)
    assert user.run(*words, code=code).out == "", "without --json there is nothing on standard output"
