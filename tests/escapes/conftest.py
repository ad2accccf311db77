"""The arena: where an attack runs, and what is looked at after it.

    def test_…(arena):
        crash = arena.attack(steal(str(arena.sentinel)))          # in a new hardened worker
        assert arena.control(steal(str(arena.sentinel))) == …     # the same code where nothing holds it: it works

After each test the arena checks that the secret was not seen in any outcome, that the sentinel was not touched, that a
neighbour worker started before the attack is the same process and answers, and that a new worker answers.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fxcell import FX, Call, Policy, WorkerProcess, load_policy, run, zef_function

DEADLINE_S = 20.0
"""No attack may hold the host for longer, whatever it does."""


@zef_function
def add(a, b):
    return a + b


class Arena:
    """One attack's surroundings. sentinel: a file of the host's user that holds `secret`, readable by everybody."""

    def __init__(self, folder: Path, neighbour: WorkerProcess) -> None:
        self.secret = secrets.token_hex(16)
        self.folder = folder
        self.sentinel = folder / "sentinel"
        self.sentinel.write_text(self.secret)
        self.neighbour = neighbour
        self.outcomes: list[Any] = []
        self.policies: list[str | Policy] = []

    def attack(self, call: Call, policy: str | Policy = "compute", deadline_s: float = DEADLINE_S) -> Any:
        """Run the call in a new worker, which ends with it; answer its outcome as a value."""
        worker = FX.StartWorkerProcess(policy=policy) | run
        try:
            outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=call, deadline_s=deadline_s))
        finally:
            FX.StopWorkerProcess(process=worker) | run
        self.outcomes.append(outcome)
        self.policies.append(policy)
        return outcome

    def control(self, call: Call) -> Any:
        """The same where only crashes are contained. What it answers is not looked at: it is meant to work."""
        worker = FX.StartWorkerProcess(policy="trusted") | run
        try:
            return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=call, deadline_s=DEADLINE_S))
        finally:
            FX.StopWorkerProcess(process=worker) | run

    def check(self) -> None:
        for outcome in self.outcomes:
            assert self.secret not in repr(outcome) + str(getattr(outcome, "to_dict", str)()), "the secret got out"
        assert self.sentinel.read_text() == self.secret, "the sentinel was touched"
        assert FX.SendCommandToWorkerProcess(process=self.neighbour, command=add(2, 3)) | run == 5
        for policy in {id(p): p for p in self.policies}.values():
            worker = FX.StartWorkerProcess(policy=policy) | run
            assert FX.SendCommandToWorkerProcess(process=worker, command=add(20, 3)) | run == 23
            FX.StopWorkerProcess(process=worker) | run


def compute(**changes: Any) -> Policy:
    """The compute profile with these fields changed; `limits` is a table of what differs."""
    base = load_policy("compute")
    limits = {**base.limits.to_data(), **changes.pop("limits", {})}
    return base.replaced(limits=type(base.limits)(**limits), **changes)


@pytest.fixture(scope="module")
def neighbour() -> Iterator[WorkerProcess]:
    """A worker that is there before any attack."""
    worker = FX.StartWorkerProcess(policy="compute") | run
    yield worker
    FX.StopWorkerProcess(process=worker) | run


@pytest.fixture
def arena(tmp_path: Path, neighbour: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    """See Arena; checked after the test."""
    tmp_path.chmod(0o755)
    built = Arena(tmp_path, neighbour)
    monkeypatch.setenv("FXCELL_TEST_SECRET", built.secret)
    assert os.environ["FXCELL_TEST_SECRET"] == built.secret
    yield built
    built.check()
