"""The C core for ARMv8 without Python around it, on a machine that qemu emulates."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import armcore
from tests.support.ccore import ARM_COMPILER, ARM_MACHINE
from tests.support.rig import prebuild

pytestmark = [
    *(pytest.mark.slow, pytest.mark.builds("arm-core-tests", "arm-libraries")),
    pytest.mark.needs(ARM_COMPILER, ARM_MACHINE),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words that run a program."""
    return armcore.running(prebuild.program("arm-libraries"), tmp_path_factory.mktemp("libraries"))


@pytest.mark.spread
@pytest.mark.parametrize(("main", "bare"), armcore.PROGRAMS)
def test_the_core_passes_as_it_is_compiled_for_armv8(machine: list[str], main: str, bare: bool) -> None:
    prebuild.program("arm-core-tests")  # where it can't be had, this says why
    program = armcore.program(main, bare=bare)
    words = ["armv8"] if main == "test_sha256.c" else []  # the kernel that has to be there
    done = subprocess.run(
        [*machine, program, *words], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if main == "test_codec.c":
        tried = {"own", "own-portable", "zlib"} | (set() if bare else {"isal"})
        assert set(done.stdout.split()) == tried
