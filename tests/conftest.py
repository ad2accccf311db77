"""Fixtures and hooks for every test."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Generator, Iterator

import hypothesis
import pytest

from tests import leaks, required

# How long an example takes, to be made or to run, says something of the machine alone.
hypothesis.settings.register_profile("fxcell", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("fxcell")


@pytest.fixture(scope="session", autouse=True)
def nothing_left_by_the_run() -> Iterator[None]:
    """After the last test and the host's shutdown nothing of fxcell exists: see tests/leaks.py for what is counted."""
    leaks.adopt_orphans()
    # A run in a shell's background ignores SIGINT, and so would every process that it starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The messages' schema stays open once it was read: that is no leak, whichever test reads it first.
    importlib.import_module("fxcell.sandbox.wire")
    before = leaks.snapshot()
    yield
    host = sys.modules.get("fxcell.host")
    if host is not None:
        host.shutdown()
    left = leaks.wait_until_gone(before, patience_s=10.0)
    if left:
        pytest.fail("the test run left behind:\n  " + "\n  ".join(left), pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what only root can do, with the reason."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("needs_root"):
                item.add_marker(pytest.mark.skip(reason=f"needs root; this is uid {os.geteuid()}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is required, turn a skip for want of a layer into a failure; see tests/required.py."""
    report = yield
    if required.everything() and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if required.is_failure(reason, os.geteuid()):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and {required.VARIABLE}=full requires what it lacks: {reason}"
    return report
