"""A pytest plugin: how tests are spread over processes, with ``-n 2 --dist loadgroup``.

All tests of a file run in one process, one after the other, so that what they share is made once. Files in
which no two tests may run at once have the mark ``xdist_group(NAME)`` in common; a test that takes long and
shares nothing may have a group of its own. Files begin in the order in which they were given: name the slow
ones first.
"""

from __future__ import annotations

from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order of the command line."""
    if config.pluginmanager.has_plugin("xdist"):
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By groups and files, for ``--dist loadgroup``. xdist has no types."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByGroupOrFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

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

    return ByGroupOrFile(config, log)


def scope_of(nodeid: str) -> str:
    """The group, which xdist appends to the name of a test that has one; else the file."""
    _name, at, group = nodeid.rpartition("@")
    return group if at and "]" not in group else nodeid.partition("::")[0]
