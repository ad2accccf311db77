"""Effects, asked for by plugins that want more than one answer each: without reading, while dying, for somebody else."""

from __future__ import annotations

import threading

import psutil

from fxcell import FX, Effect, EffectDenied, EffectFailed, Reason, WorkerCrash, handles, run, zef_function
from fxcell.host import registry
from tests.escapes.conftest import compute

BUDGET = 100
SEEN: list[tuple[str, str]] = []


class Outlive(Effect):
    """Answered only after the worker that asked is gone."""

    mark: str


@handles(Outlive)
def outlive(effect, context):
    assert context.cancelled(60.0)
    SEEN.append((context.worker, effect.mark))
    return "too late"


class Whoami(Effect):
    """Answer who asked, and what."""

    mark: str


@handles(Whoami)
async def whoami(effect, context):
    return [context.worker, effect.mark]


@zef_function
def ask_without_reading(wanted):
    """Send effects until nothing more fits, then read every answer: (sent before that, results, denials)."""
    import select
    import socket

    import fxcell
    from fxcell.policies import values
    from fxcell.sandbox import value_frames, wire

    channel = fxcell.run.channel
    body = values.pack(FX.Now()).body
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLOUT)
    sent, rest = 0, b""
    while sent < wanted:
        frame = value_frames.encode("effect", sent + 1, body)
        rest = rest or wire.MAGIC + len(frame).to_bytes(4, "little") + frame
        try:
            rest = rest[channel.socket.send(rest, socket.MSG_DONTWAIT) :]
            sent += not rest
        except BlockingIOError:
            if not poller.poll(1000):
                break
    before = sent
    kinds = []
    if rest:  # the host takes in the second half only while answers are read
        threading.Thread(target=channel.socket.sendall, args=(rest,), daemon=True).start()
        sent += 1
    for number in range(1, sent + 1):
        answer = channel.receive()
        if answer.id != number:
            raise ValueError(f"answer {answer.id} came where {number} was next")
        kinds.append(answer.which())
    return before, kinds.count("effectResult"), kinds.count("failure"), kinds == sorted(kinds)


@zef_function
def ask_a_million_times(count):
    """Ask and read, one after the other: how many were done."""
    done = 0
    for _ in range(count):
        try:
            FX.Now() | run
            done += 1
        except EffectDenied:
            pass
    return done


@zef_function
def ask_and_die(mark):
    import os
    import signal

    import fxcell
    from fxcell.policies import values

    fxcell.run.channel.send_value("effect", 1, values.pack(FX.Outlive(mark=mark)))
    os.kill(os.getpid(), signal.SIGKILL)


@zef_function
def ask_who(mark, count):
    return [FX.Whoami(mark=f"{mark}.{number}") | run for number in range(count)]


@zef_function
def sleep_long():
    FX.Sleep(seconds=30.0) | run


def test_effects_without_reading_answers_meet_back_pressure_and_the_budget(arena):
    host = psutil.Process()
    before_bytes = host.memory_info().rss
    told = arena.attack(ask_without_reading(1_000_000), compute(limits={"effects": BUDGET}))
    sent, results, denials, in_order = told
    print(f"{sent} effects fit before the first answer was read")
    # What fits into the buffers of two sockets, and not a million: the host holds no queue of its own.
    assert BUDGET < sent < 100_000
    assert results == BUDGET
    assert sent - BUDGET <= denials <= sent - BUDGET + 1
    assert in_order
    assert host.memory_info().rss - before_bytes < 64 * 2**20


def test_asking_without_end_is_denied_after_the_budget_and_ends_with_the_cpu_limit(arena):
    limits = {"effects": BUDGET, "cpu_s": 1.0}
    worker = FX.StartWorkerProcess(policy=compute(limits=limits)) | run
    broker = registry.session_of(worker).broker
    ended = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=ask_a_million_times(10_000_000)))
    assert isinstance(ended, WorkerCrash)
    assert ended.reason in (Reason.CPU_LIMIT, Reason.DEADLINE)
    assert (broker.performed, ended.evidence.effects_performed) == (BUDGET, BUDGET)
    assert len(broker.records) == broker.records.maxlen  # what is remembered of them is bounded too
    again = arena.attack(ask_a_million_times(2 * BUDGET), compute(limits={"effects": BUDGET}))
    assert again == BUDGET


def test_worker_that_dies_after_it_asked_is_reported_with_the_open_effect_which_is_not_replayed(arena):
    mark = arena.folder.name
    policy = compute(effects={"Outlive": True})
    crash = arena.attack(ask_and_die(mark), policy)
    assert isinstance(crash, WorkerCrash)
    evidence = crash.evidence
    assert evidence.signal == 9
    assert (evidence.open_effect, evidence.last_effect, evidence.effects_performed) == ("Outlive", "Outlive", 1)
    assert [seen for _, seen in SEEN if seen == mark] == [mark]  # once


def test_effect_that_would_end_after_the_deadline_is_cancelled_at_the_broker(arena):
    worker = FX.StartWorkerProcess(policy="compute") | run
    broker = registry.session_of(worker).broker
    ended = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=sleep_long(), deadline_s=0.3))
    assert isinstance(ended, EffectFailed | WorkerCrash)
    assert (broker.records[-1].effect, broker.records[-1].outcome) == ("Sleep", "failed")
    assert broker.records[-1].seconds < 20
    FX.StopWorkerProcess(process=worker) | run


def test_workers_at_the_same_time_get_their_own_answers_alone(arena):
    policy = compute(effects={"Whoami": True})
    workers = [FX.StartWorkerProcess(policy=policy) | run for _ in range(4)]
    sent = [
        run.submit(FX.SendCommandToWorkerProcess(process=worker, command=ask_who(f"m{number}", 50)))
        for number, worker in enumerate(workers)
    ]
    for number, (worker, future) in enumerate(zip(workers, sent, strict=True)):
        assert future.result(60) == [[worker.id, f"m{number}.{count}"] for count in range(50)]
        assert [record.effect for record in registry.session_of(worker).broker.records] == ["Whoami"] * 50
    for worker in workers:
        FX.StopWorkerProcess(process=worker) | run
