"""pytest plugin of the kernel lab: what core.toml lists under [[second_try]] may fail once, and is named at the end then.

Under emulation, on a machine that does other things too, a span of time that a test allows can pass with nothing wrong.
The second try starts with new fixtures, but for the session's: their end is the check for what the whole run left
behind. Nothing else is tried again: an attack that was not contained once is a failure.
"""

import tomllib
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

_TABLE = tomllib.loads(Path(__file__).with_name("core.toml").read_text())
_TESTS = tuple(entry["tests"] for entry in _TABLE["second_try"])
_first_failures: list[str] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    if not item.nodeid.startswith(_TESTS):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if failed := [report for report in reports if report.failed]:
        _first_failures.append(f"{item.nodeid}: {failed[0].longreprtext.strip().splitlines()[-1]:.300}")
        item.session._setupstate.teardown_exact(item.session)
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"tried a second time: {len(_first_failures)}")
    for line in _first_failures:
        terminalreporter.write_line(f"  {line}")
