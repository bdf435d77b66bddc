"""What login and logout refuse before anything is asked or read."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from layertee.cli import main as cli
from layertee.cli.arguments import parse
from layertee.cli.exits import EXIT_ERROR
from layertee.cli.shared import options_of
from layertee.config.logins import Login


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("login", "host"), "neither a dot nor a port"),
        (("login", "quay.io/ns:tag"), "nor host/namespace"),
        (("login", "-u", "me", "quay.io"), "no terminal"),
        (("login", "--password-stdin", "quay.io"), "is for --username"),
        (("login", "quay.io"), "no terminal"),
        (("logout",), "or give --all"),
        (("logout", "--all", "quay.io"), "or give --all"),
    ],
)
def test_what_makes_no_sense(
    words: tuple[str, ...],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", "/dev/null")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # also where pytest has a terminal
    assert cli.main(words) == EXIT_ERROR
    told = capsys.readouterr()
    assert text in told.err and told.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("pull", "--creds", "me:x", "app"), "with its registry"),
        (("tags", "--creds", "me:x", "app"), "with its registry"),
        (("pull", "--creds", "me:x", "oci:/nonexistent"), "in no registry"),
        (("pull", "--creds", ":x", "quay.io/app"), "begins with a user name"),
        (("inspect", "--creds", "me", "quay.io/app"), "no terminal"),
        (("pull", "--creds", "me:x", "--signatures-by", "skopeo", "quay.io/app"), "not for --signatures-by"),
    ],
)
def test_a_login_on_the_command_line_that_cannot_be_meant(
    words: tuple[str, ...],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", "/dev/null")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # also where pytest has a terminal
    command, *rest = words
    store = () if command == "tags" else ("--store", str(tmp_path / "store"))
    assert cli.main((command, *store, *rest)) == EXIT_ERROR
    assert text in capsys.readouterr().err


def test_a_login_on_the_command_line_is_for_the_registry_of_the_image_alone() -> None:
    args = parse(["pull", "--creds", "me:pass:word", "--authfile", "/x", "docker://Quay.io/app:1"])
    options = options_of(args)
    assert options.credentials == {"quay.io": Login("me", "pass:word")} and options.authfile is None
    assert "pass:word" not in repr(options)
    assert options_of(parse(["pull", "--authfile", "/x", "quay.io/app:1"])).credentials is None
