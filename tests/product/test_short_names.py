"""Names without a registry: what is pulled for them, and what is asked or said where that is not clear."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image, push
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("short"), [text_layer({"etc/name": "one\n"})])


@pytest.fixture(scope="module")
def full(image: BuiltImage, registry: RegistryServer) -> str:
    """The image's name: ``HOST/short/tool:1``."""
    return push(image, "short/tool:1", registry)


def conf(user: Cli, *lines: str) -> Path:
    """A file that is the only one which is read, where CONTAINERS_REGISTRIES_CONF names it."""
    path = user.home / "registries.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


def host_of(full: str) -> str:
    return full.partition("/")[0]


def searching(full: str, *others: str) -> str:
    hosts = ", ".join(f'"{host}"' for host in (*others, host_of(full)))
    return f"unqualified-search-registries = [{hosts}]"


@pytest.mark.parametrize("command", ["pull", "inspect"])
def test_an_alias_names_the_image(user: Cli, full: str, image: BuiltImage, command: str) -> None:
    name = full.removesuffix(":1")
    path = conf(user, "[aliases]", f'tool = "{name}"')
    ran = user.run(command, PLAIN, "--json", "tool:1", CONTAINERS_REGISTRIES_CONF=str(path))
    assert (ran.json["image"], ran.json["manifest_digest"]) == (full, image.digest)


def test_the_store_calls_it_by_its_full_name(user: Cli, full: str) -> None:
    user.pull("short/tool:1", CONTAINERS_REGISTRIES_CONF=str(conf(user, searching(full))))
    assert full in user.run("ls").out


def test_registries_are_tried_in_their_order_where_nobody_can_be_asked(
    user: Cli, full: str, image: BuiltImage
) -> None:
    path = conf(user, searching(full, "127.0.0.1:9"))
    ran = user.pull("short/tool:1", CONTAINERS_REGISTRIES_CONF=str(path))
    assert ran.json["manifest_digest"] == image.digest
    assert "short/tool:1 was not to be had as 127.0.0.1:9/short/tool:1" in ran.err


def test_enforcing_lists_the_candidates(user: Cli, full: str, registry: RegistryServer) -> None:
    path = conf(user, 'short-name-mode = "enforcing"', searching(full, "other.test"))
    registry.reset()
    ran = user.pull("short/tool:1", code=1, CONTAINERS_REGISTRIES_CONF=str(path))
    assert f"other.test/short/tool:1, {full}" in ran.err and "[SHORT_NAME]" in ran.err
    assert str(path) in ran.err and registry.accesses() == []


def test_no_registry_to_search_is_said(user: Cli, full: str) -> None:
    path = conf(user, 'short-name-mode = "permissive"')
    ran = user.pull("busybox", code=1, CONTAINERS_REGISTRIES_CONF=str(path))
    assert "'busybox' names no registry" in ran.err and str(path) in ran.err


def test_the_error_of_one_that_may_come_back_stands_before_one_that_is_not_there(
    user: Cli, full: str
) -> None:
    path = conf(user, searching(full, "127.0.0.1:9"))
    ran = user.pull("short/missing:1", code=4, CONTAINERS_REGISTRIES_CONF=str(path))
    assert "127.0.0.1:9" in ran.err and f"{host_of(full)}/short/missing:1" in ran.err


@pytest.mark.parametrize(("answer", "code"), [("2", 0), ("x\n2", 0), ("\n0\n3", 1), ("\x04", 1)])
def test_at_a_terminal_a_person_chooses(
    user: Cli, full: str, image: BuiltImage, answer: str, code: int
) -> None:
    path = conf(user, 'short-name-mode = "enforcing"', searching(full, "other.test"))
    command = user.command("inspect", PLAIN, "short/tool:1")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=user.environment(CONTAINERS_REGISTRIES_CONF=str(path)),
    ) as process:
        os.close(theirs)
        shown = _until(ours, b"Enter:")
        os.write(ours, f"{answer}\n".encode() if answer != "\x04" else b"\x04")
        shown += _until(ours, None)
        os.close(ours)
    assert process.returncode == code, shown
    assert b"1  other.test/short/tool:1\r\n  2  " + full.encode() in shown
    if code:
        assert b"[SHORT_NAME]" in shown
    else:
        assert image.digest.encode() in shown and f'"short/tool" = "{full[:-2]}"'.encode() in shown


def _until(terminal: int, end: bytes | None) -> bytes:
    """What is shown, up to ``end``, or to the end of the program."""
    shown = b""
    try:
        while end is None or end not in shown:
            shown += os.read(terminal, 4096)
    except OSError:  # EIO: the other end is closed
        return shown
    return shown


def test_a_choice_is_no_question_where_the_output_is_a_pipe(user: Cli, full: str) -> None:
    path = conf(user, 'short-name-mode = "enforcing"', searching(full, "other.test"))
    command = user.command("inspect", PLAIN, "short/tool:1")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=user.environment(CONTAINERS_REGISTRIES_CONF=str(path)),
        timeout=60,
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 1


def test_doctor_explains_what_a_short_name_stands_for(user: Cli, full: str) -> None:
    path = conf(user, "[aliases]", 'tool = "a.test/tool"')
    ran = user.run("doctor", "--json", "tool:1", CONTAINERS_REGISTRIES_CONF=str(path), code=None)
    assert ran.json["image"] == "a.test/tool:1"


def test_doctor_lists_what_a_short_name_may_stand_for(user: Cli, full: str) -> None:
    path = conf(user, searching(full, "b.test"))
    ran = user.run("doctor", "short/tool:1", CONTAINERS_REGISTRIES_CONF=str(path), code=1)
    assert f"b.test/short/tool:1, {full}" in ran.err and "[SHORT_NAME]" in ran.err
