"""An error as an object for programs."""

from __future__ import annotations

import errno
import inspect
import json
import signal
from pathlib import Path

import pytest

from layertee import errors
from layertee.cli import main as cli
from layertee.cli import store as store_commands
from layertee.cli.failure import describe, mistake
from layertee.cli.hints import HINTS
from layertee.errors import LayerteeError
from tests.support.jsonshapes import keys_of_errors

KINDS = [getattr(errors, name) for name in errors.__all__ if inspect.isclass(getattr(errors, name))]


def made(kind: type[LayerteeError]) -> LayerteeError:
    """One of that kind, with something for each of its facts."""
    values: dict[str, object] = {"str": "sha256:x", "int": 7, "float": 1.5, "bool": True, "str | None": "y"}
    if kind.__init__ is Exception.__init__:
        return kind("what happened")
    parameters = list(inspect.signature(kind).parameters.values())
    facts = {p.name: values[str(p.annotation)] for p in parameters if p.kind is p.KEYWORD_ONLY}
    return kind("what happened", **facts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_fact_of_an_error_is_in_its_object_and_in_the_schema(kind: type[LayerteeError]) -> None:
    error = made(kind)
    found = describe(error)
    assert found is not None and json.loads(json.dumps(found)) == found
    assert (found["code"], found["class"], found["message"]) == (kind.code, kind.__name__, "what happened")
    assert found["retryable"] is kind.retryable
    facts = set(vars(error)) - {"hint"}
    assert facts <= set(found) <= keys_of_errors()
    assert all(found[name] for name in facts)


def test_a_hint_has_its_word_for_programs_and_its_text_for_people() -> None:
    error = errors.TLSFailed("x").with_hint("plain-http")
    error.add_note("a note")
    found = describe(error)
    assert found is not None
    assert (found["hint"], found["advice"], found["notes"]) == ("plain-http", HINTS["plain-http"], ["a note"])


def test_what_is_not_known_is_null() -> None:
    found = describe(errors.RegistryError("x"))
    assert found is not None and found["status"] is None and found["url"] is None
    error = errors.UnresolvedName("x")
    error.candidates = ("a", "b")
    error.place = Path("/x")  # type: ignore[attr-defined]  # as an error of a later version may have
    found = describe(error)
    assert found is not None and (found["candidates"], found["place"]) == (["a", "b"], "/x")


@pytest.mark.parametrize(
    ("arrived", "name", "code"),
    [([], "SIGINT", 130), ([signal.SIGTERM], "SIGTERM", 143), ([signal.SIGHUP], "SIGHUP", 129)],
)
def test_an_interruption_names_its_signal(arrived: list[int], name: str, code: int) -> None:
    found = describe(KeyboardInterrupt(), arrived)
    assert found is not None
    assert (found["code"], found["signal"], found["exit_code"]) == ("INTERRUPTED", name, code)
    assert found["retryable"] is True and set(found) <= keys_of_errors()


def test_what_the_system_could_not_give_is_an_error_of_this_machine() -> None:
    found = describe(OSError(errno.EMFILE, "Too many open files"))
    assert found is not None and found["code"] == "STORE_IO"


def test_a_mistake_of_the_program_is_none_of_these() -> None:
    assert describe(KeyError("x")) is None
    assert describe(OSError(errno.ENOENT, "x")) is None
    assert set(mistake("x")) <= keys_of_errors()


def test_an_object_is_printed_where_json_is_among_the_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        raise errors.RateLimited("slow down", url="https://u:p@r.test/x?sig=1", retry_after=3.0)

    monkeypatch.setattr(store_commands, "ls", fails)
    assert cli.main(["ls", "--json"]) == 4
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["schema"] == 1 and found["error"]["retry_after"] == 3.0
    assert found["error"]["url"] == "https://r.test/x?…"
    assert told.err == "layertee: slow down [RATE_LIMITED]\n"
    assert cli.main(["ls"]) == 4
    assert capsys.readouterr().out == ""


def test_words_behind_two_dashes_ask_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for words, asked in ((["rm", "--nope", "--", "--json"], False), (["rm", "--nope", "--json"], True)):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 1
        assert bool(capsys.readouterr().out) is asked
