"""A pytest plugin: how tests are spread over processes, with ``-n 2 --dist loadfile``.

All tests of a file run in one process, one after the other, so that what they share is made once. Files in
which no two tests may run at once have the mark ``group(NAME)`` in common. Tests that take long and share
nothing have the mark ``spread``: each goes to whatever process is free. Files begin in the order in which
they were given: name the slow ones first.

xdist's own ``--dist loadgroup`` goes by names that it gives to tests, which pytest 9.2 takes no notice of.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

_FILE = "layertee_scopes"  # what a worker is told of the file for its tests' scopes by
_directory = pytest.StashKey["tempfile.TemporaryDirectory[str]"]()


def scope_of(item: pytest.Item) -> str:
    """Tests with one scope run in one process."""
    if item.get_closest_marker("spread"):
        return item.nodeid
    if group := item.get_closest_marker("group"):
        return f"group {group.args[0]}"
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell the process that gives tests out what it sees of marks, before it hears of the tests."""
    told: dict[str, Any] = getattr(session.config, "workerinput", {})
    if _FILE in told:
        scopes = {item.nodeid: scope_of(item) for item in session.items}
        Path(told[_FILE]).write_text(json.dumps(scopes))


# --- in the process that gives tests out ---------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order of the command line."""
    if config.pluginmanager.has_plugin("xdist"):
        config.option.loadscopereorder = False


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the files."""
    if _directory in config.stash:
        config.stash[_directory].cleanup()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A worker of xdist begins."""
    stash = node.config.stash
    if _directory not in stash:
        stash[_directory] = tempfile.TemporaryDirectory(prefix="layertee-spread-")
    node.workerinput[_FILE] = str(Path(stash[_directory].name) / node.gateway.id)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By scopes, for ``--dist loadfile``. xdist has no types."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByScope(LoadScopeScheduling):  # type: ignore[misc]
        scopes: dict[str, str] | None = None

        def _split_scope(self, nodeid: str) -> str:
            if self.scopes is None:  # all workers have written the same
                found = next(Path(config.stash[_directory].name).iterdir())
                self.scopes = json.loads(found.read_text())
            return self.scopes[nodeid]

        def remove_node(self, node: Any) -> str | None:
            """The test in which the worker died, which is not run again; others do what it had left.

            xdist's own runs that test until no worker may be started any more, and hands out what the
            worker had finished as work with nothing in it, after which a worker waits for ever.
            """
            died_in = None
            for scope, unit in self.assigned_work.pop(node).items():
                left = [nodeid for nodeid, done in unit.items() if not done]
                if left and died_in is None:
                    died_in = left.pop(0)
                if left:
                    self.workqueue[scope] = dict.fromkeys(left, False)
                    self.workqueue.move_to_end(scope, last=False)
            for other in self.assigned_work:
                self._reschedule(other)
            return died_in

    return ByScope(config, log)
