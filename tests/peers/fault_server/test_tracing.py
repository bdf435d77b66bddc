"""Spans for OpenTelemetry, in a program that has it; each program is a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.refusals import Status
from tests.support.pages import DOCS
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer

pytestmark = pytest.mark.skipif(find_spec("opentelemetry.sdk") is None, reason="no OpenTelemetry here")

PULL = """
import sys
import layertee

def pull(name, store):
    try:
        layertee.pull(name, store=store, options=layertee.Options(tls_verify=False))
    except layertee.LayerteeError as exc:
        print(exc.code, file=sys.stderr)
"""
TRACED = """
import json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
pull(*sys.argv[1:])
print(json.dumps([
    {
        "name": span.name,
        "scope": span.instrumentation_scope.name,
        "attributes": dict(span.attributes),
        "status": span.status.status_code.name,
        "id": span.context.span_id,
        "parent": span.parent.span_id if span.parent else None,
    }
    for span in exporter.get_finished_spans()
]))
"""
UNTRACED = """
import json, sys
pull(*sys.argv[1:])
print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry")]))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/name": "name\n"}), incompressible_layer(400_000, seed=3)]
    return build_image(tmp_path_factory.mktemp("tracing"), layers)


@pytest.fixture
def server(image: BuiltImage) -> Iterator[FaultServer]:
    with FaultServer(image) as server:
        yield server


def run(program: str, name: str, home: Path, *, store: Path | None = None) -> tuple[list[Any], str]:
    """What the program prints, and says on standard error."""
    user = Cli(home)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PULL + program, name, str(store or user.store)],
        capture_output=True,
        text=True,
        check=True,
        env=user.environment(),
    )
    printed: list[Any] = json.loads(done.stdout)
    return printed, done.stderr


def test_a_pull_has_a_span_for_each_of_its_parts(
    server: FaultServer, image: BuiltImage, tmp_path: Path
) -> None:
    spans, _ = run(TRACED, server.reference, tmp_path / "home")
    by_name: dict[str, list[dict[str, Any]]] = {}
    for span in spans:
        assert (span["scope"], span["status"]) == ("layertee", "UNSET")
        by_name.setdefault(span["name"], []).append(span)
    assert {name: len(found) for name, found in by_name.items()} == {
        "layertee.resolve": 1,
        "layertee.plan": 1,
        "layertee.pull": 1,
        "layertee.layer": 2,
        "layertee.commit": 2,
        "layertee.publish": 1,
    }
    page = (DOCS / "reference/metrics.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `layertee.")}
    assert set(rows) == {*by_name, "layertee.command"}  # which a program that pulls is not
    for span in spans:
        assert all(f"`{name}`" in rows[span["name"]] for name in span["attributes"])
    (pull,) = by_name["layertee.pull"]
    layers = by_name["layertee.layer"]
    assert {span["parent"] for span in [*layers, *by_name["layertee.publish"]]} == {pull["id"]}
    assert {span["parent"] for span in by_name["layertee.commit"]} == {span["id"] for span in layers}
    sizes = {layer.digest: layer.size for layer in image.layers}
    for span in layers:
        told = span["attributes"]
        assert told["layertee.bytes_fetched"] == told["layertee.size"] == sizes[told["layertee.digest"]]
        assert told["layertee.action"] == "fetch" and "layertee.place" not in told
    assert pull["attributes"]["layertee.bytes_fetched"] == sum(sizes.values())
    for name in ("resolve", "plan", "pull"):
        (span,) = by_name[f"layertee.{name}"]
        assert span["attributes"]["layertee.image"] == server.reference
        assert span["attributes"]["layertee.manifest_digest"] == image.digest


def test_a_span_that_an_error_ends_has_its_code(
    server: FaultServer, image: BuiltImage, tmp_path: Path
) -> None:
    server.script([on("blob", Status(404), reference=image.layers[1].digest)])
    spans, err = run(TRACED, server.reference, tmp_path / "home")
    assert err == "NOT_FOUND\n"
    ended = {span["attributes"].get("layertee.digest", span["name"]): span for span in spans}
    for key in (image.layers[1].digest, "layertee.pull"):
        assert ended[key]["status"] == "ERROR"
        assert ended[key]["attributes"]["error.type"] == "NOT_FOUND"
    assert "layertee.publish" not in ended


BROKEN = """
import json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

class Broken(SpanProcessor):
    def on_start(self, span, parent_context=None):
        raised.append(span.name)
        if sys.argv[2].endswith("start"):
            raise OSError("the collector is away")

    def on_end(self, span):
        raised.append(span.name)
        raise OSError("the collector is away")

raised, provider = [], TracerProvider()
provider.add_span_processor(Broken())
trace.set_tracer_provider(provider)
result = layertee.pull(sys.argv[1], store=sys.argv[2], options=layertee.Options(tls_verify=False))
print(json.dumps([result.bytes_fetched, "layertee.pull" in raised]))
"""


@pytest.mark.parametrize("when", ["start", "end"])
def test_a_pull_does_not_fail_because_of_its_spans(
    server: FaultServer, image: BuiltImage, when: str, tmp_path: Path
) -> None:
    told, err = run(BROKEN, server.reference, tmp_path / "home", store=tmp_path / when)
    assert told == [sum(layer.size for layer in image.layers), True]
    assert err == ""


FOREIGN = """
import json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

def fail(progress):
    raise KeyError("a-secret")

try:
    layertee.pull(sys.argv[1], store=sys.argv[2], options=layertee.Options(tls_verify=False), progress=fail)
except KeyError:
    print(json.dumps([span.to_json() for span in exporter.get_finished_spans()]))
"""


def test_of_an_error_that_is_not_the_engines_the_class_is_all(server: FaultServer, tmp_path: Path) -> None:
    spans, _ = run(FOREIGN, server.reference, tmp_path / "home")
    assert any("KeyError" in span for span in spans)
    assert not any("a-secret" in span for span in spans)


# What opentelemetry-instrument does: a provider is there before the command's first line.
INSTRUMENTED = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

provider = TracerProvider()
out = open({path!r}, "w")
line = lambda span: span.to_json(indent=None) + "\\n"
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=out, formatter=line)))
trace.set_tracer_provider(provider)
"""


def test_a_command_that_is_instrumented_has_one_trace(
    server: FaultServer, image: BuiltImage, tmp_path: Path
) -> None:
    user, at, path = Cli(tmp_path / "home"), tmp_path / "instrumented", tmp_path / "spans"
    at.mkdir()
    (at / "sitecustomize.py").write_text(INSTRUMENTED.format(path=str(path)))
    for name, code in ((server.reference, 0), (f"{server.reference}-none", 2)):
        ran = user.pull(name, code=code, PYTHONPATH=str(at))
        assert "opentelemetry" not in ran.err
        spans = [json.loads(line) for line in path.read_text().splitlines()]
        assert len({span["context"]["trace_id"] for span in spans}) == 1
        (command,) = [span for span in spans if span["parent_id"] is None]
        assert command["name"] == "layertee.command"
        told = command["attributes"]
        beneath = {span["name"] for span in spans if span["parent_id"] == command["context"]["span_id"]}
        if code == 0:
            assert told == {"layertee.command": "pull", "layertee.exit_code": 0}
            assert beneath == {"layertee.resolve", "layertee.plan", "layertee.pull"}
        else:
            assert told == {"layertee.command": "pull", "error.type": "NOT_FOUND"}
            assert beneath == {"layertee.resolve"} and command["status"]["status_code"] == "ERROR"


def test_a_program_without_it_does_not_get_it(server: FaultServer, tmp_path: Path) -> None:
    assert run(UNTRACED, server.reference, tmp_path / "home") == ([], "")
