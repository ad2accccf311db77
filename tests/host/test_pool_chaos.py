"""Commands over one pool while its workers are killed, stopped and starved at random: each is accounted for exactly once.

Five threads send commands of eight kinds in every way there is (run, submit, map in order and as they come, aio with some of it
cancelled); another does to workers what CHAOS says. At the end every command has one outcome, its right result or a crash with a
reason that the chaos can give; no effect was performed twice, each of a command that answered once; nothing is left, and the host
is no larger. A small run is part of the tests; `make test-chaos` makes FXCELL_CHAOS_COMMANDS of them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from fxcell import FX, Effect, PluginError, Pool, Reason, WorkerCrash, handles, load_policy, run, zef_function
from fxcell.host import registry, templates
from fxcell.sandbox.kernel import processes
from tests.leaks import assert_nothing_left

COMMANDS = int(os.environ.get("FXCELL_CHAOS_COMMANDS", "300"))
SEED = int(os.environ.get("FXCELL_CHAOS_SEED", "0")) or (
    20_260_101 if COMMANDS <= 1000 else random.SystemRandom().getrandbits(32)
)
WORKERS = 4
DEADLINE_S = 1.0
PAUSE_S = 0.01
"""Between two acts of chaos, on average."""
LOOKS = 4
"""At the host's memory, the first after so many parts of the commands; it must not be much larger at the end."""
GROWTH_BYTES_MAX = 8 << 20

KINDS = {
    # name: (weight, effects that one command asks for)
    "plain": (30, 0),
    "effect": (20, 1),
    "two effects": (15, 2),
    "coroutine": (5, 1),
    "work": (15, 1),
    "large": (8, 1),
    "raise": (5, 1),
    "exit": (2, 1),
}
NAMES = list(KINDS)
PARTS = 2

ANSWERED, RAISED, CANCELLED = "answered", "raised", "cancelled"
OUTCOMES = ["", ANSWERED, RAISED, CANCELLED, *Reason]
PLAUSIBLE = {Reason.KILLED_EXTERNALLY, Reason.DEADLINE, Reason.CONNECTION_LOST}
"""What the chaos below can be the reason of; EXITED besides, of the one kind that exits."""


class Note(Effect):
    """Counted by the host, under the number of the command and which of its effects this is."""

    number: int
    part: int


class NoteLater(Note):
    """The same, by a coroutine."""

    number: int
    part: int


class Ledger:
    """What became of each command: in arrays made beforehand, so that the ledger itself does not grow."""

    def __init__(self) -> None:
        chosen = random.Random(SEED).choices(range(len(NAMES)), [weight for weight, _ in KINDS.values()], k=COMMANDS)
        self.kinds = bytes(chosen)
        self.outcomes = bytearray(COMMANDS)
        self.performed = bytearray(COMMANDS * PARTS)
        self.lock = threading.Lock()
        self.accounted = 0
        self.wrong: list[str] = []

    def perform(self, number: int, part: int) -> int:
        with self.lock:
            self.performed[number * PARTS + part] += 1
        return number + part

    def close(self, number: int, outcome: Any) -> None:
        """Account for one command."""
        word, wrong = self.judged(number, outcome)
        with self.lock:
            if self.outcomes[number]:
                wrong = "it had an outcome already"
            self.outcomes[number] = OUTCOMES.index(word)
            self.accounted += 1
            if wrong:
                self.wrong.append(f"{number}, {self.kind(number)}: {wrong}: {outcome!r:.300}")

    def judged(self, number: int, outcome: Any) -> tuple[str, str]:
        kind = self.kind(number)
        parts = self.performed[number * PARTS : (number + 1) * PARTS]
        asked, done = KINDS[kind][1], sum(parts)
        again = "an effect was performed twice" if max(parts) > 1 else ""
        if isinstance(outcome, WorkerCrash):
            told = outcome.evidence.effects_performed
            if outcome.reason not in PLAUSIBLE | ({Reason.EXITED} if kind == "exit" else set()):
                return outcome.reason, "no reason that the chaos can give"
            return outcome.reason, again or ("" if done <= told <= asked else f"{done} effects, {told} in the evidence")
        if isinstance(outcome, asyncio.CancelledError | concurrent.futures.CancelledError):
            return CANCELLED, again
        missing = "" if done == asked else f"{done} of {asked} effects were performed"
        if isinstance(outcome, PluginError):
            return RAISED, again or missing or ("" if kind == "raise" else "it does not raise")
        right = kind not in ("raise", "exit") and outcome == expected(number, kind)
        return ANSWERED, again or missing or ("" if right else "not its result")

    def fits_exactly(self, number: int, error: Any) -> bool:
        """True for a crash whose evidence tells of as many effects as this command has had."""
        done = sum(self.performed[number * PARTS : (number + 1) * PARTS])
        return isinstance(error, WorkerCrash) and error.evidence.effects_performed == done

    def kind(self, number: int) -> str:
        return NAMES[self.kinds[number]]

    def numbers(self) -> Iterator[list[int]]:
        """Commands in handfuls, each to one thread. Safe from many threads."""
        while True:
            with self.lock:
                start = self.taken = getattr(self, "taken", 0)
                self.taken = min(COMMANDS, start + 40)
            if start == self.taken:
                return
            yield list(range(start, self.taken))


ledger = Ledger()


@handles(Note)
def note(effect):
    return ledger.perform(effect.number, effect.part)


@handles(NoteLater)
async def note_later(effect):
    await asyncio.sleep(0)
    return ledger.perform(effect.number, effect.part)


POLICY = load_policy("compute").replaced(name="chaos", effects={"Note": True, "NoteLater": True})


def data_of(number: int, kind: str) -> bytes:
    return number.to_bytes(8, "little") * 12_500 if kind == "large" else b""  # 100 kB: sealed memory, both ways


def expected(number: int, kind: str) -> Any:
    return [number, number**2, data_of(number, kind)]


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


# --- what is done to workers


class Victim:
    """A worker and its supervisor, by pidfd: a signal never reaches another process that was given the number since."""

    def __init__(self, session: Any) -> None:
        self.pid = session.pid
        self.open = contextlib.ExitStack()
        with self.open as opened:
            self.supervisor = os.pidfd_open(session.pid)
            opened.callback(os.close, self.supervisor)
            (self.worker_pid,) = processes.children_of(session.pid)
            self.worker = os.pidfd_open(self.worker_pid)
            opened.callback(os.close, self.worker)
            # Last: while its own pidfd says so, the number is the supervisor's, and what was found below it is the worker.
            with open(f"/proc/self/fdinfo/{session._handles.pidfd}", encoding="ascii") as file:
                if f"Pid:\t{session.pid}\n" not in file.read():
                    raise ProcessLookupError
            self.open = opened.pop_all()

    def signal(self, whom: str, number: signal.Signals) -> None:
        signal.pidfd_send_signal(getattr(self, whom), number)


def kill(victim, rng, *, whom):
    victim.signal(whom, signal.SIGKILL)


def stop(victim, rng, *, whom):
    """For ever: only the deadline finds the worker, and nothing the supervisor until its worker ends."""
    victim.signal(whom, signal.SIGSTOP)


def starve(victim, rng, *, whom):
    """It gets the processor now and then."""
    for _ in range(3):
        victim.signal(whom, signal.SIGSTOP)
        time.sleep(rng.uniform(0.001, 0.03))
        victim.signal(whom, signal.SIGCONT)


def crowd(victim, rng):
    """It shares one processor, behind everybody else."""
    os.sched_setaffinity(victim.worker_pid, {min(os.sched_getaffinity(0))})
    os.setpriority(os.PRIO_PROCESS, victim.worker_pid, 19)


def kill_spare(template):
    """The worker that a template keeps ahead of need, or one that is being started; True when there was one."""
    given = {session.pid for session in registry._living()}
    spares = [child for child in processes.children_of(template.process.pid) if child not in given]
    if not spares:
        return False
    with contextlib.ExitStack() as opened:
        pidfd = os.pidfd_open(spares[-1])
        opened.callback(os.close, pidfd)
        if spares[-1] in processes.children_of(template.process.pid):  # so it is the same that was seen there
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return True


CHAOS = {
    # name: (weight, what is done)
    "worker killed": (30, functools.partial(kill, whom="worker")),
    "supervisor killed": (20, functools.partial(kill, whom="supervisor")),
    "worker stopped": (8, functools.partial(stop, whom="worker")),
    "supervisor stopped": (2, functools.partial(stop, whom="supervisor")),
    "spare killed": (5, None),
    "worker starved": (25, functools.partial(starve, whom="worker")),
    "supervisor starved": (10, functools.partial(starve, whom="supervisor")),
    "worker crowded": (10, crowd),
}


def chaos(over: threading.Event, done: Counter[str]) -> None:
    rng = random.Random(SEED + 1)
    names, weights = list(CHAOS), [weight for weight, _ in CHAOS.values()]
    stopped: set[str] = set()  # nothing else is done to them: each is there for the deadline to find
    while not over.wait(rng.expovariate(1 / PAUSE_S)):
        living = [session for session in registry._living() if session.process.id not in stopped]
        if not living:
            continue
        (name,) = rng.choices(names, weights)
        session = rng.choice(living)
        with contextlib.suppress(OSError, ValueError):  # it ends at this very moment, for another reason
            if name == "spare killed":
                done[name] += kill_spare(session._template)
                continue
            victim = Victim(session)
            with victim.open:
                CHAOS[name][1](victim, rng)
                done[name] += 1
                if name == "worker stopped":
                    stopped.add(session.process.id)


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
