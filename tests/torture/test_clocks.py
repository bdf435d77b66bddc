"""A sample of the clocks that jump and the machines that sleep; and the clock of the tests itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.torture.clocks import Clock, run
from tests.torture.results import Budget

pytestmark = pytest.mark.slow

ASK = """
import sys, time, datetime
for line in sys.stdin:
    print(time.time(), datetime.datetime.now().timestamp(), time.clock_gettime(time.CLOCK_REALTIME),
          time.monotonic(), flush=True)
"""


def test_the_wall_clock_of_a_process_jumps_and_stands_still_and_no_other_clock_does(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", ASK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **clock.environment},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for off in (0.0, 86_400.0, -86_400.0, None):
            if off is None:
                clock.stand(1_600_000_000)
            else:
                clock.jump(off)
            process.stdin.write("\n")
            process.stdin.flush()
            *wall, monotonic = map(float, process.stdout.readline().split())
            wanted = 1_600_000_000 if off is None else time.time() + off
            assert wall == pytest.approx([wanted] * 3, abs=60)
            assert monotonic == pytest.approx(time.monotonic(), abs=60)
        process.stdin.close()
    clock.close()


@pytest.mark.spread
def test_pulls_go_on_and_complete_whatever_the_clock_does() -> None:
    figures = run(Budget(seed=1, scale=0.4))
    assert figures["findings"] == 0, figures["found"]
