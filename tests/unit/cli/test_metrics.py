"""How a command went, as a file for Prometheus."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from layertee.cli.main import main
from layertee.cli.metrics import LAST_SUCCESS, MetricsFile
from layertee.cli.reporting import Reporting
from layertee.errors import InvalidReference, LocalError, NotFound
from tests.support.pages import DOCS

IMAGE = "r.test/os:1"
PULLED = {
    "image": IMAGE,
    "bytes_fetched": 7,
    "bytes_reused": 5,
    "layers": [{"action": "fetch"}, {"action": "have"}, {"action": "have"}],
}
VERIFIED = {"blobs": 3, "bytes": 99, "bad": [{}], "missing": ["a", "b"]}
PREPARED = {"bytes_to_download": 4, "layers": [{"step": "link"}, {"step": "download"}]}
FAILED = {"code": "CONNECT", "exit_code": 4}


def arguments(command: str, *images: str) -> argparse.Namespace:
    return argparse.Namespace(command=command, images=list(images))


def values(path: Path) -> dict[tuple[str, ...], float]:
    """By the name, and the values of all labels but ``command`` and an ``image`` that is the usual one."""
    found = {}
    text = path.read_text()
    assert text.endswith("\n")
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation
        for sample in family.samples:
            assert sample.timestamp is None and {"command", "image"} <= set(sample.labels)
            rest = [value for name, value in sorted(sample.labels.items()) if name != "command"]
            found[(sample.name, *(value for value in rest if value not in ("", IMAGE)))] = sample.value
    return found


def written(
    path: Path, command: str, code: int, result: Any, error: Any = None
) -> dict[tuple[str, ...], float]:
    MetricsFile(path, arguments(command, IMAGE)).write(code, result, error)
    return values(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "layertee.prom"


def test_a_pull_has_its_amounts_and_its_end(path: Path) -> None:
    before = time.time()
    found = written(path, "pull", 0, PULLED)
    for name in ("layertee_last_run_timestamp_seconds", LAST_SUCCESS):
        assert before <= found.pop((name,)) <= time.time()
    assert 0 <= found.pop(("layertee_last_run_duration_seconds",)) < 60
    assert found == {
        ("layertee_last_run_exit_code",): 0,
        ("layertee_last_run_fetched_bytes",): 7,
        ("layertee_last_run_reused_bytes",): 5,
        ("layertee_last_run_layers", "fetch"): 1,
        ("layertee_last_run_layers", "have"): 2,
    }
    assert path.stat().st_mode & 0o777 == 0o644 and os.listdir(path.parent) == [path.name]


def test_each_series_is_there_once(path: Path) -> None:
    """Whether the command failed as a whole or for one of its images."""
    names = ("a/\udcff", IMAGE, IMAGE, "a/\\xff", IMAGE)
    rows = [{"image": name, "error": FAILED} for name in names]
    for result in (None, {"images": rows}):
        MetricsFile(path, arguments("pull", *names)).write(143, result, FAILED)
        lines = [line.rpartition(" ")[0] for line in path.read_text().splitlines() if line[0] != "#"]
        assert len(lines) == len(set(lines)) and len({line.partition("image=")[2] for line in lines}) >= 2
        assert {sample[1:] for sample in values(path) if sample[0].endswith("_exit_code")} == {
            (),
            ("a/\\xff",),
        }


def test_the_last_success_is_kept_while_runs_fail(path: Path) -> None:
    written(path, "pull", 0, PULLED)
    path.write_text(re.sub(rf"^({LAST_SUCCESS}.*) \S+$", r"\1 1700000000.0", path.read_text(), flags=re.M))
    succeeded = 1.7e9
    for _ in range(2):
        found = written(path, "pull", 4, None, FAILED)
        assert found[LAST_SUCCESS,] == succeeded
        assert found["layertee_last_run_error", "CONNECT"] == 1
        assert found["layertee_last_run_exit_code",] == 4
        assert ("layertee_last_run_fetched_bytes",) not in found
    assert written(path, "pull", 0, PULLED)[LAST_SUCCESS,] > succeeded
    assert (LAST_SUCCESS,) not in written(path, "prepare", 4, None, FAILED), (
        "that of another command is not its"
    )


@pytest.mark.parametrize(
    "old", [b"", b"\xff\xfe", b"no metrics {", b'layertee_last_success_timestamp_seconds{x="y"} 1\n']
)
def test_a_file_that_makes_no_sense_is_replaced(path: Path, old: bytes) -> None:
    path.write_bytes(old)
    assert (LAST_SUCCESS,) not in written(path, "pull", 4, None, FAILED)
    assert (LAST_SUCCESS,) in written(path, "pull", 0, PULLED)


def test_several_images_have_a_row_each(path: Path) -> None:
    rows = [PULLED, {"image": "r.test/b:1", "error": FAILED}]
    file = MetricsFile(path, arguments("pull", IMAGE, "r.test/b:1"))
    file.write(4, {"images": rows}, None)
    found = values(path)
    assert found["layertee_last_run_exit_code",] == 0
    assert found["layertee_last_run_exit_code", "r.test/b:1"] == 4
    assert found["layertee_last_run_error", "CONNECT", "r.test/b:1"] == 1
    assert (LAST_SUCCESS,) in found and (LAST_SUCCESS, "r.test/b:1") not in found


def test_every_metric_is_documented(path: Path) -> None:
    page = (DOCS / "reference/metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(layertee_\w+)` \|", page, re.M))
    runs: list[tuple[str, int, Mapping[str, Any] | None, Mapping[str, Any] | None]] = [
        ("pull", 0, PULLED, None),
        ("pull", 4, None, FAILED),
        ("verify", 3, VERIFIED, None),
        ("prepare", 0, PREPARED, None),
    ]
    there = {name for run in runs for name, *_ in written(path, *run)}
    assert there == documented


def test_a_verification_counts_what_is_wrong_and_is_of_no_image(path: Path) -> None:
    found = written(path, "verify", 3, VERIFIED)
    assert (found["layertee_last_run_bad_blobs",], found["layertee_last_run_missing_blobs",]) == (1, 2)
    assert 'command="verify",image=""' in path.read_text()


def test_a_name_that_would_be_passed_over_is_refused_and_so_is_one_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidReference, match=r"end in \.prom"):
        MetricsFile(tmp_path / "layertee.txt", arguments("pull", IMAGE))
    with pytest.raises(LocalError):
        MetricsFile(tmp_path / "none/x.prom", arguments("pull", IMAGE))


def test_a_command_that_fails_writes_it_and_a_dry_run_does_not(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = argparse.Namespace(
        command="pull", images=[IMAGE], progress_fd=None, metrics_file=path, arrived=(), dry_run=True
    )
    with Reporting(args) as reporting:
        reporting.done(PULLED)
    assert not path.exists()
    args.dry_run = False
    with pytest.raises(NotFound), Reporting(args):
        raise NotFound("x")
    assert values(path)["layertee_last_run_error", "NOT_FOUND"] == 1
    with Reporting(args) as reporting:
        reporting.done(PULLED)
        path.unlink()
        path.mkdir()
    assert "layertee: warning: " in capsys.readouterr().err, "and the command ends as it would have"


def test_a_command_that_does_not_begin_fails_for_the_images_of_its_last_run(path: Path) -> None:
    usage = {"code": "USAGE", "exit_code": 1}
    MetricsFile.of_none_begun(path, "pull").write(1, None, usage)
    assert values(path)["layertee_last_run_error", "USAGE"] == 1
    written(path, "pull", 0, PULLED)
    succeeded = values(path)[LAST_SUCCESS,]
    for _ in range(2):
        MetricsFile.of_none_begun(path, "pull").write(1, None, usage)
        text = path.read_text()
        assert f'layertee_last_run_exit_code{{command="pull",image="{IMAGE}"}} 1.0' in text
        assert 'image=""' not in text
        assert values(path)[LAST_SUCCESS,] == succeeded
    MetricsFile.of_none_begun(path, "prepare").write(1, None, usage)
    assert 'exit_code{command="prepare",image=""} 1.0' in path.read_text()


@pytest.mark.parametrize(
    ("words", "variable", "code"),
    [
        (("pull", "--metrics-file", "FILE", "--no-such"), False, "USAGE"),
        (("pull", "--metrics-file=FILE"), False, "USAGE"),
        (("prepare", "x", "--ostree-repo=/none"), True, "SETTINGS"),
        (("verify", "--metrics-file", "FILE", "--core"), False, "USAGE"),
        (("pull", "--sandbox", "require", "x"), True, "SANDBOX"),
    ],
)
def test_a_mistake_is_in_the_file_that_the_words_or_the_environment_name(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    variable: bool,
    code: str,
) -> None:
    if code == "SETTINGS":
        monkeypatch.setenv("LAYERTEE_MAX_RATE", "much")
    if variable:
        monkeypatch.setenv("LAYERTEE_METRICS_FILE", str(path))
    try:
        ended = main([word.replace("FILE", str(path)) for word in words])
    except SystemExit as exc:
        ended = exc.code  # type: ignore[assignment]
    assert ended == 1
    assert f'code="{code}"' in next(line for line in path.read_text().splitlines() if "_error{" in line)


@pytest.mark.parametrize(
    "words",
    [
        ("pull", "--dry-run", "--metrics-file", "FILE", "--no-such"),
        ("ls", "--metrics-file", "FILE"),
        ("pull", "--no-such", "--", "--metrics-file", "FILE"),
        ("pull", "--no-such", "--metrics-file"),
        ("no-such", "--metrics-file", "FILE"),
    ],
)
def test_a_mistake_of_a_command_that_writes_none_is_in_no_file(path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        main([word.replace("FILE", str(path)) for word in words])
    assert os.listdir(path.parent) == []
