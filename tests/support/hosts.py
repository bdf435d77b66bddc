"""Several machines on one: network namespaces of their own, on a bridge that only they can reach.

    with Hosts(["origin", "client"]) as hosts:
        listener = hosts.listener("origin")
        hosts.command("client", ["curl", f"http://{hosts.address('origin')}/"])

As root. All is in namespaces with names of this process, which are removed at the end, and with them the
interfaces; the machine's own network is not touched.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.support.process import Cli
from tests.support.rig.registry import NotInstalled, RigError

_CLONE_NEWNET = 0x40000000
_NETWORK = "10.213.77"  # of nobody else: the namespaces have no way out
_Made = TypeVar("_Made")


class Hosts:
    """Machines called ``names``, each with an address, which all see each other and nobody else."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._prefix = f"lt{os.getpid()}"
        self._made: list[str] = []

    def __enter__(self) -> Self:
        if shutil.which("ip") is None:
            raise NotInstalled("ip (iproute2) is not on this machine")
        try:
            self._make_all()
        except BaseException:
            self._remove_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove_all()

    def address(self, host: str) -> str:
        """Of ``host``."""
        return f"{_NETWORK}.{self._names.index(host) + 1}"

    def command(self, host: str, words: Sequence[str]) -> list[str]:
        """``words`` as a command that runs on ``host``; its process is the one that is started."""
        return [_ip(), "netns", "exec", self._namespace(host), *words]

    def listener(self, host: str) -> socket.socket:
        """A socket of this process that listens on ``host``, at a port that is free there."""

        def listen() -> socket.socket:
            return socket.create_server((self.address(host), 0), backlog=256)

        return self._on(host, listen)

    # -- inside --------------------------------------------------------------------------

    def _namespace(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def _make_all(self) -> None:
        switch = self._add("switch")
        _run("-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("-n", switch, "link", "set", "bridge", "up")
        for number, host in enumerate(self._names):
            own = self._add(host)
            port = f"port{number}"
            _run("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", own)
            _run("-n", switch, "link", "set", port, "master", "bridge", "up")
            _run("-n", own, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            _run("-n", own, "link", "set", "eth0", "up")
            _run("-n", own, "link", "set", "lo", "up")

    def _add(self, host: str) -> str:
        name = self._namespace(host)
        _run("netns", "add", name)
        self._made.append(name)
        return name

    def _remove_all(self) -> None:
        while self._made:
            _run("netns", "del", self._made.pop())

    def _on(self, host: str, work: Callable[[], _Made]) -> _Made:
        """What ``work`` returns in a thread that is on ``host``; a socket stays where it was made."""
        made: list[_Made] = []
        failed: list[OSError] = []

        def run() -> None:
            try:
                with Path("/run/netns", self._namespace(host)).open("rb") as namespace:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                made.append(work())
            except OSError as exc:
                failed.append(exc)

        thread = threading.Thread(target=run, name=f"on {host}")
        thread.start()
        thread.join()
        if failed:
            raise RigError(f"on {host}: {failed[0]}") from failed[0]
        return made[0]


class HostCli(Cli):
    """The command as a user of ``host`` types it."""

    def __init__(self, hosts: Hosts, host: str, home: Path) -> None:
        super().__init__(home)
        self._hosts = hosts
        self._host = host

    def command(self, name: str, *args: object) -> list[str]:
        """The argument vector, on that host."""
        return self._hosts.command(self._host, super().command(name, *args))


def _ip() -> str:
    found = shutil.which("ip")
    assert found is not None
    return found


def _run(*words: str) -> None:
    done = subprocess.run([_ip(), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RigError(f"ip {' '.join(words)}: {done.stderr.strip()}")
