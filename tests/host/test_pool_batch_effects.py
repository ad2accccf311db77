"""Batches whose calls ask for effects: each is performed once, and none keeps back what its own source or pool waits for."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from fxcell import FX, Effect, EffectFailed, Policy, Pool, WorkerCrash, handles, run, zef_function
from fxcell.host import templates
from tests.host.pools import nothing_left as nothing_left  # noqa: PLC0414 - the fixture
from tests.host.pools import same

TOLD: Counter[int] = Counter()
BEGUN = threading.Event()


class PoolTold(Effect):
    """Counted by its number."""

    number: int


@handles(PoolTold)
def tell(effect):
    TOLD[effect.number] += 1


POOL_NESTED: list[Any] = []


class PoolNested(Effect):
    """Has the host use the pool that it is asked from."""


@handles(PoolNested)
def nest(effect):
    return POOL_NESTED[-1](effect)


class PoolBegun(Effect):
    """Says that its command has begun."""


@handles(PoolBegun)
def begin(_effect):
    BEGUN.set()


pytestmark = pytest.mark.usefixtures("nothing_left")


def test_effects_among_many_calls_are_each_performed_once():
    TOLD.clear()

    @zef_function
    def sometimes(n):
        if n % 7 == 0:
            FX.PoolTold(number=n) | run
        if n == 70:
            import os

            os._exit(3)
        return n

    policy = Policy(name="told", effects={"PoolTold": True})
    with Pool(2, policy=policy) as pool:
        found = pool.map(sometimes, range(1000), on_error="return")
    templates.close(policy)
    assert Counter(range(0, 1000, 7)) == TOLD
    assert [n for n, outcome in enumerate(found) if isinstance(outcome, WorkerCrash)] == [70]


def test_input_is_sent_while_the_source_waits_for_its_outcome():
    BEGUN.clear()

    @zef_function
    def tell(n):
        FX.PoolBegun() | run
        return n

    def source():
        for n in range(3):
            yield n
            assert BEGUN.wait(30), "the input before was kept back"
            BEGUN.clear()

    policy = Policy(name="begun", effects={"PoolBegun": True})
    with Pool(2, policy=policy) as pool:
        assert pool.map(tell, source()) == [0, 1, 2]
    templates.close(policy)


def test_map_inside_a_handler_while_every_worker_waits_for_one_ends_when_none_gets_free():
    def nested(_effect):
        return sum(pool.map(same, range(3)))

    @zef_function
    def ask(_n):
        return FX.PoolNested() | run

    POOL_NESTED.append(nested)
    policy = Policy(name="nested", effects={"PoolNested": True})
    with Pool(2, policy=policy, wait_s=0.5) as pool:
        assert pool.map(ask, [1], on_error="return") == [3]
        found = pool.map(ask, range(2), on_error="return")
    POOL_NESTED.clear()
    templates.close(policy)
    assert len(found) == 2
    assert all(outcome == 3 or isinstance(outcome, EffectFailed) for outcome in found)
