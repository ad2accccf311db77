"""Tests that take minutes: collected only when this folder is named (`make test-compatibility`), not by `make test`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MEASURED: list[str] = []
"""Lines that tests want to have printed although they passed."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    for line in MEASURED:
        terminalreporter.write_line(line)


@pytest.fixture
def say() -> Callable[[str], None]:
    """`say(line)`: print it after the run."""
    return MEASURED.append


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for the tests of this folder, unless the command line names it or something in it."""
    if collection_path.parent != HERE or not collection_path.name.startswith("test_"):
        return None
    named = [(config.invocation_params.dir / word.partition("::")[0]).resolve() for word in config.args]
    return None if any(path == HERE or HERE in path.parents for path in named) else True
