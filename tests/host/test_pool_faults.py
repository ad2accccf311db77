"""Fault injection: a worker killed or stopped at each point of a call's life, and callers that do what they should not.

    before_send  half_sent  sent        the command on its way: not begun, in pieces, in the socket of a worker that stands still
    in_effect    half_answered          an effect of it: while the host performs it, while the answer is on its way
    after_effect half_result            the worker works on; it has written half of its result
    after_result                        the command has answered: whatever happens now, it has

Each row of that table is tried with each of CUTS: real signals to real processes. Whatever happens, the call ends in its documented
outcome, its effect was performed as often as the evidence says and never again, the next call is answered, and nothing is left.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import time
from collections import Counter
from dataclasses import dataclass

import psutil
import pytest

from fxcell import FX, Pool, Reason, WorkerCrash, load_policy, zef_function
from fxcell.host import ending, registry, templates, watching
from fxcell.sandbox.kernel import processes
from tests.host.pools import acts, counted
from tests.leaks import assert_nothing_left

PATIENCE_S = 30.0
LARGE = 8 << 20  # characters of a frame that no socket buffer takes at once

POLICY = load_policy("compute").replaced(name="faults", effects={"Step": True})


@pytest.fixture(autouse=True)
def nothing_left():
    counted.clear()
    acts.clear()
    with assert_nothing_left():
        yield
        templates.close(POLICY)  # some rows have killed the one that was there


@zef_function
def work(item, size=0):
    FX.Step(item=item) | run
    return item


@zef_function
def swallow(item, text):
    FX.Step(item=item) | run
    return len(text)


@zef_function
def linger(item):
    import time

    FX.Step(item=item) | run
    time.sleep(3600)


@zef_function
def write_half_a_result(item, then):
    import os
    import signal
    import time

    FX.Step(item=item) | run
    os.write(3, b"FXC1" + (4096).to_bytes(4, "little") + bytes(1000))
    if then == "exit":
        os._exit(0)
    if then == "fault":
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(3600)


@zef_function
def answer_and_die(item):
    import os
    import signal

    import fxcell
    from fxcell.policies import values

    FX.Step(item=item) | run
    fxcell.run.channel.send_value("result", fxcell.run.command, values.pack(item))
    os.kill(os.getpid(), signal.SIGKILL)


from fxcell import run  # noqa: E402  (in a worker the functions above find it as a global; here it is the host's)


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.002)


def is_dead(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # the last of its evidence may go between any two questions
        return True


class Bench:
    """The one worker of a pool, and what can be done to it."""

    def __init__(self, pool):
        (listed,) = registry.list_living()
        self.pool = pool
        self.session = registry.session_of(listed["process"])
        self.pids = {"supervisor": listed["pid"], "template": self.session._template.process.pid}
        (self.pids["worker"],) = processes.children_of(listed["pid"])

    def stop(self):
        os.kill(self.pids["worker"], signal.SIGSTOP)
        wait_until(lambda: watching.is_stopped(self.pids["supervisor"]), "the worker stands still")

    def cut(self, cut):
        """Do it, and wait until it has happened."""
        if cut == "stopped":
            self.stop()
        else:
            os.kill(self.pids[cut], signal.SIGKILL)
            assert self.session._handles.gone_within(PATIENCE_S)

    def unread_bytes(self):
        """What the worker has been sent and has not read. Source: unix(7), SIOCOUTQ."""
        found = fcntl.ioctl(self.session.channel.fileno(), termios.TIOCOUTQ, bytes(4))
        return struct.unpack("i", found)[0]


def before_send(bench, cut, monkeypatch):
    begin = ending.Handles.begin_command

    def cut_first(handles):
        if handles is bench.session._handles:
            bench.cut(cut)
        begin(handles)

    monkeypatch.setattr(ending.Handles, "begin_command", cut_first)
    return bench.pool.submit(work("x"))


def half_sent(bench, cut, _monkeypatch):
    bench.stop()
    future = bench.pool.submit(swallow("x", "y" * LARGE))
    wait_until(lambda: bench.unread_bytes() > 64 * 1024, "a part of the command was sent")
    bench.cut(cut)
    return future


def sent(bench, cut, _monkeypatch):
    bench.stop()
    future = bench.pool.submit(work("x"))
    wait_until(bench.unread_bytes, "the command was sent")
    bench.cut(cut)
    return future


def in_effect(bench, cut, _monkeypatch):
    acts["x"] = lambda _context: bench.cut(cut)
    return bench.pool.submit(work("x"))


def half_answered(bench, cut, _monkeypatch):
    def answer(_context):
        bench.stop()
        return "y" * LARGE

    acts["x"] = answer
    future = bench.pool.submit(work("x"))
    wait_until(lambda: counted["x"] and bench.unread_bytes() > 64 * 1024, "a part of the answer was sent")
    bench.cut(cut)
    return future


def after_effect(bench, cut, _monkeypatch):
    future = bench.pool.submit(linger("x"))
    wait_until(lambda: counted["x"] and bench.session._exchange.open_effect is None, "the effect was answered")
    bench.cut(cut)
    return future


def half_result(bench, cut, _monkeypatch):
    future = bench.pool.submit(write_half_a_result("x", "wait"))
    wait_until(lambda: counted["x"] and bench.session.channel.has_buffered(), "half of the result came")
    bench.cut(cut)
    return future


def after_result(bench, cut, _monkeypatch):
    future = bench.pool.submit(work("x"))
    assert future.result(PATIENCE_S) == "x"
    wait_until(lambda: bench.session.state == "idle", "the worker has nothing to do")
    bench.cut(cut)
    return future


@dataclass(frozen=True)
class Point:
    """performed: how often the effect; open_effect: as in the evidence; where a stop differs from a kill it says so itself."""

    reach: object
    performed: int
    open_effect: str | None = None
    open_effect_when_stopped: str | None = None


POINTS = (
    Point(before_send, 0),
    Point(half_sent, 0),
    Point(sent, 0),
    Point(in_effect, 1, "Step"),  # one that was stopped has its answer: it is in its socket
    Point(half_answered, 1, "Step", "Step"),
    Point(after_effect, 1),
    Point(half_result, 1),
)
CUTS = {
    # what is killed, or the worker stopped: (reason, a part of the detail)
    "worker": (Reason.KILLED_EXTERNALLY, "SIGKILL, sent neither by this host"),
    "supervisor": (Reason.KILLED_EXTERNALLY, "its supervisor died of SIGKILL"),
    "template": (Reason.KILLED_EXTERNALLY, "its template process ended"),
    "stopped": (Reason.DEADLINE, "no answer within 1 s; the worker is stopped (SIGSTOP)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.reach.__name__)
def test_cut_at_each_point_is_one_crash_its_effect_is_never_repeated_and_the_next_call_is_answered(
    point, cut, monkeypatch
):
    reason, detail = CUTS[cut]
    with Pool(1, min_workers=1, policy=POLICY) as pool:
        assert pool.run(work("before")) == "before"  # it knows the code now: the next that is sent is the command
        assert pool.run(swallow("before", "")) == 0
        pool._deadline_s = 1 if cut == "stopped" else PATIENCE_S
        crash = point.reach(Bench(pool), cut, monkeypatch).exception(PATIENCE_S)
        assert isinstance(crash, WorkerCrash), crash
        assert (crash.reason, detail in crash.detail) == (reason, True), crash
        performed, open_effect = point.performed, point.open_effect
        assert crash.evidence.effects_performed == performed
        assert crash.evidence.open_effect == (point.open_effect_when_stopped if cut == "stopped" else open_effect)
        assert crash.evidence.last_effect == "Step"
        pool._deadline_s = None
        assert pool.run(work("after")) == "after"
        assert pool.started == 2
    assert counted == Counter({"before": 2, "x": performed, "after": 1}), "an effect was lost or repeated"


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["worker", "supervisor", "template"])
def test_kill_after_the_result_takes_nothing_back_and_the_next_call_is_answered(cut, monkeypatch):
    with Pool(1, min_workers=1, policy=POLICY) as pool:
        assert after_result(Bench(pool), cut, monkeypatch).result() == "x"
        assert pool.run(work("after")) == "after"
        assert pool.started == 2
    assert counted == Counter(x=1, after=1)


@pytest.mark.needs_root  # elsewhere there may be no cgroup to put it into, and its first command finds it dead
@pytest.mark.parametrize("cut", ["worker", "supervisor"])
def test_worker_killed_once_it_has_greeted_is_a_failed_start_and_another_gets_the_command(cut, monkeypatch):
    enter, cuts = ending.Handles.enter_cgroup, []

    def cut_first(handles):
        if not cuts:
            cuts.append(handles.pid if cut == "supervisor" else processes.children_of(handles.pid)[0])
            os.kill(cuts[0], signal.SIGKILL)
            wait_until(lambda: is_dead(cuts[0]), "it is dead")
        return enter(handles)

    monkeypatch.setattr(ending.Handles, "enter_cgroup", cut_first)
    with Pool(1, policy=POLICY) as pool:
        assert pool.run(work("x")) == "x"
        assert (len(cuts), pool.started) == (1, 1)
    assert counted == Counter(x=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("goes_on", "reason", "detail"),
    [(True, Reason.SIGNAL, "the worker died of SIGSEGV"), (False, Reason.CONNECTION_LOST, "its supervisor does not say how")],
    ids=["for a while", "for good"],
)
def test_worker_that_dies_while_its_supervisor_stands_still_is_not_blamed_for_running_on(goes_on, reason, detail, monkeypatch):
    with Pool(1, min_workers=1, policy=POLICY) as pool:
        bench = Bench(pool)
        is_dead = watching.is_dead

        def go_on(pid):
            dead = is_dead(pid)
            if goes_on:
                os.kill(pid, signal.SIGCONT)
            return dead

        monkeypatch.setattr(watching, "is_dead", go_on)
        os.kill(bench.pids["supervisor"], signal.SIGSTOP)
        crash = pool.outcome(write_half_a_result("x", "fault"))
        assert (crash.reason, detail in crash.detail) == (reason, True), crash
        assert pool.run(work("after")) == "after"
    assert counted == Counter(x=1, after=1)


@pytest.mark.parametrize(
    ("then", "reason", "detail"),
    [("exit", Reason.EXITED, "status 0 instead of answering"), ("fault", Reason.SIGNAL, "the worker died of SIGSEGV")],
)
def test_worker_that_ends_within_its_result_is_a_crash_that_says_so(then, reason, detail):
    with Pool(1, policy=POLICY) as pool:
        crash = pool.outcome(write_half_a_result("x", then))
        assert crash.reason is reason
        assert detail in crash.detail
        assert crash.detail.endswith(", in the middle of a message")
        assert (crash.evidence.effects_performed, crash.evidence.open_effect) == (1, None)
        assert pool.run(work("after")) == "after"
    assert counted == Counter(x=1, after=1)


def test_worker_that_dies_right_behind_its_result_has_answered():
    with Pool(1, policy=POLICY) as pool:
        for _ in range(5):
            assert pool.run(answer_and_die("x")) == "x"
            # What comes while it is dying could still be sent to it, as to one that a thread of an earlier command kills.
            wait_until(lambda: not registry.list_living(), "it is dead")
        assert pool.run(work("after")) == "after"
    assert counted == Counter(x=5, after=1)


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "as they come"])
def test_cut_within_a_map_is_the_outcome_of_its_own_item_and_every_item_is_done_once(cut, ordered):
    items = [f"item {n}" for n in range(24)]

    def cut_its_worker(context):
        (session,) = (one for one in registry._living() if one.process.id == context.worker)
        if cut == "stopped":
            os.kill(processes.children_of(session.pid)[0], signal.SIGSTOP)
            return
        (child,) = processes.children_of(session.pid)
        os.kill(child if cut == "worker" else session.pid, signal.SIGKILL)
        assert context.cancelled(PATIENCE_S)

    victims = {"item 5", "item 6", "item 23"}
    acts.update(dict.fromkeys(victims, cut_its_worker))
    cut = "supervisor" if cut == "template" else cut  # it would take its other worker's item with it
    with Pool(2, policy=POLICY, deadline_s=1 if cut == "stopped" else None) as pool:
        found = list(pool.imap(work, items, on_error="return", ordered=ordered))
        assert pool.run(work("after")) == "after"
    crashes = [outcome for outcome in found if isinstance(outcome, WorkerCrash)]
    assert [crash.reason for crash in crashes] == [CUTS[cut][0]] * len(victims)
    assert sorted(outcome for outcome in found if isinstance(outcome, str)) == sorted(set(items) - victims)
    if ordered:
        assert all(outcome == item for outcome, item in zip(found, items, strict=True) if item not in victims)
    assert counted == Counter([*items, "after"])
