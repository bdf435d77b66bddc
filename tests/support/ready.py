"""A pytest plugin: what must be there before the first test, and what a test may say that it needs.

``builds(NAME, …)`` is compiled before the first test, outside of any test's limits. ``needs(TOOL, …)`` and
``needs_root(WHY)`` skip a test, with the reason, where the tool or the right is missing; so does a rig of
``tests.support.rig`` that is not installed.
"""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.support.cores import c_core_missing
from tests.support.rig import prebuild
from tests.support.rig.registry import NotInstalled

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def pytest_configure() -> None:
    """Signals that this run was told to ignore, by nohup or a shell's ``&``, go on being of no effect to it.

    But it has a handler now, and so what it starts does not ignore them, too.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_sessionstart() -> None:
    """Refuse a C core of other sources: the tests would run, on the fallback, and prove nothing of it."""
    if "another version" in (why := c_core_missing() or ""):
        pytest.exit(f"{why}: .ci/setup dev python3 .venv", returncode=4)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile what the tests of this run need."""
    if session.config.option.collectonly:
        return
    marks = [mark for item in session.items for mark in item.iter_markers("builds")]
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    say = print if reporter is None else reporter.write_line
    prebuild.prepare(dict.fromkeys(name for mark in marks for name in mark.args), say)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what can't be done here, before any fixture is made."""
    for mark in item.iter_markers("needs_root"):
        if os.geteuid() != 0:
            pytest.skip(f"needs root: {mark.args[0]}")
    wanted = {tool for mark in item.iter_markers("needs") for tool in mark.args}
    if missing := sorted(tool for tool in wanted if shutil.which(tool, path=_PATH) is None):
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """A test whose rig can't be had is skipped with the rig's reason."""
    if call.excinfo is not None and isinstance(call.excinfo.value, NotInstalled):
        skipped = pytest.skip.Exception(str(call.excinfo.value))
        call.excinfo = pytest.ExceptionInfo.from_exception(skipped.with_traceback(call.excinfo.tb))
