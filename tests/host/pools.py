"""What tests of pools share: an effect by which a command tells the host where it is, commands, and a count of what is left."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from fxcell import FX, Effect, handles, run, zef_function
from fxcell.host import registry
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


@zef_function
def add(a, b):
    return a + b


@zef_function
def dwell(n):
    """Long enough to be sent one by one."""
    import time

    time.sleep(0.02)
    return n


@zef_function
def misbehave(how, value=None):
    import os
    import signal
    import time

    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "raise":
        raise ValueError(value)
    if how == "hang":
        time.sleep(60)
    if how == "grow":
        globals().setdefault("kept", []).append(bytearray(value))
    return value if how != "pid" else os.getpid()


def wait_until_busy(count, patience_s=30.0):
    end = time.monotonic() + patience_s
    while [worker["state"] for worker in registry.list_living()] != ["busy"] * count:
        assert time.monotonic() < end, "the workers never had their commands"
        time.sleep(0.01)


@zef_function
def same(value):
    return value
