"""What is done to the workers of a pool at random: killed, stopped, starved and crowded, each signal by pidfd."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import threading
import time
from collections import Counter
from typing import Any

from fxcell.host import registry
from fxcell.sandbox.kernel import processes
from tests.host.ledger import SEED

PAUSE_S = 0.01
"""Between two acts of chaos, on average."""


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
