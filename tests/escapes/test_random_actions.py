"""Random mixes of hostile actions against one host: after each it answers rightly, nothing is left, each is named rightly.

The actions are the selftest's attacks, those that end at once. Each of twelve slots holds a worker under some policy; an action
goes to the worker that is there, whatever was tried in it before, or to a new one where that has died. Eight run at the same
time, beside calls to a neighbour. A small run is part of the tests; `make test-random` makes FXCELL_RANDOM_ACTIONS of them.
"""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fxcell import FX, WorkerCrash, load_policy, run, zef_function
from fxcell.host import templates
from fxcell.host.plugins import load_plugin
from fxcell.host.selftest import trial
from fxcell.host.selftest.attack import DONE, RAISED, REFUSED, STOPPED, Around
from fxcell.host.selftest.judgement import told
from fxcell.host.selftest.sentinels import VARIABLE, Sentinels
from fxcell.host.selftest.table import ATTACKS
from fxcell.policies.errors import OutcomeError
from tests import leaks
from tests.escapes.conftest import compute

ACTIONS = int(os.environ.get("FXCELL_RANDOM_ACTIONS", "300"))
SEED = int(os.environ.get("FXCELL_RANDOM_SEED", "0")) or (
    20_260_101 if ACTIONS <= 1000 else random.SystemRandom().getrandbits(32)
)
BATCHES, AT_ONCE, SLOTS = 12, 8, 12
PER_EXAMPLE = BATCHES * AT_ONCE

TOO_SLOW = {
    "memory",
    "unpack",
    "file_by_walking",
    "loop",
    "sleep",
    "regex",
    "stop_self",
    "half_frame",
    "closed_channel",
    "print",
    "output",
}
"""They end at a limit or a deadline, not at once. Their like is below, with smaller limits."""
CHOSEN = tuple(
    attack for attack in ATTACKS if attack.name not in TOO_SLOW and not attack.skipped(load_policy("compute"))
)
VARIES = {"stack_overflow", "bytecode", "parser", "forks", "fork", "daemon", "shell", "threads", "open_files"}
"""What these meet depends on what was tried in the same worker before: after `forks` a shell meets the limit on processes."""
LEAVE_PROCESSES = {"forks", "daemon"}
"""After these the worker is not alone in its namespace: `kill_everybody` finds somebody, all of them its own."""
POLICIES = (
    compute(name="random compute", limits={"wall_s": 53}),
    trial._tested(load_policy("strict").replaced(name="random strict"), trial._beforehand(load_policy("strict"))),
    compute(
        name="random words",
        allow=frozenset({"threads", "load_libraries", "processes", "scratch", "writable_code"}),
        limits={"processes": 4, "scratch_bytes": 2**20, "file_bytes": 2**20},
    ),
)


@zef_function
def short_loop():
    while True:
        pass


@zef_function
def take(mebibytes):
    return len(bytearray(b"x") * (mebibytes << 20))


@zef_function
def print_much():
    for _ in range(100):
        print("x" * 4096)


SMALL = compute(name="random small", limits={"memory_bytes": 80 * 2**20, "output_bytes": 64 * 1024}, effects={})
OWN = {
    # name: (call, deadline in seconds, how it ends)
    "loop": (short_loop(), 0.05, {"deadline"}),
    "memory": (take(120), 10.0, {"out_of_memory"}),
    "output": (print_much(), 10.0, {"output_limit"}),
}


@zef_function
def multiply(a, b):
    return a * b


@dataclasses.dataclass
class Host:
    """One host with its slots; `first` remembers how each action ended the first time."""

    sentinels: Sentinels
    neighbour: Any
    slots: dict[int, tuple[int, Any]] = dataclasses.field(default_factory=dict)
    first: dict[tuple[str, int], tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    tried: Counter[str] = dataclasses.field(default_factory=Counter)
    ends: Counter[str] = dataclasses.field(default_factory=Counter)
    peopled: set[str] = dataclasses.field(default_factory=set)
    actions: int = 0
    asked: int = 0

    def worker(self, slot, policy):
        """The worker of this slot under this policy; another one there is stopped first."""
        there = self.slots.get(slot)
        if there is not None and there[0] == policy:
            return there[1]
        if there is not None:
            FX.StopWorkerProcess(process=there[1]) | run
        worker = FX.StartWorkerProcess(policy=POLICIES[policy]) | run
        self.slots[slot] = (policy, worker)
        return worker

    def ask(self, future=None):
        self.asked += 1
        number = self.asked
        command = FX.SendCommandToWorkerProcess(process=self.neighbour, command=multiply(number, 3))
        return number * 3, run.submit(command)

    def batch(self, batch):
        """Run these (slot, policy, action) at the same time, and check everything there is to check."""
        started = []
        for slot, policy, action in batch:
            worker = self.worker(slot, policy)
            attack = CHOSEN[action]
            self.tried[attack.name] += 1
            around = Around(
                self.sentinels, POLICIES[policy], trial._folders(POLICIES[policy]), trial._launcher(), trial._number
            )
            arguments = dict(attack.arguments(around))
            if attack.function == "forging.answer":
                arguments["number"] = 10**7  # no command of a worker this old has that number
            call = PLUGIN.call(attack=attack.function, **arguments)
            command = FX.SendCommandToWorkerProcess(process=worker, command=call, deadline_s=20)
            started.append((slot, policy, worker, attack, run.submit(command), self.ask()))
        for slot, policy, worker, attack, future, (answer, asked) in started:
            error = future.exception()
            outcome = future.result() if error is None else error
            assert isinstance(outcome, OutcomeError | dict), (attack.name, outcome)
            if isinstance(outcome, WorkerCrash):
                FX.StopWorkerProcess(process=self.slots.pop(slot)[1]) | run
            self.check(attack, policy, outcome, alone=worker.id not in self.peopled)
            if attack.name in LEAVE_PROCESSES:
                self.peopled.add(worker.id)
            assert asked.result() == answer, f"the host answered a correct call wrongly beside {attack.name}"
            self.actions += 1
        assert self.sentinels.touched() == [], batch

    def check(self, attack, policy, outcome, *, alone):
        word, detail = told(outcome)
        what = (attack.name, POLICIES[policy].name, word, detail)
        self.ends[word] += 1
        assert not self.sentinels.seen(outcome), what
        right = attack.ends | ({DONE, REFUSED} if attack.granted(POLICIES[policy]) else set())
        if attack.name == "kill_everybody" and not alone:
            right |= {DONE}
        assert word in right, what
        named = ()
        if isinstance(outcome, WorkerCrash):
            call = outcome.evidence.syscall
            named = (outcome.signal_name, call.name if call is not None else None)
            assert (word == "denied_syscall") == (call is not None), what
            if attack.function == "kernel.call" and call is not None:
                assert (
                    call.name
                    == attack.arguments(Around(self.sentinels, POLICIES[policy], (), (), lambda name: 0))["name"]
                ), what
        if attack.name not in VARIES and (alone or attack.name != "kill_everybody"):
            assert self.first.setdefault((attack.name, policy), (word, *named)) == (word, *named), what

    def own(self, name):
        """One of the actions that end at a limit."""
        call, deadline_s, ends = OWN[name]
        worker = FX.StartWorkerProcess(policy=SMALL) | run
        answer, asked = self.ask()
        outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=call, deadline_s=deadline_s))
        FX.StopWorkerProcess(process=worker) | run
        assert told(outcome)[0] in ends, (name, outcome)
        assert asked.result() == answer
        self.actions += 1


PLUGIN = load_plugin(trial._FOLDER)
BATCH = st.lists(
    st.tuples(st.integers(0, SLOTS - 1), st.integers(0, len(POLICIES) - 1), st.integers(0, len(CHOSEN) - 1)),
    min_size=AT_ONCE, max_size=AT_ONCE, unique_by=lambda action: action[0],
)  # fmt: skip
MIX = st.lists(BATCH, min_size=BATCHES, max_size=BATCHES)


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setenv(VARIABLE, "fxcell-selftest-variable-of-the-random-run")
    for policy in (*POLICIES, SMALL):
        templates.template_for(policy)  # they stay, and are not counted
    with trial._place(POLICIES[0]) as place:  # not pytest's folder: the path of a socket must be short
        built = Host(Sentinels(place), FX.StartWorkerProcess() | run)
        for name in (
            "tcp_port",
            "tcp6_port",
            "udp_port",
            "unix_path",
            "abstract_stream",
            "abstract_datagram",
            "process",
        ):
            getattr(built.sentinels, name)
        try:
            with leaks.assert_nothing_left(patience_s=10):
                yield built
                for _, worker in built.slots.values():
                    FX.StopWorkerProcess(process=worker) | run
        finally:
            FX.StopWorkerProcess(process=built.neighbour) | run
            built.sentinels.close()


def test_actions_are_many_and_most_end_at_once():
    assert len(CHOSEN) >= 100
    assert {attack.name for attack in ATTACKS} >= TOO_SLOW
    assert {REFUSED, "denied_syscall"} == STOPPED
    assert RAISED not in STOPPED


@pytest.mark.parametrize("before", sorted(LEAVE_PROCESSES))
def test_killing_everybody_reaches_what_the_worker_itself_has_left_and_no_more(host, before):
    names = [attack.name for attack in CHOSEN]
    host.batch([(0, 2, names.index("kill_everybody"))])
    host.batch([(0, 2, names.index(before)), (1, 2, names.index("add_key"))])
    host.batch([(0, 2, names.index("kill_everybody"))])
    host.batch([(0, 2, names.index("mount"))])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_host_answers_rightly_after_every_random_action(host):
    started = time.monotonic()
    failed: list[BaseException] = []

    @seed(SEED)
    @settings(
        max_examples=-(-ACTIONS // PER_EXAMPLE), deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mix=MIX, own=st.lists(st.sampled_from(sorted(OWN)), min_size=2, max_size=2))
    def mixed(mix, own):
        if failed:
            raise failed[0]  # hypothesis asks again, and would show what workers do that were left by the failure
        try:
            for batch in mix:
                host.batch(batch)
            for name in own:
                host.own(name)
        except BaseException as error:
            error.add_note(f"FXCELL_RANDOM_SEED={SEED}, after {host.actions} actions")
            failed.append(error)
            raise

    mixed()
    while host.actions < ACTIONS:  # hypothesis gives up on an example now and then
        mixed()
    seconds = time.monotonic() - started
    ends = ", ".join(f"{count} {end}" for end, count in host.ends.most_common())
    print(
        f"\n{host.actions} random actions ({len(host.tried)} kinds) in {seconds:.0f} s, FXCELL_RANDOM_SEED={SEED}: {ends}"
    )
    assert len(host.ends) >= 6
