"""layertee.toml as the command finds it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.process import COMMAND, Cli

pytestmark = pytest.mark.slow


def test_a_value_of_layertee_toml_is_there_when_a_command_runs(tmp_path: Path) -> None:
    user = Cli(tmp_path)
    file = tmp_path / "mine.toml"
    file.write_text(f'store = "{tmp_path}/elsewhere"\n')
    said = user.finish(user.start("verify", "--store", tmp_path / "typed", LAYERTEE_CONFIG=str(file)), 2).err
    assert f"no store in {tmp_path}/typed" in said
    ran = user.run("config", "gc", LAYERTEE_CONFIG=str(file))
    assert re.search(
        rf"^store +{re.escape(str(tmp_path))}/elsewhere\n +{re.escape(str(file))}:1$", ran.out, re.M
    )
    file.write_text("stor = 1\n")
    refused = user.run("gc", code=1, LAYERTEE_CONFIG=str(file))
    assert refused.err == (
        f"layertee: {file}:1: there is no option 'stor'; did you mean store? [SETTINGS]\n"
        "hint: 'layertee config --check' shows every mistake in layertee.toml and the environment\n"
    )


def test_doctor_reports_a_mistake_and_goes_on(tmp_path: Path) -> None:
    user = Cli(tmp_path)
    ran = user.run("doctor", "--json", code=1, LAYERTEE_MAX_RATE="fast")  # an option of others
    assert ["LAYERTEE_MAX_RATE" in mistake for mistake in ran.json["settings"]["mistakes"]] == [True]
    ran = user.run("doctor", "--json", code=1, LAYERTEE_STORE="rel")
    assert ran.json["settings"] == {
        "mistakes": ["LAYERTEE_STORE: store has to be an absolute path, not 'rel'"]
    }
    ran = user.run("doctor", code=1, LAYERTEE_STORE="rel")
    assert "settings: commands that these are for refuse to run" in ran.out and "not 'rel'" in ran.out


@pytest.mark.needs("unshare")
@pytest.mark.needs_root("mounts")
def test_what_the_machine_says_holds_for_root(tmp_path: Path) -> None:
    """In a mount namespace with an /etc of its own."""
    user = Cli(tmp_path / "home")
    etc = tmp_path / "etc"
    (etc / "layertee").mkdir(parents=True)
    for name in ("passwd", "group", "ld.so.cache"):  # the last for a Python beneath /usr/local
        if Path("/etc", name).exists():
            shutil.copy(f"/etc/{name}", etc)
    (etc / "layertee/layertee.toml").write_text(f'[verify]\nstore = "{tmp_path}/of-machine"\n')
    own = user.home / ".config/layertee/layertee.toml"
    own.parent.mkdir(parents=True)
    own.write_text("this is no TOML, and root does not read it")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'mount --bind "$0" /etc && exec {COMMAND} verify', str(etc)],
        capture_output=True,
        text=True,
        env=user.environment(),
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no store in {tmp_path}/of-machine" in done.stderr
