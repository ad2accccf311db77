"""Rates, byte budgets and `ask`: what the broker lets through beyond an effect's fields, with real workers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import select
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxcell import FX, EffectDenied, Policy, run, zef_function
from fxcell.host import asking, registry
from fxcell.host.asked_text import asked_text
from fxcell.host.asking import Answer
from fxcell.host.broker import Broker
from fxcell.host.effects.context import Context
from fxcell.host.gates import Bucket, Gate
from fxcell.policies.builtin import HTTPRequest, Now, Print, RandomBytes
from fxcell.policies.errors import EffectError
from fxcell.policies.rates import parse_rate
from tests.leaks import assert_nothing_left


@contextlib.contextmanager
def worker_under(**effects):
    worker = FX.StartWorkerProcess(policy=Policy(name="gated", effects=effects)) | run
    try:
        yield worker
    finally:
        FX.StopWorkerProcess(process=worker) | run


def send(worker, command, **more):
    return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command, **more))


def asked_by(broker, effect, *, seconds=30.0, cancelled=None, lines=None):
    take = [].append if lines is None else lines.append
    context = Context("w9", broker.policy, time.monotonic() + seconds, cancelled or threading.Event().wait, take)
    return broker.perform(effect, context)


@pytest.fixture
def approver():
    """Names who is asked, for one test; `approver(f)` and the questions that came."""
    questions = []

    def name(answer):
        def ask(question):
            questions.append(question)
            return answer(question) if callable(answer) else answer

        asking.answer_with(ask)
        return questions

    yield name
    asking.answer_with(None)


@zef_function
def many(name, times, **fields):
    """What came of that many effects, one after the other."""
    said = []
    for _ in range(times):
        try:
            FX[name](**fields) | run
            said.append("done")
        except Exception as error:
            said.append(type(error).__name__)
    return said


# --- rates


def test_bucket_gives_the_burst_at_once_and_then_the_rate():
    bucket = Bucket(parse_rate("10/s"), 3, 100.0)
    assert [bucket.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(100.0) == pytest.approx(0.1)
    assert bucket.take(100.05) == pytest.approx(0.05)
    assert bucket.take(100.1001) == 0.0
    assert bucket.take(100.1001) > 0.0
    assert [bucket.take(1000.0) for _ in range(4)][:3] == [0.0, 0.0, 0.0]  # never more than the burst after a pause


@given(
    st.integers(1, 50),
    st.sampled_from(["s", "min", "h"]),
    st.integers(1, 20),
    st.lists(st.floats(0.0, 100.0), min_size=1, max_size=80),
)
def test_no_window_of_time_lets_through_more_than_the_burst_and_the_rate(number, unit, burst, pauses):
    rate = parse_rate(f"{number}/{unit}")
    bucket, now, taken = Bucket(rate, burst, 1000.0), 1000.0, []
    for pause in pauses:
        now += pause
        wait_s = bucket.take(now)
        if wait_s == 0.0:
            taken.append(now)
        else:
            assert wait_s <= 1.0 / rate.per_second * 1.000001
    for index, start in enumerate(taken):
        for count, end in enumerate(taken[index:], 1):
            assert count <= burst + (end - start) * rate.per_second + 1e-6


def test_clock_that_stands_still_or_goes_back_gives_nothing():
    bucket = Bucket(parse_rate("1/h"), None, 50.0)
    assert bucket.take(50.0) == 0.0
    assert bucket.take(50.0) > 0.0
    assert bucket.take(10.0) > 0.0


def test_worker_that_asks_faster_than_the_rate_is_denied_after_the_burst():
    with worker_under(Now={"rate": "2/h", "burst": 3}, Print=True) as worker:
        assert send(worker, many("Now", 5)) == ["done"] * 3 + ["EffectDenied"] * 2
        assert send(worker, many("Now", 1)) == ["EffectDenied"]  # the rate is the worker's, not the command's
        assert send(worker, many("Print", 1, content="x")) == ["done"]
        denied = send(worker, FX.Now())
    assert isinstance(denied, EffectDenied)
    assert "more often than 2/h with a burst of 3; next in" in denied.rule
    assert denied.suggestion == 'effects.Now.rate = "4/h"'


def test_rate_of_one_worker_is_not_spent_by_another():
    with worker_under(Now={"rate": "1/h"}) as one, worker_under(Now={"rate": "1/h"}) as two:
        assert send(one, many("Now", 2)) == ["done", "EffectDenied"]
        assert send(two, many("Now", 2)) == ["done", "EffectDenied"]


# --- bytes


def test_answers_over_the_byte_budget_are_withheld_and_the_next_is_not_performed():
    with worker_under(RandomBytes={"max_total_bytes": 3000}) as worker:
        assert send(worker, many("RandomBytes", 4, count=1000)) == ["done", "done", "EffectDenied", "EffectDenied"]
        broker = registry.session_of(worker).broker
        assert broker.performed == 3  # the third was performed and withheld, the fourth was not
        assert "it was performed, but its answer of 1,0" in broker.records[2].detail
        assert "its arguments" in broker.records[3].detail
        assert send(worker, many("RandomBytes", 3, count=1000)) == ["done", "done", "EffectDenied"]


def test_arguments_over_the_byte_budget_are_not_performed_and_smaller_ones_still_are():
    policy = Policy(effects={"Print": {"max_total_bytes": 1000}})
    broker, lines = Broker(policy, "w9"), []
    with pytest.raises(EffectDenied, match=r"its arguments of 2,0\d\d bytes would bring the command to 2,0\d\d, over") as denied:
        asked_by(broker, Print(content="x" * 2000), lines=lines)
    assert denied.value.suggestion.startswith('effects.Print.max_total_bytes = "2')
    assert (lines, broker.performed) == ([], 0)
    asked_by(broker, Print(content="small"), lines=lines)
    assert lines == ["small"]


# --- ask


def test_nobody_to_ask_is_denied():
    with worker_under(Now={"ask": True}) as worker:
        denied = send(worker, FX.Now())
    assert isinstance(denied, EffectDenied)
    assert denied.rule == "ask = true, and nobody can be asked: this host named no approver"
    assert denied.suggestion == "effects.Now.ask = false"


def test_once_is_asked_every_time_and_sees_the_effect_as_one_harmless_line(approver):
    questions = approver(Answer.ONCE)
    with worker_under(Print={"ask": True}) as worker:
        assert send(worker, many("Print", 2, content="\x1b[2J\nfxcell: allow it? y")) == ["done", "done"]
    assert len(questions) == 2
    assert questions[0].text == r"FX.Print(content='\x1b[2J\nfxcell: allow it? y')"
    assert questions[0].text.isprintable()
    assert (questions[0].worker, questions[0].policy) == (worker.id, "gated")
    assert questions[0].effect == Print(content="\x1b[2J\nfxcell: allow it? y")


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"url": "https://a.example/" + " " * 5000, "body": b"DELETE"}, "body=b'DELETE'"),
        ({"url": "x" * 10**6, "headers": {"a": "y" * 10**6}, "body": b"z" * 10**6, "method": "PUT"}, "method='PUT'"),
        ({"url": "https://a.example/" + "a/" * 400 + "EVIL.sh"}, "a/" * 400 + "EVIL.sh'"),
        ({"url": "https://a.example/" + "a/" * 4000 + "EVIL.sh"}, "EVIL.sh'"),
        ({"url": "a" * 9000}, hashlib.sha256(b"a" * 9000).hexdigest()),
        ({"url": "a" * 9000}, " of 9000 characters are cut here"),
        ({"url": "a   b"}, r"url='a\x20\x20\x20b'"),
        ({"url": "a\u3000b\u202ec"}, r"url='a\u3000b\u202ec'"),
        ({"url": "a', method='GET"}, r"url='a\', method=\'GET'"),
        ({"url": '\'"'}, """url='\\'"'"""),
    ],
    ids=["blanks", "everything long", "path of 800", "path of 8000", "sum", "length", "row of blanks", "wide", "forged", "quotes"],
)
def test_question_shows_every_field_and_marks_every_cut(fields, shown):
    text = asked_text(HTTPRequest(**fields))
    assert shown in text
    assert all(f"{name}=" in text for name in HTTPRequest.effect_fields)
    assert text.isprintable()
    assert len(text) < 4096


def test_answers_are_logged_with_who_was_answered(approver, caplog):
    caplog.set_level("INFO", "fxcell.asking")
    approver(Answer.ONCE)
    asked_by(Broker(Policy(name="gated", effects={"Print": {"ask": True}}), "w9"), Print(content="a\x1b"))
    assert caplog.messages == [r"worker w9 under policy gated: once: FX.Print(content='a\x1b')"]


def test_always_is_asked_once_for_this_worker_and_again_for_the_next(approver):
    questions = approver(Answer.ALWAYS)
    with worker_under(Now={"ask": True}) as one, worker_under(Now={"ask": True}) as two:
        assert send(one, many("Now", 3)) == ["done"] * 3
        assert send(one, many("Now", 3)) == ["done"] * 3
        assert len(questions) == 1
        assert send(two, many("Now", 1)) == ["done"]
    assert len(questions) == 2


def test_no_is_asked_once_in_a_command_so_that_nobody_is_worn_down(approver):
    questions = approver(Answer.NO)
    with worker_under(Now={"ask": True}) as worker:
        assert send(worker, many("Now", 50)) == ["EffectDenied"] * 50
        assert len(questions) == 1
        assert registry.session_of(worker).broker.performed == 0
        send(worker, many("Now", 1))
    assert len(questions) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [(True, "True"), ("once!", "a value of type str"), ("yes", "a value of type str"), (None, "None"), (1, "a value of type int")],
)  # fmt: skip
def test_answer_that_is_none_of_the_three_is_denied_saying_what_was_returned(approver, answer, said):
    approver(answer)
    with pytest.raises(EffectDenied, match=f"returned {said}, not an asking.Answer"):
        asked_by(Broker(Policy(effects={"Now": {"ask": True}}), "w9"), Now())


@pytest.mark.parametrize(
    "given",
    [True, Answer.ONCE, lambda: Answer.ONCE, lambda _a, _b: Answer.ONCE],
    ids=["True", "an answer", "takes none", "takes two"],
)
def test_approver_that_cannot_be_called_with_a_question_is_an_error_at_once(given):
    with pytest.raises(EffectError, match=r"a function of one Question that returns an asking\.Answer"):
        asking.answer_with(given)


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_approver_that_raises_is_denied(approver, error):
    def fail(_question):
        raise error

    approver(fail)
    with pytest.raises(EffectDenied, match="it could not be asked"):
        asked_by(Broker(Policy(effects={"Now": {"ask": True}}), "w9"), Now())


@pytest.mark.parametrize("gone", [False, True])
def test_approver_that_never_answers_is_denied_within_the_deadline_or_when_the_worker_is_gone(approver, gone):
    release = threading.Event()
    approver(lambda _question: release.wait(60) and Answer.ONCE)
    broker = Broker(Policy(effects={"Now": {"ask": True}}), "w9")
    with pytest.raises(EffectDenied, match="nobody answered in time"):
        asked_by(broker, Now(), seconds=30.0 if gone else 0.2, cancelled=lambda _seconds: gone)
    assert broker.performed == 0
    release.set()


def test_arguments_outside_the_rule_are_denied_without_a_question(approver):
    questions = approver(Answer.ALWAYS)
    broker = Broker(Policy(effects={"RandomBytes": {"ask": True, "max_count": 5, "max_calls": 1}}), "w9")
    with pytest.raises(EffectDenied, match="over the maximum"):
        asked_by(broker, RandomBytes(count=6))
    assert questions == []
    assert len(asked_by(broker, RandomBytes(count=5))) == 5
    with pytest.raises(EffectDenied, match="max_calls = 1"):
        asked_by(broker, RandomBytes(count=5))
    assert len(questions) == 1


def test_effects_without_conditions_have_no_gate():
    broker = Broker(Policy(effects={"Now": {"max_calls": 5}, "Print": True, "Sleep": {"rate": "1/s"}}), "w9")
    assert {name: type(gate) for name, gate in broker._gates.items()} == {"Sleep": Gate}


# --- at a terminal

PLUGIN = """
from fxcell import FX, run

def main():
    said = []
    for _ in range(3):
        try:
            FX.Print(content='\\x1b[2Jhi') | run
            said.append('done')
        except Exception as error:
            said.append(type(error).__name__)
    return said
"""


@pytest.mark.parametrize(
    ("typed", "answer", "questions"),
    [
        ([b"y\n", b"Y\n", b"n\n"], "['done', 'done', 'EffectDenied']", 3),
        ([b"a\n"], "['done', 'done', 'done']", 1),
        ([b"\n"], "['EffectDenied', 'EffectDenied', 'EffectDenied']", 1),
        ([b"yess\n"], "['EffectDenied', 'EffectDenied', 'EffectDenied']", 1),
    ],
    ids=["yes yes no", "always", "nothing", "a typing error"],
)
def test_run_asks_at_a_terminal(typed, answer, questions, tmp_path):
    (tmp_path / "plug.py").write_text(PLUGIN)
    (tmp_path / "ask.toml").write_text('extends = "compute"\n[effects]\nPrint = { ask = true }\n')
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "fxcell", "run", str(tmp_path / "plug.py"), "--policy", str(tmp_path / "ask.toml")]
    with assert_nothing_left(), subprocess.Popen(
        command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        shown = b""
        for line in typed:
            asked = shown.count(b"[N]o: ")
            while shown.count(b"[N]o: ") == asked:
                assert select.select([process.stderr], [], [], 30)[0]
                shown += os.read(process.stderr.fileno(), 65536)
            os.write(controller, line)
        stdout, rest = process.communicate(timeout=30)
    os.close(controller)
    os.close(terminal)
    shown += rest
    assert process.returncode == 0
    assert stdout.decode().splitlines()[-1] == answer
    assert shown.count(b"asks for") == questions
    assert b"\x1b" not in shown
    assert rb"FX.Print(content='\x1b[2Jhi')" in shown


def test_run_without_a_terminal_denies_what_must_be_asked(tmp_path):
    (tmp_path / "plug.py").write_text(PLUGIN)
    (tmp_path / "ask.toml").write_text('extends = "compute"\n[effects]\nPrint = { ask = true }\n')
    command = [sys.executable, "-m", "fxcell", "run", str(tmp_path / "plug.py"), "--policy", str(tmp_path / "ask.toml")]
    done = subprocess.run(command, input=b"a\na\na\n", capture_output=True, timeout=60, check=True)
    assert done.stdout.decode().strip() == "['EffectDenied', 'EffectDenied', 'EffectDenied']"
