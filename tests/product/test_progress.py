"""What is said while a command runs: lines for people where there is no terminal, events for programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support.ccore import ROOT
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Gate, Held
from tests.support.fakes.refusals import Status, too_many
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer

pytestmark = pytest.mark.slow
SCHEMA = json.loads((ROOT / "docs/reference/progress-1.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/name": "name\n"}), incompressible_layer(400_000, seed=3)]
    return build_image(tmp_path_factory.mktemp("progress"), layers)


@pytest.fixture
def server(image: BuiltImage) -> Iterator[FaultServer]:
    with FaultServer(image) as server:
        yield server


class Watched:
    """A command whose ``--progress-fd`` is a pipe."""

    def __init__(self, user: Cli, name: str, *args: object) -> None:
        self._user = user
        self._reader, writer = os.pipe()
        self.process = subprocess.Popen(
            user.command(name, "--progress-fd", writer, *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=user.environment(),
            pass_fds=(writer,),
        )
        os.close(writer)

    def close_reader(self) -> None:
        """Nobody reads the events any more."""
        os.close(self._reader)
        self._reader = -1

    def events(self, code: int = 0) -> list[dict[str, Any]]:
        """All of them, each of which the schema has; once the command has ended with ``code``."""
        self._user.finish(self.process, code)
        with os.fdopen(self._reader) as file:
            events = [json.loads(line) for line in file]
        for event in events:
            Draft202012Validator(SCHEMA).validate(event)
        return events


def test_a_pull_is_told_from_its_start_to_its_result(
    user: Cli, image: BuiltImage, server: FaultServer
) -> None:
    for n_fetched in (2, 0):
        events = Watched(user, "pull", PLAIN, "-q", server.reference).events()
        kinds = [event["type"] for event in events]
        assert kinds[:3] == ["Start", "ProgressSteps", "Plan"] and kinds[-1] == "Result"
        plan, result = events[2], events[-1]
        assert [layer["action"] for layer in plan["layers"]].count("fetch") == n_fetched
        assert plan["manifestDigest"] == result["result"]["manifest_digest"] == image.digest
        assert plan["bytesToFetch"] == result["result"]["bytes_fetched"]
        assert (result["exitCode"], result["error"]) == (0, None)
    verified = Watched(user, "verify").events()
    assert verified[0]["type"] == "Start" and verified[1]["task"] == "verifying"
    assert verified[-1]["result"]["ok"] is True


def test_an_export_is_told_from_its_start_to_its_result(
    user: Cli, image: BuiltImage, server: FaultServer
) -> None:
    user.run("pull", PLAIN, "-q", server.reference)
    for kind in ("oci-archive", "oci"):
        target = f"{kind}:{user.home / kind}"
        events = Watched(user, "export", "--to", target, server.reference).events()
        assert [event["type"] for event in (events[0], events[1], events[-1])] == [
            "Start",
            "ProgressBytes",
            "Result",
        ]
        progress, result = events[1], events[-1]["result"]
        assert (progress["task"], progress["stepsTotal"]) == ("exporting", 3)
        assert progress["bytesTotal"] == result["bytes_written"] and result["to"] == target
    ran = user.run("export", "--to", f"oci-archive:{user.home / 'again.tar'}", server.reference)
    assert ran.err == f"writing oci-archive:{user.home / 'again.tar'}\n"
    last = Watched(user, "export", "--to", f"oci:{user.home / 'x'}", "none").events(2)[-1]
    assert (last["exitCode"], last["error"]["code"]) == (2, "NOT_FOUND")


def test_the_last_event_says_why_a_pull_failed(user: Cli, server: FaultServer) -> None:
    assert (
        Watched(user, "pull", PLAIN, f"{server.reference}-none").events(2)[-1]["error"]["code"] == "NOT_FOUND"
    )
    assert Watched(user, "pull", "Not A Reference").events(1)[-1]["error"]["code"] == "BAD_REF"
    ran = user.run("pull", "--json", "--progress-fd", "9", server.reference, code=1)
    assert "--progress-fd 9: nothing can be written to it" in ran.json["error"]["message"]


def test_a_pull_that_is_ended_has_a_last_event(user: Cli, image: BuiltImage, server: FaultServer) -> None:
    gate, layer = Gate(), image.layers[1]
    server.script([on("blob", Held(gate, layer.size // 2), reference=layer.digest)])
    pull = Watched(user, "pull", PLAIN, server.reference)
    gate.wait_arrived()
    pull.process.send_signal(signal.SIGTERM)
    last = pull.events(143)[-1]
    assert (last["exitCode"], last["error"]["signal"]) == (143, "SIGTERM")


def test_a_reader_that_goes_away_does_not_stop_the_pull(
    user: Cli, image: BuiltImage, server: FaultServer
) -> None:
    gate, layer = Gate(), image.layers[1]
    server.script([on("blob", Held(gate, layer.size // 2), reference=layer.digest)])
    pull = Watched(user, "pull", PLAIN, server.reference)
    gate.wait_arrived()
    pull.close_reader()
    gate.open()
    user.finish(pull.process)
    user.verified()


def test_of_a_registry_that_does_not_answer_it_is_said_who_is_waited_for(
    user: Cli, server: FaultServer
) -> None:
    gate = Gate()
    server.script([on("manifest", Held(gate, 0))])
    process = user.start("pull", PLAIN, server.reference)
    assert process.stderr is not None
    assert process.stderr.readline() == f"looking for {server.reference}\n"
    assert process.stderr.readline() == f"layertee: waiting for {server.host}, for 5 s so far\n"
    gate.open()
    ran = user.finish(process)
    assert ran.err.startswith(f"2 layers: 2 to fetch from {server.host}, ")


@pytest.mark.parametrize("where", ["manifest", "blob"])
def test_a_wait_that_the_registry_asks_for_is_said_and_is_an_event(
    user: Cli, image: BuiltImage, server: FaultServer, where: str
) -> None:
    refused = image.layers[1].digest if where == "blob" else None
    server.script([on(where, too_many("3600", 503), reference=refused)])
    pull = Watched(user, "pull", PLAIN, "-q", "--patience", "2h", server.reference)
    assert pull.process.stderr is not None
    said = pull.process.stderr.readline()
    assert f"{server.host} answers 503 and asks to be left alone for 60 min: it is asked again in " in said
    pull.process.send_signal(signal.SIGTERM)
    events = pull.events(143)
    (wait,) = [event for event in events if event["type"] == "Wait"]
    assert (wait["host"], wait["status"], wait["askedSeconds"]) == (server.host, 503, 3600)
    assert 3600 <= wait["seconds"] <= 4501
    assert sum((refused or "") in one.target for one in server.requests(where)) == 1


def test_a_registry_that_asks_for_more_than_patience_is_asked_once(user: Cli, server: FaultServer) -> None:
    server.script([on("manifest", too_many("3600", 503))])
    ran = user.pull(server.reference, code=4)
    error = ran.json["error"]
    assert (error["code"], error["retry_after"], error["hint"]) == ("RATE_LIMITED", 3600, "patience")
    assert "--patience" in error["advice"] and "left alone" not in ran.err
    assert len(server.requests("manifest")) == 1


def test_a_deadline_ends_a_wait_that_was_asked_for(user: Cli, server: FaultServer) -> None:
    server.script([on("manifest", too_many("3600", 503))])
    ran = user.pull("--deadline", "2s", server.reference, code=4, LAYERTEE_PATIENCE="1d")
    assert ran.json["error"]["code"] == "DEADLINE"


def test_how_a_command_went_is_in_a_file_for_prometheus(user: Cli, server: FaultServer) -> None:
    path = user.home / "os.prom"
    user.run("pull", PLAIN, "-q", "--metrics-file", path, server.reference)
    first = path.read_text()
    labels = f'{{command="pull",image="{server.reference}"}}'
    assert f"layertee_last_run_exit_code{labels} 0.0\n" in first
    server.script([on("manifest", Status(503))])
    user.run("pull", PLAIN, "-q", "--metrics-file", path, server.reference, code=4)
    success = next(line for line in first.splitlines() if line.startswith("layertee_last_success"))
    second = path.read_text().splitlines()
    assert success in second and f"layertee_last_run_exit_code{labels} 4.0" in second
    ran = user.run("verify", "--metrics-file", user.home / "os.txt", code=1)
    assert "end in .prom [BAD_REF]" in ran.err
