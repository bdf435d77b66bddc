"""Machines on one machine see each other, and nobody else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.fakes.fault_server import FaultServer
from tests.support.hosts import Hosts

pytestmark = [pytest.mark.needs("ip"), pytest.mark.needs_root("makes network namespaces")]
ASK = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).status)"


def ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def namespaces() -> list[str]:
    """Those of this process."""
    listed = ask(["ip", "netns", "list"]).stdout.split()
    return sorted(name for name in listed if name.startswith(f"lt{os.getpid()}-"))


def test_hosts_reach_each_other_and_are_reached_by_nobody_else() -> None:
    with Hosts(["one", "two"]) as hosts:
        with FaultServer(listener=hosts.listener("one")) as server:
            asking = [sys.executable, "-c", ASK, f"{server.url}/v2/"]
            assert server.host.startswith(hosts.address("one"))
            assert ask(hosts.command("two", asking)).stdout == "200\n"
            assert ask(asking).returncode != 0, "the machine's own network has no way there"
            assert len(server.requests("ping")) == 1
        assert namespaces() == [f"lt{os.getpid()}-{name}" for name in ("one", "switch", "two")]
    assert namespaces() == []
