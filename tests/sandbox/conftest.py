"""Workers for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fxcell import FX, run


@pytest.fixture(scope="module")
def in_worker() -> Iterator[Callable[..., Any]]:
    """`in_worker(call, policy="compute")`: run a call in a worker that the whole file shares, one per policy."""
    workers: dict[Any, Any] = {}

    def send(call: Any, policy: Any = "compute") -> Any:
        if policy not in workers:
            workers[policy] = FX.StartWorkerProcess(policy=policy) | run
        return FX.SendCommandToWorkerProcess(process=workers[policy], command=call) | run

    yield send
    for worker in workers.values():
        FX.StopWorkerProcess(process=worker) | run
