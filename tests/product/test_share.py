"""Manual pages and completion: made out of the parsers, and tried with the programs that read them."""

from __future__ import annotations

import os
import re
import select
import subprocess
from pathlib import Path

import pytest

from layertee.cli import settings
from layertee.cli.arguments import SUMMARIES, parser_of
from layertee.cli.topics import TOPICS

pytest.importorskip("shtab")
pytest.importorskip("argparse_manpage")

from release.__main__ import main
from release.manpages import escaped, formatted, pages
from release.share import SHELLS

pytestmark = pytest.mark.slow

DATE_S = 1_790_000_000
# What is typed, and the words that the command then gets.
TYPED = {
    "layertee pu\t x": ["pull", "x"],
    "layertee image\t": ["image-proxy"],
    "layertee pull --layers un\t": ["pull", "--layers", "uncompressed"],
    "layertee ls --part\t": ["ls", "--partial"],
    "layertee gc --keep-p\t": ["gc", "--keep-partials"],
    "layertee help exit\t": ["help", "exit-codes"],
    "layertee config ser\t": ["config", "serve"],
}
# A shell that reads no file of a user, with a prompt to wait for, and a command that shows its words.
_LATE_S = 60
SHOWS = "printf '<%s>' \"$@\"; printf '<end>\\n'"
INTERACTIVE = {
    "bash": (
        "bash --noprofile --norc -i",
        f"PS1='ready>'; layertee() {{ {SHOWS}; }}; . {{completion}}\n",
    ),
    "zsh": (
        "zsh -f -i",
        "PS1='ready>'; unsetopt prompt_sp; fpath=({directory} $fpath); autoload -Uz compinit; "
        f"compinit -u -D; layertee() {{ {SHOWS}; }}\n",
    ),
}


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``python -m release share`` makes."""
    out = tmp_path_factory.mktemp("share")
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = str(DATE_S)
    try:
        assert main(["share", "--out", str(out)]) == 0
    finally:
        del os.environ["SOURCE_DATE_EPOCH"]
        if before is not None:
            os.environ["SOURCE_DATE_EPOCH"] = before
    return out


def ran(*command: object, **environment: str) -> str:
    """What a program prints on both outputs; it must end well."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", **environment},
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# --- pages -----------------------------------------------------------------------------------------------


def test_there_is_a_page_for_every_command_and_for_the_file(share: Path) -> None:
    names = {path.name for path in (share / "man").rglob("*.*") if path.is_file()}
    assert names == {"layertee.1", "layertee.toml.5", *(f"layertee-{name}.1" for name in SUMMARIES)}
    found = {str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()}
    assert found - {f"man/man{name[-1]}/{name}" for name in names} == set(SHELLS.values())


@pytest.mark.needs("mandoc", "man")
def test_pages_are_without_fault_and_fit_a_terminal(share: Path) -> None:
    paths = sorted(path for path in (share / "man").rglob("*.*") if path.is_file())
    assert ran("mandoc", "-T", "lint", "-W", "warning", *paths) == ""
    for path in paths:
        shown = ran("man", "--warnings", "-l", path, MANWIDTH="80", MANPAGER="cat")
        assert "warning" not in shown.splitlines()[0]
        assert all(len(line) <= 80 for line in shown.splitlines()), path.name


@pytest.mark.needs("man")
def test_a_page_has_what_help_has(share: Path) -> None:
    def shown(name: str) -> str:
        text = ran("man", "-l", share / f"man/man{name[-1]}/{name}", MANWIDTH="400", MANPAGER="cat")
        return " ".join(re.sub("[\u2010\u2212]", "-", text).split())

    for command, summary in SUMMARIES.items():
        page = shown(f"layertee-{command}.1")
        assert f"NAME layertee-{command} - {summary} SYNOPSIS layertee {command} " in page
        for name in settings.options_in(parser_of(command)):
            assert f" --{name} " in page, (command, name)
        assert "EXIT STATUS 0 done 1 an error" in page and "SEE ALSO layertee(1), layertee.toml(5)" in page
    whole = shown("layertee.1")
    for text in TOPICS.values():
        assert " ".join(text.split()) in whole
    keys = shown("layertee.toml.5")
    for name in settings.SETTABLE:
        assert f" {name} = " in keys
    assert " max-rate = RATE bytes per second: 500k, 20M, 1.5Gi. Of: pull, " in keys
    assert " LAYERTEE_MAX_RATE." in keys and " LAYERTEE_POLICY" not in keys


def test_the_same_date_makes_the_same_pages() -> None:
    assert pages("1.0", DATE_S) == pages("1.0", DATE_S)
    assert '"2026-09-21" "layertee 1.0"' in pages("1.0", DATE_S)["layertee.1"].split("\n")[0]


def test_pages_are_ascii_and_show_what_is_not() -> None:
    """Without preconv, groff takes each byte of a page for a character."""
    made = pages("1.2.3", DATE_S)
    assert [name for name, text in made.items() if not text.isascii()] == []
    assert r"\[u2026]" in made["layertee-image-proxy.1"]


def test_text_that_looks_like_roff_is_text() -> None:
    assert escaped("a-b\n.SH x\n'tis\\fB") == "a\\-b\n\\&.SH x\n\\&'tis\\efB"
    assert formatted("One\ntwo.\n  a   b\n  c\n\nThree.\n") == (
        "One\ntwo.\n.PP\n.in 9n\n.nf\na   b\nc\n.fi\n.in\n.PP\nThree."
    )


# --- completion --------------------------------------------------------------------------------------------


class Terminal:
    """A shell at a pseudo-terminal, which ``script`` makes."""

    def __init__(self, command: str) -> None:
        self._text = ""
        self._process = subprocess.Popen(
            ["script", "-qefc", command, "/dev/null"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/bin:/bin", "TERM": "vt100", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
        )

    def type(self, keys: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(keys.encode())
        self._process.stdin.flush()

    def until(self, pattern: str) -> re.Match[str]:
        """Read on until ``pattern`` is there; what follows it is left for the next call."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while not (found := re.search(pattern, self._text)):
            ready, _, _ = select.select([fd], [], [], _LATE_S)
            more = os.read(fd, 4096) if ready else b""
            assert more, self._text
            self._text += more.decode(errors="replace")
        self._text = self._text[found.end() :]
        return found

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.read()
        self._process.stdout.close()
        self._process.wait()


@pytest.mark.parametrize(
    "shell", [pytest.param(one, marks=pytest.mark.needs(one, "script")) for one in INTERACTIVE]
)
def test_what_is_typed_is_completed(share: Path, shell: str) -> None:
    command, setup = INTERACTIVE[shell]
    completion = share / SHELLS[shell]
    terminal = Terminal(command)
    try:
        setup = setup.replace("{completion}", str(completion)).replace("{directory}", str(completion.parent))
        terminal.type(setup)
        terminal.until("ready>(?!')")
        for keys, words in TYPED.items():
            terminal.type(f"{keys}\n")
            got = terminal.until(r"((?:<[^>%]*>)+)<end>")[1]
            assert re.findall("<(.*?)>", got) == words, keys
            terminal.until("ready>")
        terminal.type("exit\n")
    finally:
        terminal.close()


@pytest.mark.needs("fish")
def test_fish_offers_what_goes_on(share: Path, tmp_path: Path) -> None:
    for keys, words in TYPED.items():
        typed = keys.partition("\t")[0]
        script = f"source {share / SHELLS['fish']}; complete -C '{typed}'"
        offered = ran("fish", "--no-config", "-c", script, HOME=str(tmp_path))
        last = words[-1] if not keys.endswith("x") else words[-2]
        assert last in {line.split("\t")[0] for line in offered.splitlines()}, offered


@pytest.mark.needs("fish")
def test_a_description_beside_an_option_is_short(share: Path) -> None:
    text = (share / SHELLS["fish"]).read_text(encoding="utf-8")
    described = re.findall(r" -l ([\w.-]+) .*-d (.*)$", text, re.MULTILINE)
    assert len(described) > 100
    assert all(len(text) <= 110 and "%(" not in text for _, text in described)


@pytest.mark.needs("bash")
def test_bash_takes_files_where_a_file_is_meant(share: Path, tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certificate.pem").touch()
    script = (
        f". {share / SHELLS['bash']}; cd {tmp_path}; COMP_WORDS=(layertee pull $0 cert); COMP_CWORD=3; "
        "COMP_LINE='x'; _shtab_layertee; echo ${COMPREPLY[*]}"
    )
    assert set(ran("bash", "-c", script, "--authfile").split()) == {"certs", "certificate.pem"}
    assert ran("bash", "-c", script, "--cert-dir").split() == ["certs"]
