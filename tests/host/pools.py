"""What tests of pools share: an effect by which a command tells the host where it is, and a count of what is left."""

from __future__ import annotations

from collections import Counter

import pytest

from fxcell import FX, Effect, handles, run
from tests.leaks import assert_nothing_left

counted: Counter[str] = Counter()
acts: dict[str, object] = {}


class Step(Effect):
    """A command tells the host where it is. The host counts it, and does what the test wants at that moment."""

    item: str


@handles(Step)
def step(effect, context):
    counted[effect.item] += 1
    act = acts.get(effect.item)
    return None if act is None else act(context)


@pytest.fixture
def nothing_left():
    FX.StopWorkerProcess(process=FX.StartWorkerProcess() | run) | run  # the template process of the policy stays
    with assert_nothing_left():
        yield
