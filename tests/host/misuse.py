"""What tests of a misused pool share: commands that tell the host where they are, calls that may not hang, and what is left."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import pytest

from fxcell import FX, Effect, handles, load_policy, run, zef_function
from fxcell.host import templates
from tests.host.pools import acts, counted, step
from tests.leaks import assert_nothing_left

PATIENCE_S = 30.0


class StepLater(Effect):
    """Step, by a coroutine."""

    item: str


@handles(StepLater)
async def tell_later(effect, context):
    await asyncio.sleep(0)
    return step(effect, context)


POLICY = load_policy("compute").replaced(name="misuse", effects={"Step": True, "StepLater": True})


@pytest.fixture(autouse=True, scope="module")
def template():
    FX.Step(item="") | run  # what handlers need once is there before anything is counted, a loop for coroutines too
    FX.StepLater(item="") | run
    templates.template_for(POLICY)
    yield
    templates.close(POLICY)


@pytest.fixture(autouse=True)
def nothing_left(template):
    counted.clear()
    acts.clear()
    with assert_nothing_left():
        yield


@zef_function
def work(item):
    FX.Step(item=item) | run
    return item


@zef_function
def work_later(item):
    FX.StepLater(item=item) | run
    return item


@zef_function
def linger(item):
    import time

    FX.Step(item=item) | run
    time.sleep(3600)


def in_time(act, *arguments):
    """Call in another thread: what hangs fails here, and not at the limit of the whole run."""
    future = concurrent.futures.Future()

    def call():
        try:
            future.set_result(act(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future.result(PATIENCE_S)


def outcome_of(future):
    return future.exception(PATIENCE_S) or future.result()


def held(pool, item="held"):
    """A command that the host holds in its effect until the answer is let go of: (its future, let go)."""
    let_go, began = threading.Event(), threading.Event()
    acts[item] = lambda _context: (began.set(), let_go.wait(PATIENCE_S))[:0]
    future = pool.submit(work(item))
    assert began.wait(PATIENCE_S)
    return future, let_go.set
