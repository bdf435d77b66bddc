"""What login and logout refuse before anything is asked or read."""

from __future__ import annotations

from pathlib import Path

import pytest

from layertee.cli import main as cli
from layertee.cli.exits import EXIT_ERROR


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
    assert cli.main(words) == EXIT_ERROR
    told = capsys.readouterr()
    assert text in told.err and told.out == ""
    assert list(tmp_path.iterdir()) == []
