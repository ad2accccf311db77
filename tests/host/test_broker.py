"""The broker: rules, budgets, deadline, evidence, and nothing of the host in what a plugin is told."""

import logging
import threading
import time

import pytest

from fxcell.host import effects
from fxcell.host.broker import Broker, Context, perform_locally
from fxcell.policies import rules
from fxcell.policies.builtin import (
    ListWorkerProcesses,
    Log,
    Now,
    Print,
    RandomBytes,
    SendCommandToWorkerProcess,
    Sleep,
    StartWorkerProcess,
    StopWorkerProcess,
)
from fxcell.policies.effects import WorkerProcess
from fxcell.policies.errors import EffectDenied, EffectError, EffectFailed, InternalError
from fxcell.policies.limits import Limits
from fxcell.policies.policy import Policy

PRINT_ONLY = Policy(name="print-only", effects={"Print": True})


def context(policy, lines=None, *, seconds=30.0, cancelled=None):
    return Context(
        worker="w3",
        policy=policy,
        deadline=time.monotonic() + seconds,
        cancelled=cancelled or threading.Event().wait,
        output=(lines if lines is not None else []).append,
    )


@pytest.fixture
def handler(monkeypatch):
    """Replaces the handler of Print by a function given to it."""

    def replace(function):
        monkeypatch.setitem(effects.HANDLERS, "Print", function)

    return replace


def test_granted_effect_is_performed_and_recorded():
    broker, lines = Broker(PRINT_ONLY, "w3"), []
    before = time.time()
    assert broker.perform(Print(content="hi\x1b"), context(PRINT_ONLY, lines)) is None
    assert lines == [r"hi\x1b"]
    (record,) = broker.records
    assert (record.number, record.effect, record.outcome, record.detail) == (1, "Print", "done", r"content='hi\x1b'")
    assert before <= record.started_unix_s <= time.time()
    assert 0 <= record.seconds < 30
    assert (broker.last_effect, broker.open_effect, broker.performed, broker.last_denial) == ("Print", None, 1, None)


def test_effect_outside_the_policy_is_denied_and_not_counted():
    broker = Broker(PRINT_ONLY, "w3")
    with pytest.raises(EffectDenied) as denied:
        broker.perform(RandomBytes(count=1), context(PRINT_ONLY))
    assert (denied.value.effect, denied.value.policy) == ("RandomBytes", "print-only")
    assert denied.value.suggestion
    assert broker.last_denial is denied.value
    assert broker.performed == 0
    assert broker.records[0].outcome == "denied"


@pytest.mark.parametrize(
    "effect",
    [
        StartWorkerProcess(),
        SendCommandToWorkerProcess(process=WorkerProcess("w1"), command=1),
        StopWorkerProcess(process=WorkerProcess("w1")),
        ListWorkerProcesses(),
    ],
)
def test_worker_effect_from_inside_a_worker_is_denied_by_every_policy(effect):
    with pytest.raises(EffectDenied, match="No policy can grant it"):
        Broker(PRINT_ONLY, "w3").perform(effect, context(PRINT_ONLY))


def test_effects_over_the_command_budget_are_denied_until_the_next_command():
    policy = Policy(effects={"Print": True, "Now": True}, limits=Limits(effects=2))
    broker = Broker(policy, "w3")
    broker.perform(Print(content=1), context(policy))
    broker.perform(Now(), context(policy))
    with pytest.raises(EffectDenied, match=r"limits\.effects = 2"):
        broker.perform(Now(), context(policy))
    assert broker.performed == 2
    broker.begin_command()
    assert (broker.performed, broker.last_denial) == (0, None)
    broker.perform(Now(), context(policy))
    assert [record.number for record in broker.records] == [1, 2, 3, 4]


def test_refused_effects_use_up_the_command_budget_until_the_next_command():
    policy = Policy(effects={"Now": True}, limits=Limits(effects=2))
    broker = Broker(policy, "w3")
    for _ in range(2):
        with pytest.raises(EffectDenied, match="not in its list"):
            broker.perform(RandomBytes(count=1), context(policy))
    assert (broker.performed, broker.refused, broker.over_budget) == (0, 2, 0)
    with pytest.raises(EffectDenied, match=r"limits\.effects = 2"):
        broker.perform(Now(), context(policy))
    assert broker.over_budget == 1
    broker.begin_command()
    broker.perform(Now(), context(policy))
    assert (broker.performed, broker.refused, broker.over_budget) == (1, 0, 0)


def test_effect_over_the_command_budget_is_not_judged_any_more(monkeypatch):
    broker = Broker(Policy(name="three", limits=Limits(effects=3)), "w1")
    judged = []
    check = rules.check
    monkeypatch.setattr(rules, "check", lambda policy, effect: (judged.append(effect), check(policy, effect)))
    for _ in range(10):
        with pytest.raises(EffectDenied):
            broker.perform(Now(), context(broker.policy))
    assert len(judged) == 3


def test_no_effects_at_all_in_the_budget_denies_the_first():
    policy = Policy(effects={"Now": True}, limits=Limits(effects=0))
    with pytest.raises(EffectDenied, match=r"limits\.effects = 0"):
        Broker(policy, "w3").perform(Now(), context(policy))


def test_effect_over_its_own_budget_is_denied_and_others_go_on():
    policy = Policy(effects={"Print": True, "Now": {"max_calls": 1}})
    broker = Broker(policy, "w3")
    broker.perform(Now(), context(policy))
    with pytest.raises(EffectDenied, match=r"effects\.Now\.max_calls = 1"):
        broker.perform(Now(), context(policy))
    broker.perform(Print(content=1), context(policy))
    broker.begin_command()
    broker.perform(Now(), context(policy))


def test_deadline_that_is_over_is_a_timeout_and_the_handler_is_not_called(handler):
    handler(lambda *_: pytest.fail("called"))
    broker = Broker(PRINT_ONLY, "w3")
    with pytest.raises(EffectFailed) as failed:
        broker.perform(Print(content=1), context(PRINT_ONLY, seconds=-1))
    assert failed.value.kind == "timeout"
    assert broker.records[0].outcome == "failed"


@pytest.mark.parametrize("deadline", [float("inf"), float("nan")])
def test_deadline_that_is_not_finite_performs_nothing(handler, deadline):
    handler(lambda *_: pytest.fail("called"))
    endless = Context("w3", PRINT_ONLY, deadline, threading.Event().wait, print)
    with pytest.raises(EffectFailed):
        Broker(PRINT_ONLY, "w3").perform(Print(content=1), endless)


def test_deadline_that_passes_in_the_handler_is_a_timeout(handler):
    def outlast(_effect, asked):
        while time.monotonic() < asked.deadline:
            pass

    handler(outlast)
    with pytest.raises(EffectFailed) as failed:
        Broker(PRINT_ONLY, "w3").perform(Print(content=1), context(PRINT_ONLY, seconds=0.02))
    assert failed.value.kind == "timeout"


def test_worker_that_dies_meanwhile_is_recorded_as_cancelled():
    policy = Policy(effects={"Sleep": True})
    broker = Broker(policy, "w3")
    with pytest.raises(EffectFailed) as failed:
        broker.perform(Sleep(seconds=60.0), context(policy, cancelled=lambda _seconds: True))
    assert failed.value.kind == "cancelled"
    assert broker.records[0].outcome == "cancelled"


def test_bug_in_a_handler_tells_the_plugin_nothing_and_the_log_everything(handler, caplog):
    def broken(effect, _context):
        raise FileNotFoundError(2, "No such file", f"/srv/secret/place{effect.content}")

    handler(broken)
    caplog.set_level(logging.ERROR, "fxcell.broker")
    broker = Broker(PRINT_ONLY, "w3")
    with pytest.raises(EffectFailed) as failed:
        broker.perform(Print(content="\x1b[2J\nforged"), context(PRINT_ONLY))
    assert failed.value.kind == "internal"
    for told in (str(failed.value), str(failed.value.to_dict()), broker.records[0].detail):
        assert "/srv/secret" not in told
        assert "Traceback" not in told
    (record,) = caplog.records
    assert "/srv/secret/place" in record.getMessage()
    assert "\x1b" not in record.getMessage()
    assert r"\nforged" in record.getMessage()
    assert all(line.startswith("    ") for line in record.getMessage().splitlines()[1:])


def test_effect_that_cannot_be_judged_is_denied_and_logged_once_in_a_command(monkeypatch, caplog):
    monkeypatch.setattr("fxcell.policies.rules.check", lambda *_: 1 / 0)
    broker = Broker(PRINT_ONLY, "w3")
    for _command in range(2):
        broker.begin_command()
        for _ in range(5):
            with pytest.raises(EffectDenied, match="could not be judged"):
                broker.perform(Print(content=1), context(PRINT_ONLY))
    assert len(caplog.records) == 2


def test_open_effect_is_seen_while_it_is_performed_and_gone_after_a_failure(handler):
    broker, seen = Broker(PRINT_ONLY, "w3"), []

    def fail(*_):
        seen.append((broker.open_effect, broker.last_effect))
        raise EffectFailed("Print", "connection", "no")

    handler(fail)
    with pytest.raises(EffectFailed):
        broker.perform(Print(content=1), context(PRINT_ONLY))
    assert seen == [("Print", "Print")]
    assert broker.open_effect is None


def test_interrupt_in_a_handler_passes_and_is_recorded(handler):
    def interrupt(*_):
        raise KeyboardInterrupt

    handler(interrupt)
    broker = Broker(PRINT_ONLY, "w3")
    with pytest.raises(KeyboardInterrupt):
        broker.perform(Print(content=1), context(PRINT_ONLY))
    assert broker.records[0].outcome == "cancelled"
    assert broker.open_effect is None


@pytest.mark.parametrize("error", [SystemExit("bye"), GeneratorExit()], ids=repr)
def test_handler_that_raises_what_is_no_exception_is_an_internal_failure(handler, error):
    def leave(*_):
        raise error

    handler(leave)
    broker = Broker(PRINT_ONLY, "w3")
    with pytest.raises(EffectFailed) as failed:
        broker.perform(Print(content=1), context(PRINT_ONLY))
    assert failed.value.kind == "internal"
    assert broker.records[0].outcome == "failed"


def test_records_are_bounded_and_keep_the_newest():
    broker = Broker(PRINT_ONLY, "w3", history=3)
    for n in range(5):
        broker.perform(Print(content=n), context(PRINT_ONLY))
    assert [record.number for record in broker.records] == [3, 4, 5]


@pytest.mark.parametrize(
    "content",
    ["x" * 10**7, b"x" * 10**7, [0] * 10**6, 10**5000, "\n" * 1000, "\ud800"],
    ids=["text", "bytes", "list", "int", "lines", "surrogate"],
)
def test_record_of_a_large_or_odd_value_is_short_and_visible(handler, content):
    handler(lambda *_: None)
    broker = Broker(PRINT_ONLY, "w3")
    broker.perform(Print(content=content), context(PRINT_ONLY))
    assert len(broker.records[0].detail) <= 2000
    assert broker.records[0].detail.isprintable()


@pytest.mark.parametrize("policy", [None, Policy(name="another", effects={"Now": True})])
def test_context_of_another_authority_is_a_bug_not_a_grant(policy):
    with pytest.raises(InternalError):
        Broker(PRINT_ONLY, "w3").perform(Now(), context(policy))


def test_local_effect_needs_no_rule():
    lines = []
    assert perform_locally(Print(content="here"), context(None, lines)) is None
    assert lines == ["here"]
    assert len(perform_locally(RandomBytes(count=3), context(None))) == 3


def test_local_effect_without_handler_says_so(monkeypatch):
    monkeypatch.delitem(effects.HANDLERS, "Now")
    with pytest.raises(EffectFailed) as failed:
        perform_locally(Now(), context(None))
    assert failed.value.kind == "no_handler"


def test_second_handler_for_one_effect_is_refused():
    with pytest.raises(EffectError, match="has a handler already"):
        effects.register(Log, lambda *_: None)
