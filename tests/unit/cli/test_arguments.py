"""The grammar: where flags may stand, what a mistake is answered with, and the help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from layertee.cli.arguments import GROUPS, SUMMARIES, parse, parser_of
from layertee.cli.commandargs import TOPIC_NAMES
from layertee.cli.dispatch import COMMANDS
from layertee.cli.exits import EXIT_ERROR
from layertee.cli.main import main
from layertee.cli.topics import TOPICS
from layertee.options import SignaturesBy

ALL = sorted(COMMANDS)


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The last line that a mistake is answered with."""
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == EXIT_ERROR
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("usage: layertee ")
    return told.err.splitlines()[-1]


def test_what_can_be_parsed_can_be_run() -> None:
    assert set(SUMMARIES) == set(COMMANDS)
    for command in COMMANDS.values():
        assert callable(command.load())


@pytest.mark.parametrize(
    "words",
    [
        ("-v", "--debug", "ls", "--store", "x"),
        ("ls", "-v", "--debug", "--store", "x"),
        ("-v", "ls", "--store", "x", "--debug"),
        ("--verbose", "--debug", "ls", "-v", "--store=x"),
    ],
)
def test_how_much_is_logged_may_stand_before_or_after_the_command(words: tuple[str, ...]) -> None:
    args = parse(words)
    assert (args.command, args.verbose, args.debug, args.store) == ("ls", True, True, Path("x"))
    assert (parse(["ls"]).verbose, parse(["ls"]).debug) == (False, False)


def test_two_dashes_do_not_stand_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(capsys, "--", "ls").endswith("error: '--' stands before the command ls")


def test_signatures_are_judged_by_each_program_that_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for by in SignaturesBy:
        assert parse(["pull", "--signatures-by", by.value, "x"]).signatures_by == by.value
    told = complaint(capsys, "pull", "--signatures-by", "gpg", "x")
    assert "'gpg'" in told and all(by.value in told for by in SignaturesBy)


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        (("pul", "x"), "there is no command 'pul'; did you mean pull?"),
        (("-v", "verfy"), "did you mean verify?"),
        (("imageproxy",), "did you mean image-proxy?"),
        (("pull", "--dryrun", "x"), "unrecognized arguments: --dryrun; did you mean --dry-run?"),
        (
            ("login", "-p", "secret", "x"),
            "-p: every process sees what is on a command line; use --password-stdin",
        ),
        (("login", "--password=secret", "x"), "--password: every process sees"),
        (("pull", "--tls-verfy=false", "x"), "did you mean --tls-verify?"),
        (("image-proxy", "--cache-maximum=3G"), "did you mean --cache-max?"),
        (("pull", "--layers=uncompresed", "x"), "did you mean uncompressed?"),
        (("help", "pul"), "did you mean pull?"),
        (("config", "serv"), "did you mean serve?"),
        (("--store", "x", "ls"), "it belongs behind it: layertee COMMAND --store …"),
        (("-v", "--max-rate=1M", "pull", "x"), "--max-rate stands before the command"),
    ],
)
def test_what_was_probably_meant_is_said(
    words: tuple[str, ...], suggested: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suggested in complaint(capsys, *words)


def test_a_word_that_is_near_nothing_is_answered_with_what_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = complaint(capsys, "frobnicate")
    assert all(name in told for name in COMMANDS)
    assert "did you mean" not in complaint(capsys, "ls", "--frobnicate")
    assert "did you mean" not in complaint(capsys, "inspect", "one", "two")


def test_the_beginning_of_a_flag_is_not_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --dry" in complaint(capsys, "pull", "--dry", "x")
    assert "--vers" in complaint(capsys, "--vers", "ls")


@pytest.mark.parametrize("words", [("pull", "a\0b"), ("ls", "--store", "\0"), ("\0",)])
def test_a_nul_character_is_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert "NUL character" in complaint(capsys, *words)


@pytest.mark.parametrize(
    "words",
    [
        *[("pull", f"--{name}=", "x") for name in ("store", "to", "authfile", "cert-dir", "platform")],
        *[("verify", "--repair="), ("map", ""), ("install-shim", ""), ("prepare", "--ostree-repo=", "x")],
        *[("image-proxy", "--store="), ("image-proxy", "--skopeo="), ("image-proxy", "--client-repo=")],
    ],
    ids=" ".join,
)
def test_an_empty_value_is_no_value(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert "it is empty" in complaint(capsys, *words)


@pytest.mark.parametrize("text", ["10%", "-1", "much", ""])
def test_what_is_fetched_ahead_is_a_size(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--ahead" in complaint(capsys, "image-proxy", f"--ahead={text}")
    assert parse(["image-proxy"]).ahead == 32 << 20
    assert parse(["image-proxy", "--ahead=0"]).ahead == 0


@pytest.mark.parametrize("text", ["-1", "one", "", "9999999"])
def test_a_descriptor_is_a_number(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--sockfd" in complaint(capsys, "image-proxy", f"--sockfd={text}")


def test_empty_values_of_skopeos_own_options_are_as_good_as_none() -> None:
    args = parse(
        ["image-proxy", "--authfile=", "--cert-dir", "", "--policy=", "--registries.d=", "--override-os="]
    )
    assert (args.authfile, args.cert_dir, args.policy, args.registries_d) == (None,) * 4


def test_words_of_another_command_are_only_words() -> None:
    args = parse(["rm", "install-shim", "image-proxy", "--", "--debug=true"])
    assert args.names == ["install-shim", "image-proxy", "--debug=true"]
    args = parse(["install-shim", "dir", "--", "--ahead", "0", "--"])
    assert (args.dir, args.options) == (Path("dir"), ["--ahead", "0", "--"])


def test_a_mistake_that_has_escapes_in_it_is_answered_without_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (
        ["\x1b[31mls"],
        ["ls", "\x1b[31m"],
        ["ls", "--\x1b[31m"],
        ["pull", "--layers=\x1b[31m", "x"],
    ):
        told = complaint(capsys, *words)
        assert "\x1b" not in told and "\\x1b[31m" in told
    assert "\\udcff" in complaint(capsys, "\udcff")


# --- help ------------------------------------------------------------------------------------------


def helped(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["help", *words]) == 0
    return capsys.readouterr().out


def test_the_help_lists_every_command_in_its_group(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    told = helped(capsys)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out == told
    for title, group in GROUPS.items():
        at = told.index(f"\n{title}:\n")
        for name, text in group.items():
            assert told.index(f"    {name} ", at) < told.index(text, at)
    assert "store commands:" in told
    assert all(len(line) <= 80 for line in told.splitlines())


@pytest.mark.parametrize("command", ALL)
def test_the_help_of_a_command_is_that_of_its_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = helped(capsys, command)
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == told and told.startswith(f"usage: layertee {command}")


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_fits_a_terminal_and_is_named_where_it_is_listed(
    topic: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = helped(capsys, topic)
    assert told == TOPICS[topic] and all(len(line) <= 80 for line in told.splitlines())
    assert re.search(rf"(?<![\w-]){topic}(?![\w-])", parser_of(None).format_help())
    assert topic in parser_of("help").format_help()


def test_a_topic_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    told = complaint(capsys, "help", "plaices")
    assert told.endswith("error: there is no topic or command 'plaices'; did you mean places?")
    for typed, meant in (("settings", "configuration"), ("errors", "exit-codes"), ("pul", "pull")):
        told = complaint(capsys, "help", typed)
        assert told.endswith(f"there is no topic or command '{typed}'; did you mean {meant}?")
    told = complaint(capsys, "help", "zzz")
    assert told.endswith("there is no topic or command 'zzz'; 'layertee --help' lists what there is")
    assert tuple(TOPICS) == TOPIC_NAMES


def test_no_option_takes_a_page_to_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "9999")  # an option, a line
    for command in COMMANDS:
        help_of = parser_of(command).format_help()
        assert all(len(line.split()) <= 45 for line in help_of.partition("\noptions:\n")[2].splitlines())


def test_a_command_with_many_options_names_those_alone_that_it_needs() -> None:
    assert parser_of("pull").format_usage() == "usage: layertee pull [OPTION ...] IMAGE [IMAGE ...]\n"
    prepare = "usage: layertee prepare [OPTION ...] --ostree-repo DIR [IMAGE]\n"
    assert parser_of("prepare").format_usage() == prepare
    assert parser_of("image-proxy").format_usage() == "usage: layertee image-proxy [OPTION ...]\n"
    assert "[--partial]" in parser_of("ls").format_usage()


def test_each_option_takes_three_lines_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = parser_of("pull").format_help()
    assert len(text.splitlines()) < 105
    options = re.split(r"\n  (?=-)", text)[1:]
    assert len(options) > 30
    # A login that others can see takes a warning.
    assert all(
        len(one.split("\n\n")[0].splitlines()) <= 4 for one in options if not one.startswith("--creds")
    )
