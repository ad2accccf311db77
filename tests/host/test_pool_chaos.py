"""Commands over one pool while its workers are killed, stopped and starved at random: each is accounted for exactly once.

Five threads send commands of eight kinds in every way there is (run, submit, map in order and as they come, aio with some of it
cancelled); another does to workers what chaos.py says. At the end every command has one outcome, its right result or a crash with a
reason that the chaos can give; no effect was performed twice, each of a command that answered once; nothing is left, and the host
is no larger. A small run is part of the tests; `make test-chaos` makes FXCELL_CHAOS_COMMANDS of them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import random
import threading
import time
from collections import Counter
from typing import Any

import psutil
import pytest

from fxcell import FX, Effect, PluginError, Pool, Reason, WorkerCrash, handles, load_policy, run, zef_function
from fxcell.host import registry, templates
from tests.host.chaos import CHAOS, chaos
from tests.host.ledger import ANSWERED, COMMANDS, OUTCOMES, SEED, data_of, ledger
from tests.leaks import assert_nothing_left

WORKERS = 4
DEADLINE_S = 1.0

LOOKS = 4
"""At the host's memory, the first after so many parts of the commands; it must not be much larger at the end."""
GROWTH_BYTES_MAX = 8 << 20


class Note(Effect):
    """Counted by the host, under the number of the command and which of its effects this is."""

    number: int
    part: int


class NoteLater(Note):
    """The same, by a coroutine."""

    number: int
    part: int


@handles(Note)
def note(effect):
    return ledger.perform(effect.number, effect.part)


@handles(NoteLater)
async def note_later(effect):
    await asyncio.sleep(0)
    return ledger.perform(effect.number, effect.part)


POLICY = load_policy("compute").replaced(name="chaos", effects={"Note": True, "NoteLater": True})


@zef_function
def act(number, kind, data):
    import os
    import time

    if kind == "work":
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
    if kind == "coroutine":
        FX.NoteLater(number=number, part=0) | run
    elif kind != "plain":
        FX.Note(number=number, part=0) | run
    if kind == "two effects":
        FX.Note(number=number, part=1) | run
    if kind == "raise":
        raise ValueError(number)
    if kind == "exit":
        os._exit(3)
    return [number, number**2, data]


def command(number: int) -> Any:
    kind = ledger.kind(number)
    return act(number, kind, data_of(number, kind))


# --- who sends commands


def by_run(pool, _rng):
    for numbers in ledger.numbers():
        for number in numbers:
            ledger.close(number, pool.outcome(command(number)))


def by_submit(pool, _rng):
    for numbers in ledger.numbers():
        futures = [pool.submit(command(number)) for number in numbers]
        for number, future in zip(numbers, futures, strict=True):
            ledger.close(number, future.exception() or future.result())


def by_map(pool, rng):
    for numbers in ledger.numbers():
        kinds = [ledger.kind(number) for number in numbers]
        ordered = rng.random() < 0.5
        inputs = numbers, kinds, map(data_of, numbers, kinds)
        found = list(pool.imap(act, *inputs, on_error="return", ordered=ordered))
        found = found if ordered else in_order(numbers, found)
        for number, outcome in zip(numbers, found, strict=True):
            ledger.close(number, outcome)


def in_order(numbers, found):
    """The outcomes of a map that came as they were done: a result says whose it is, an error is given to one that it fits."""
    own = {outcome[0]: outcome for outcome in found if isinstance(outcome, list)}
    errors = [outcome for outcome in found if not isinstance(outcome, list)]
    for fits in (
        lambda number, error: isinstance(error, PluginError) and error.message == str(number),
        lambda number, error: ledger.fits_exactly(number, error) and error.reason is Reason.EXITED,
        ledger.fits_exactly,
        lambda number, error: isinstance(error, WorkerCrash),
    ):
        for number in numbers:
            fitting = [error for error in errors if number not in own and fits(number, error)]
            fitting = [error for error in fitting if ledger.judged(number, error)[1] == ""]
            if fitting:
                own[number] = fitting[0]
                errors.remove(fitting[0])
    return [own.get(number, "no outcome") for number in numbers]


def by_aio(pool, rng):
    async def handful(numbers):
        tasks = [asyncio.ensure_future(pool.aio(command(number))) for number in numbers]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rng.sample(tasks, 2 if len(tasks) > 2 else 0):
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for numbers in ledger.numbers():
        for number, outcome in zip(numbers, asyncio.run(handful(numbers)), strict=True):
            ledger.close(number, outcome)


SENDERS = (by_run, by_run, by_submit, by_map, by_aio)


# --- the test


def own_bytes() -> int:
    gc.collect()
    return psutil.Process().memory_full_info().uss


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_is_accounted_for_once_while_workers_are_killed_stopped_and_starved():
    FX.NoteLater(number=0, part=0) | run  # what handlers need once is there before anything is counted
    ledger.performed[0] = 0
    templates.template_for(POLICY)
    started, over, acts = time.monotonic(), threading.Event(), Counter()
    looks = []
    with assert_nothing_left(patience_s=10), Pool(WORKERS, policy=POLICY, deadline_s=DEADLINE_S) as pool:
        with concurrent.futures.ThreadPoolExecutor(len(SENDERS) + 1) as threads:
            causing = threads.submit(chaos, over, acts)
            sending = [threads.submit(sender, pool, random.Random(SEED + n)) for n, sender in enumerate(SENDERS, 2)]
            try:
                while concurrent.futures.wait(sending, timeout=0.1).not_done:
                    if ledger.accounted * LOOKS >= COMMANDS * (len(looks) + 1):
                        looks.append(own_bytes())
            finally:
                over.set()
            for future in (causing, *sending):
                future.result()
        living = len(registry._living())
        assert pool.map(act, [0] * 8, ["plain"] * 8, [b""] * 8, deadline_s=20, on_error="return").count([0, 0, b""]) >= 8 - living
        assert pool.run(act(1, "plain", b""), deadline_s=20) == [1, 1, b""]
        started_workers = pool.started
        looks.append(own_bytes())
    templates.close(POLICY)
    seconds = time.monotonic() - started
    ends = Counter(str(getattr(OUTCOMES[end], "value", OUTCOMES[end])) for end in ledger.outcomes)
    print(f"\n{COMMANDS} commands in {seconds:.0f} s, FXCELL_CHAOS_SEED={SEED}: {told(ends)}")
    print(f"chaos: {told(acts)}; {started_workers} workers were started")
    print(f"effects: {sum(ledger.performed)} performed, none twice" if max(ledger.performed) < 2 else "effects: performed twice")
    grown = [(look - looks[0]) / 2**20 for look in looks[1:]]
    print(f"the host's own memory, against {looks[0] / 2**20:.1f} MiB: {' '.join(f'{mib:+.2f}' for mib in grown)} MiB")
    assert ledger.wrong == [], f"{len(ledger.wrong)} commands ended wrongly"
    assert ledger.accounted == COMMANDS
    assert 0 not in ledger.outcomes
    assert max(ledger.performed) == 1
    assert ends[ANSWERED] > COMMANDS // 2
    assert ends["killed_externally"]
    if COMMANDS >= 5000:
        assert acts.keys() == CHAOS.keys()
        assert ends["deadline"]
        assert looks[-1] - looks[0] < GROWTH_BYTES_MAX


def told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
