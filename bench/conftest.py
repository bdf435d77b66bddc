"""Throughput beside the times: pytest-benchmark's own table has no column for it."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """A table of what the benchmarks put into ``extra_info``."""
    session = getattr(config, "_benchmarksession", None)
    results = [bench for bench in getattr(session, "benchmarks", []) if "MB/s" in bench.extra_info]
    if not results:
        return
    width = max(len(bench.name) for bench in results)
    terminalreporter.section("throughput in MB/s")
    terminalreporter.write_line(f"{'':{width}}   {'best':>7} {'median':>7}  rounds")
    for bench in results:
        best, median = bench.extra_info["MB/s"], bench.extra_info["MB/s median"]
        terminalreporter.write_line(
            f"{bench.name:{width}}   {best:7,.0f} {median:7,.0f}  {bench.stats.rounds}"
        )
