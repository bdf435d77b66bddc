"""``python -m release``: which command runs, and what it does with words that make no sense."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from email.utils import parseaddr
from pathlib import Path

import pytest

import layertee
from release import project

ROOT = Path(__file__).resolve().parents[2]


def release(*words: str) -> subprocess.CompletedProcess[str]:
    """The command, run in the checkout."""
    command = [sys.executable, "-m", "release", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_without_a_command_the_commands_are_listed() -> None:
    done = release("--help")
    assert done.returncode == 0
    assert "\n  wheels  " in done.stdout and "\n  lock    " in done.stdout


def test_an_unknown_command_is_refused_with_the_list_of_those_there_are() -> None:
    done = release("weels")
    assert done.returncode == 2
    assert done.stderr.startswith("release: no such command: weels\n") and "\n  wheels  " in done.stderr


def test_the_version_is_the_packages() -> None:
    assert project.version() == layertee.__version__


def test_the_maintainer_is_a_name_and_an_address_that_the_project_states() -> None:
    name, address = parseaddr(project.maintainer())
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["authors"]
    assert stated == [{"name": name, "email": address}]
    assert name and re.fullmatch(r"[a-z]+@[a-z]+(\.[a-z]+)+", address)


def test_the_date_is_that_of_the_last_commit_unless_the_environment_has_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    last = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert project.source_date() == int(last.stdout)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert project.source_date() == 86400
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(project.ReleaseError, match="'yesterday'"):
        project.source_date()


def test_a_command_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(project.ReleaseError, match=r"this failed: ls /nonexistent/place\nls: "):
        project.run("ls", "/nonexistent/place", env={"LC_ALL": "C"})
    with pytest.raises(project.ReleaseError, match="/nonexistent/tool is not there"):
        project.run("/nonexistent/tool")
