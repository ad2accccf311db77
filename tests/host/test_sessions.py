"""One worker from the caller's side: what each command answers, whatever the command is."""

import datetime
import decimal
import os
import socket
import uuid

import numpy
import pytest

from fxcell import FX, EffectDenied, EffectFailed, Limits, PluginError, Policy, Reason, WorkerCrash, run, zef_function
from fxcell.sandbox import wire
from tests.host.sending import busy, echo, send, stop
from tests.host.sending import worker as worker  # noqa: PLC0414 - the fixture
from tests.leaks import assert_nothing_left

MiB = 2**20


@zef_function
def pid_inside():
    import os

    return os.getpid()


@zef_function
def fail(text):
    raise LookupError(text)


# --- values


@pytest.mark.parametrize(
    "value",
    [
        None, True, -1, 10**40, 1.5, "text", "\ud800 half a pair", b"bytes", [1, [2, []]], {"key": {1: (2, 3)}}, (1, (2,)),
        {1, 2}, frozenset({3}), 1 + 2j, decimal.Decimal("1.10"), uuid.UUID(int=7),
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), datetime.timedelta(seconds=3),
    ],
    ids=ascii,
)  # fmt: skip
def test_value_there_and_back_is_equal_and_of_the_same_type(worker, value):
    answered = send(worker, echo(value))
    assert answered == value
    assert type(answered) is type(value)


@pytest.mark.parametrize("size", [1024, 64 * 1024 - 1, 64 * 1024, MiB, 16 * MiB, 64 * MiB])
def test_bytes_of_any_size_come_back_unchanged(worker, size):
    data = os.urandom(1024) * (size // 1024) + bytes(size % 1024)
    assert send(worker, echo(data)) == data


@pytest.mark.parametrize("shape", [(3,), (0, 5), (1024, 1024), (8, MiB)], ids=str)
def test_array_comes_back_with_dtype_and_shape(worker, shape):
    array = numpy.arange(numpy.prod(shape), dtype=">f4").reshape(shape)
    answered = send(worker, echo(array))
    assert answered.dtype == array.dtype
    assert numpy.array_equal(answered, array)


def test_plain_value_as_command_is_its_own_result(worker):
    assert send(worker, 42) == 42


# --- work


def test_effect_as_command_is_performed_by_the_host(worker, capsys):
    assert send(worker, FX.Print(content="hello from worker!")) is None
    assert capsys.readouterr().out == "hello from worker!\n"


def test_print_in_a_plugin_and_effects_keep_their_order(worker, capsys):
    @zef_function
    def both():
        print("one")
        FX.Print(content="two") | run
        print("three")

    send(worker, both())
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_list_runs_in_order_and_answers_a_list(worker, capsys):
    command = [FX.Print(content="start"), echo(2), [FX.RandomBytes(count=3), "plain"], FX.Print(content="done")]
    first, second, (random, plain), last = send(worker, command)
    assert (first, second, len(random), plain, last) == (None, 2, 3, "plain", None)
    assert capsys.readouterr().out == "start\ndone\n"


def test_result_that_is_work_runs_in_the_worker(worker, capsys):
    @zef_function
    def more_work():
        return [pid_inside(), FX.Print(content="from the result"), 3]

    here = pid_inside() | run
    inside, nothing, three = send(worker, more_work())
    assert here == os.getpid()
    assert (inside, nothing, three) == (2, None, 3)
    assert capsys.readouterr().out == "from the result\n"


def test_definition_is_shipped_once_per_worker(worker, monkeypatch):
    shipped = []
    real = wire.Channel.send

    def noting(channel, message, *args, **kwargs):
        shipped.append(str(message.which()))
        real(channel, message, *args, **kwargs)

    monkeypatch.setattr(wire.Channel, "send", noting)
    other = FX.StartWorkerProcess() | run
    for process in (worker, worker, other, worker):
        assert send(process, echo(1)) == 1
    stop(other)
    assert shipped.count("define") == 2


def test_function_keeps_what_it_captures(worker):
    factor = 3

    @zef_function
    def scaled(number, *, times=1):
        return number * factor * times

    assert send(worker, scaled(2)) == 6
    assert send(worker, scaled(2, times=5)) == 30


# --- outcomes


def test_exception_in_the_plugin_is_a_plugin_error_and_the_worker_goes_on(worker):
    with pytest.raises(PluginError) as raised:
        send(worker, fail("no such thing"))
    error = raised.value
    assert (error.type_name, error.message) == ("LookupError", "no such thing")
    assert "in fail" in error.traceback
    assert str(error) == "LookupError: no such thing"
    assert send(worker, echo(1)) == 1


def test_giant_exception_text_is_cut(worker):
    with pytest.raises(PluginError) as raised:
        send(worker, fail("x" * MiB))
    assert len(raised.value.message) < 4100


def test_exception_that_cannot_be_shown_is_a_plugin_error(worker):
    @zef_function
    def spiteful():
        class Spiteful(Exception):
            def __str__(self):
                raise ValueError

        raise Spiteful

    with pytest.raises(PluginError) as raised:
        send(worker, spiteful())
    assert raised.value.type_name == "Spiteful"


@pytest.mark.parametrize("ending", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_exit_exceptions_of_a_plugin_are_plugin_errors(worker, ending):
    @zef_function
    def leave():
        import builtins

        raise getattr(builtins, ending)

    with pytest.raises(PluginError) as raised:
        send(worker, leave())
    assert raised.value.type_name == ending
    assert send(worker, echo(1)) == 1


@zef_function
def ask(url):
    return FX.HTTPRequest(url=url) | run


@pytest.mark.parametrize("command", [FX.HTTPRequest(url="http://x.example/"), ask("http://x.example/")], ids=["effect", "plugin"])
def test_effect_outside_the_policy_is_denied_with_the_line_to_add(worker, command):
    with pytest.raises(EffectDenied) as raised:
        send(worker, command)
    denied = raised.value
    assert (denied.effect, denied.field, denied.policy) == ("HTTPRequest", None, "compute")
    assert denied.suggestion == 'effects.HTTPRequest = { hosts = ["x.example"] }'
    assert denied.suggestion in str(denied)


def test_denied_effect_can_be_caught_in_the_plugin(worker):
    @zef_function
    def careful():
        try:
            FX.HTTPRequest(url="http://x.example/") | run
        except EffectDenied as denied:
            return denied.effect, denied.policy
        return None

    assert send(worker, careful()) == ("HTTPRequest", "compute")


def test_denial_that_a_plugin_makes_up_is_a_plugin_error(worker):
    @zef_function
    def pretend():
        raise EffectDenied("ReadFile", "path", "because", "compute", "effects.ReadFile = true")

    with pytest.raises(PluginError) as raised:
        send(worker, pretend())
    assert raised.value.type_name == "EffectDenied"


@pytest.mark.parametrize("in_plugin", [False, True], ids=["effect", "plugin"])
def test_granted_effect_that_cannot_be_performed_is_effect_failed(in_plugin):
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    rule = {"hosts": [f"127.0.0.1:{port}"], "private_hosts": True}
    process = FX.StartWorkerProcess(policy=Policy(effects={"HTTPRequest": rule})) | run
    url = f"http://127.0.0.1:{port}/"
    with pytest.raises(EffectFailed) as raised:
        send(process, ask(url) if in_plugin else FX.HTTPRequest(url=url))
    assert (raised.value.effect, raised.value.kind) == ("HTTPRequest", "connection")
    stop(process)


def test_deadline_ends_the_command_and_the_worker():
    process = FX.StartWorkerProcess() | run
    with assert_nothing_left(), pytest.raises(WorkerCrash) as raised:
        send(FX.StartWorkerProcess() | run, busy(), deadline_s=0.2)
    assert raised.value.reason is Reason.DEADLINE
    assert "0.2 s" in str(raised.value)
    assert send(process, echo("another worker")) == "another worker"
    stop(process)


def test_deadline_covers_the_hosts_side_of_an_effect():
    with pytest.raises(WorkerCrash) as raised:
        send(FX.StartWorkerProcess() | run, FX.Sleep(seconds=50), deadline_s=0.2)
    assert raised.value.reason is Reason.DEADLINE
    assert raised.value.evidence.last_effect == "Sleep"


def test_deadline_cannot_exceed_the_policys_wall_limit():
    process = FX.StartWorkerProcess(policy=Policy(limits=Limits(wall_s=0.2))) | run
    with pytest.raises(WorkerCrash) as raised:
        send(process, busy(), deadline_s=3600)
    assert raised.value.reason is Reason.DEADLINE
