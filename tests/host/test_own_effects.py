"""Effects of one's own: a class, a handler, a line in the policy; inside a worker they are as the shipped ones."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from fxcell import FX, Effect, EffectDenied, EffectFailed, PluginError, Policy, WorkerCrash, handles, run, zef_function
from fxcell.host import effects, registry
from fxcell.host.effects import async_handlers
from fxcell.host.effects.context import Context
from fxcell.host.plugins import load_plugin
from fxcell.policies.errors import EffectError

SEEN: dict[str, threading.Event] = {}


class Interpret(Effect):
    """Answer the text in another language."""

    text: str
    to: str = "en"


@handles(Interpret)
def translate(effect):
    return f"{effect.to}:{effect.text}"


class Whisper(Effect):
    """Answered by a coroutine."""

    text: str


@handles(Whisper)
async def whisper(effect, context):
    await asyncio.sleep(0)
    return [effect.text, context.worker, threading.current_thread().name]


class Linger(Effect):
    """Waits for ever, as a coroutine; says when it began and when it was cancelled."""

    mark: str


@handles(Linger)
async def linger(effect):
    SEEN[f"{effect.mark} began"].set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        SEEN[f"{effect.mark} cancelled"].set()
        raise


class Hold(Effect):
    """Waits in its thread until the worker is gone or the time is over."""

    mark: str


@handles(Hold)
def hold(effect, context):
    SEEN[f"{effect.mark} began"].set()
    while not context.cancelled(0.05):
        if time.monotonic() > context.deadline:
            return
    SEEN[f"{effect.mark} cancelled"].set()


class Break(Effect):
    """Its handler raises; `quietly` says what the plugin should hear."""

    quietly: bool = False


@handles(Break)
async def break_it(effect):
    if effect.quietly:
        raise EffectFailed("Break", "not_today", "come back tomorrow")
    raise FileNotFoundError(2, "No such file", "/srv/secret/place")


class Unsendable(Effect):
    """Its handler answers an object that does not travel."""


@handles(Unsendable)
def unsendable(_effect):
    return threading.Event()


class Silent(Effect):
    """Granted, but nobody handles it."""


ALL = Policy(
    name="own",
    effects=dict.fromkeys(("Interpret", "Whisper", "Linger", "Hold", "Break", "Unsendable", "Silent", "Now"), True),  # type: ignore[arg-type]
)


@pytest.fixture
def start():
    started = []

    def begin(policy=ALL):
        started.append(FX.StartWorkerProcess(policy=policy) | run)
        return started[-1]

    yield begin
    for worker in started:
        FX.StopWorkerProcess(process=worker) | run


@pytest.fixture
def mark():
    name = f"mark{len(SEEN)}"
    SEEN[f"{name} began"], SEEN[f"{name} cancelled"] = threading.Event(), threading.Event()
    return name


def send(worker, command, **more):
    return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command, **more))


@zef_function
def translates():
    return [FX.Interpret(text="a", to="de") | run, Interpret(text="b") | run, FX.Interpret(text="c") == Interpret(text="c")]


@zef_function
def mistakes():
    import sys

    said = []
    for fields in ({}, {"txt": "a"}, {"text": 1}, {"text": "a", "to": None}):
        try:
            FX.Interpret(**fields)
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    return [said, FX.Interpret.__doc__, [name for name in sys.modules if name.startswith("fxcell.host")]]


@zef_function
def asks(name, **fields):
    return FX[name](**fields) | run


@zef_function
def catches(name, **fields):
    try:
        FX[name](**fields) | run
    except Exception as error:
        return [type(error).__name__, getattr(error, "kind", ""), str(error)]


@zef_function
def lies_about_the_fields(fields):
    effect = FX.Interpret(text="x")
    effect.__dict__.clear()
    effect.__dict__.update(fields)
    return effect | run


def test_own_effect_is_performed_inside_a_worker_and_the_class_goes_by_name(start):
    assert send(start(), translates()) == ["de:a", "en:b", True]


def test_plugin_file_that_imports_all_names_asks_and_cannot_handle(start, tmp_path):
    (tmp_path / "plug.py").write_text(
        "from fxcell import *\n"
        "def main():\n"
        "    try:\n"
        "        handles(FX.Interpret)\n"
        "    except TypeError as error:\n"
        "        return [str(error), FX.Interpret(text='p') | run]\n"
    )
    said, answer = send(start(), load_plugin(str(tmp_path / "plug.py")).call())
    assert said == "handlers of effects belong to the host; a worker asks: FX.Interpret(…) | run"
    assert answer == "en:p"


def test_own_effect_as_the_command_itself_and_in_a_list(start):
    assert send(start(), FX.Interpret(text="q")) == "en:q"
    assert send(start(), [FX.Interpret(text="q"), FX.Interpret(text="r", to="fr")]) == ["en:q", "fr:r"]


def test_own_effect_by_the_host_itself():
    assert FX.Interpret(text="h") | run == "en:h"
    assert (FX.Whisper(text="h") | run)[:2] == ["h", "host"]


def test_mistakes_in_a_worker_are_worded_as_in_the_host_and_no_host_code_is_there(start):
    said, doc, modules = send(start(), mistakes())
    here = []
    for fields in ({}, {"txt": "a"}, {"text": 1}, {"text": "a", "to": None}):
        with pytest.raises(EffectError) as error:
            Interpret(**fields)
        here.append(f"EffectError: {error.value}")
    assert said == here
    assert doc == Interpret.__doc__
    assert modules == []


def test_worker_kept_ready_for_one_policy_knows_the_effects_of_the_one_it_serves(start):
    # The same template: the worker's side of both policies is equal, so the second start takes the spare worker.
    other = Policy(name="own", effects={"Whisper": True})
    one, two, three = start(), start(other), start(ALL)
    assert send(one, asks("Interpret", text="a")) == "en:a"
    denied = send(two, asks("Interpret", text="a"))
    assert isinstance(denied, PluginError)
    assert "there is no effect FX.Interpret" in str(denied)
    assert send(two, asks("Whisper", text="a"))[0] == "a"
    assert send(three, asks("Interpret", text="a")) == "en:a"


def test_own_effect_that_is_not_granted_is_denied_with_the_line_to_add(start):
    worker = start("compute")
    denied = send(worker, FX.Interpret(text="q"))
    assert isinstance(denied, EffectDenied)
    (record,) = registry.session_of(worker).broker.records
    assert (record.effect, record.outcome) == ("Interpret", "denied")
    assert denied.suggestion == "effects.Interpret = true"


def test_rule_of_an_own_effect_allows_exactly_its_values(start):
    worker = start(Policy(effects={"Interpret": {"to": ["en", "de"], "max_calls": 2}}))
    assert send(worker, asks("Interpret", text="a", to="de")) == "de:a"
    for twin in ("EN", "en ", "fr", "ｅn"):
        denied = send(worker, asks("Interpret", text="a", to=twin))
        assert isinstance(denied, EffectDenied)
        assert denied.field == "to"
    session = registry.session_of(worker)
    assert [record.outcome for record in session.broker.records] == ["done", *["denied"] * 4]
    assert session.broker.records[0].detail == "text='a', to='de'"


@pytest.mark.parametrize(
    "fields",
    [{}, {"text": 5, "to": "en"}, {"text": "x"}, {"text": "x", "to": "en", "more": 1}, {"text": ["x"], "to": "en"}],
    ids=repr,
)
def test_worker_that_lies_about_the_fields_is_stopped_by_the_hosts_own_class(start, fields):
    ended = send(start(), lies_about_the_fields(fields))
    if fields == {"text": "x"}:
        assert ended == "en:x"  # the default of the host's class: nothing was gained
    else:
        assert isinstance(ended, WorkerCrash)
        assert ended.reason == "protocol_violation"


def test_coroutine_answers_from_the_one_loop(start):
    text, worker, thread = send(start(), asks("Whisper", text="psst"))
    assert text == "psst"
    assert worker.startswith("w")
    assert thread == "fxcell-async-effects"


@pytest.mark.parametrize("effect", ["Linger", "Hold"])
def test_worker_that_dies_cancels_its_handler(start, mark, effect):
    worker = start()
    future = run.submit(FX.SendCommandToWorkerProcess(process=worker, command=asks(effect, mark=mark)))
    assert SEEN[f"{mark} began"].wait(30)
    FX.StopWorkerProcess(process=worker) | run
    assert isinstance(future.exception(30), WorkerCrash)
    assert SEEN[f"{mark} cancelled"].wait(30)


def test_deadline_cancels_a_coroutine(start, mark):
    ended = send(start(), asks("Linger", mark=mark), deadline_s=0.5)
    assert isinstance(ended, EffectFailed | WorkerCrash)
    assert SEEN[f"{mark} cancelled"].wait(30)


@pytest.mark.parametrize("effect", ["Linger", "Hold"])
def test_long_handler_of_one_worker_does_not_stop_the_effects_of_another(start, mark, effect):
    slow, quick = start(), start()
    future = run.submit(FX.SendCommandToWorkerProcess(process=slow, command=asks(effect, mark=mark)))
    assert SEEN[f"{mark} began"].wait(30)
    assert send(quick, asks("Interpret", text="a")) == "en:a"
    assert send(quick, asks("Whisper", text="b"))[0] == "b"
    assert not future.done()
    FX.StopWorkerProcess(process=slow) | run
    future.exception(30)


def test_bug_in_a_coroutine_tells_the_plugin_a_kind_and_the_log_the_rest(start, caplog):
    caplog.set_level(logging.ERROR, "fxcell.broker")
    kind, failed, text = send(start(), catches("Break"))
    assert (kind, failed) == ("EffectFailed", "internal")
    assert "/srv" not in text
    assert "Traceback" not in text
    assert "/srv/secret/place" in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_coroutine_that_would_end_its_loop_is_a_failure_and_the_loop_goes_on(error):
    async def leave():
        raise error

    context = Context("w9", None, time.monotonic() + 30.0, lambda _seconds: False, print)
    with pytest.raises(RuntimeError, match=error.__name__):
        async_handlers.perform(leave, FX.Whisper(text="a"), context)
    assert (FX.Whisper(text="b") | run)[0] == "b"


def test_failure_that_a_handler_words_itself_reaches_the_plugin(start):
    assert send(start(), catches("Break", quietly=True)) == [
        "EffectFailed", "not_today", "FX.Break failed (not_today): come back tomorrow",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["\0" * 6_000_000, "\ud800", "x" * 20_000_000], ids=["escapes", "half a character", "long"])
def test_failure_worded_with_what_the_worker_sent_reaches_it_cut_and_the_next_command_is_right(start, monkeypatch, text):
    def refuse(effect, _context):
        raise EffectFailed("Interpret", "unknown", f"no language {effect.to!r}, no language {text}")

    monkeypatch.setitem(effects.HANDLERS, "Interpret", refuse)
    worker = start()
    kind, failed, told = send(worker, catches("Interpret", text="a"))
    assert (kind, failed) == ("EffectFailed", "unknown")
    assert "no language 'en'" in told
    assert len(told) < 17_000
    monkeypatch.undo()
    assert send(worker, asks("Interpret", text="a")) == "en:a"


def test_answer_that_does_not_travel_is_a_failure_and_the_log_says_of_what_type(start, caplog):
    worker = start()
    kind, failed, text = send(worker, catches("Unsendable"))
    assert (kind, failed) == ("EffectFailed", "internal")
    assert "Event" not in text
    assert "Event" in caplog.text
    assert send(worker, asks("Interpret", text="a")) == "en:a"


def test_granted_effect_without_a_handler_says_so(start):
    assert send(start(), catches("Silent"))[1] == "no_handler"


def test_loop_ends_with_shutdown_and_starts_again():
    assert (FX.Whisper(text="a") | run)[0] == "a"
    async_handlers.close()
    assert "fxcell-async-effects" not in [thread.name for thread in threading.enumerate()]
    assert (FX.Whisper(text="b") | run)[0] == "b"
    async_handlers.close()


@pytest.mark.parametrize(
    ("effect", "handler", "message"),
    [
        (Interpret, translate, "has a handler already"),
        (type(FX.StopWorkerProcess), translate, "must be a function|extends Effect"),
        (FX.StopWorkerProcess, translate, "has a handler already"),
        (Effect, translate, "extends Effect"),
        (int, translate, "extends Effect"),
        (Silent, 5, "must be a function"),
        (Silent, lambda: None, r"must take \(effect\) or \(effect, context\)"),
        (Silent, lambda a, b, c: None, "must take"),
    ],
)
def test_handler_that_cannot_be_called_is_refused(effect, handler, message):
    with pytest.raises(EffectError, match=message):
        effects.register(effect, handler)
    assert "Silent" not in effects.HANDLERS
