"""One worker from the caller's side: what each command answers, whatever the command is."""

import dataclasses
import datetime
import decimal
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy
import psutil
import pytest

from fxcell import *
from fxcell.host import cgroups, registry, templates
from fxcell.sandbox import wire
from tests import leaks
from tests.leaks import assert_nothing_left

MiB = 2**20


@pytest.fixture
def worker():
    process = FX.StartWorkerProcess() | run
    yield process
    FX.StopWorkerProcess(process=process) | run


def send(process, command, **options):
    return FX.SendCommandToWorkerProcess(process=process, command=command, **options) | run


def stop(process):
    FX.StopWorkerProcess(process=process) | run


@zef_function
def echo(value):
    return value


@zef_function
def pid_inside():
    import os

    return os.getpid()


@zef_function
def fail(text):
    raise LookupError(text)


@zef_function
def busy():
    while True:
        pass


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


# --- many callers


def test_threads_on_one_worker_each_get_their_own_answer(worker):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: send(worker, echo(number)), range(200)))
    assert answers == list(range(200))


def test_crash_of_one_worker_leaves_the_others_answering():
    @zef_function
    def crash():
        import ctypes

        ctypes.string_at(1)

    workers = [FX.StartWorkerProcess() | run for _ in range(4)]
    commands = [echo(0), echo(1), crash(), echo(3)]
    pairs = zip(workers, commands, strict=True)
    with ThreadPoolExecutor(4) as threads:
        sent = (FX.SendCommandToWorkerProcess(process=process, command=command) for process, command in pairs)
        outcomes = list(threads.map(run.outcome, sent))
    assert [outcomes[0], outcomes[1], outcomes[3]] == [0, 1, 3]
    assert isinstance(outcomes[2], WorkerCrash)
    for process in workers:
        stop(process)


def test_worker_outlives_the_thread_that_started_it():
    started = []
    thread = threading.Thread(target=lambda: started.append(FX.StartWorkerProcess() | run))
    thread.start()
    thread.join()
    assert send(started[0], echo("still here")) == "still here"
    stop(started[0])


def test_stop_from_another_thread_ends_a_running_command():
    reached = threading.Event()

    class Tell:
        def write(self, _text):
            reached.set()

        def flush(self):
            pass

    @zef_function
    def announced():
        FX.Print(content="running") | run
        while True:
            pass

    with assert_nothing_left(), ThreadPoolExecutor(1) as threads, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Tell())
        process = FX.StartWorkerProcess() | run
        future = threads.submit(send, process, announced())
        reached.wait()
        stop(process)
        with pytest.raises(WorkerCrash) as raised:
            future.result()
    assert raised.value.reason is Reason.STOPPED


def test_list_shows_living_workers_in_the_order_they_were_started():
    first, second = (FX.StartWorkerProcess(policy=policy) | run for policy in ("compute", "strict"))
    send(first, echo(1))
    shown = {entry["process"]: entry for entry in FX.ListWorkerProcesses() | run}
    assert [process for process in shown if process in (first, second)] == [first, second]
    assert (shown[first]["policy"], shown[first]["commands"], shown[first]["state"]) == ("compute", 1, "idle")
    assert os.path.exists(f"/proc/{shown[second]['pid']}")
    stop(first)
    stop(second)
    assert not {first, second} & {entry["process"] for entry in FX.ListWorkerProcesses() | run}


def test_stopping_twice_is_no_error(worker):
    stop(worker)
    stop(worker)


INTERRUPTED = """
import sys, psutil
from fxcell import *

@zef_function
def announced():
    FX.Print(content="running") | run
    while True:
        pass

worker = FX.StartWorkerProcess() | run
supervisor = (FX.ListWorkerProcesses() | run)[0]["pid"]
try:
    FX.SendCommandToWorkerProcess(process=worker, command=announced()) | run
except KeyboardInterrupt:
    print("interrupted", psutil.pid_exists(supervisor), len(FX.ListWorkerProcesses() | run))
another = FX.StartWorkerProcess() | run
print(FX.SendCommandToWorkerProcess(process=another, command=7) | run)
"""


def test_ctrl_c_in_the_caller_ends_the_command_and_leaves_nothing(tmp_path):
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    with assert_nothing_left():
        host = subprocess.Popen([sys.executable, "-W", "error", script], stdout=subprocess.PIPE, text=True)
        assert host.stdout.readline() == "running\n"
        host.send_signal(signal.SIGINT)
        rest, _ = host.communicate(timeout=60)
    assert rest == "interrupted False 0\n7\n"
    assert host.returncode == 0


def test_killed_host_leaves_no_worker(tmp_path):
    """Its cgroups, which are empty then, go when the next host starts."""
    script = tmp_path / "killed.py"
    script.write_text(INTERRUPTED)
    before = leaks.snapshot()
    with assert_nothing_left():
        host = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
        assert host.stdout.readline() == "running\n"
        host.kill()
        host.communicate(timeout=60)
        before_sweep = leaks.snapshot()
        assert leaks.wait_until_gone(dataclasses.replace(before, cgroups=before_sweep.cgroups), 5) == []
        cgroups.sweep(cgroups.places(), older_than_s=0)


def test_worker_that_came_after_its_start_deadline_is_not_given_to_the_next_caller():
    policy = load_policy("compute").replaced(limits=Limits(start_s=1.0))
    FX.StopWorkerProcess(process=FX.StartWorkerProcess(policy=policy) | run) | run
    template = templates.template_for(policy)
    before = len(psutil.Process(template.process.pid).children())
    os.kill(template.process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerCrash, match="did not answer in time"):
        FX.StartWorkerProcess(policy=policy) | run
    os.kill(template.process.pid, signal.SIGCONT)
    workers = [FX.StartWorkerProcess(policy=policy) | run for _ in range(3)]
    for number, worker in enumerate(workers):
        assert FX.SendCommandToWorkerProcess(process=worker, command=number) | run == number
    assert {session.pid for session in map(registry.session_of, workers)} <= {
        child.pid for child in psutil.Process(template.process.pid).children()
    }
    for worker in workers:
        FX.StopWorkerProcess(process=worker) | run
    end = time.monotonic() + 20
    while len(psutil.Process(template.process.pid).children()) > before and time.monotonic() < end:
        os.sched_yield()
    assert len(psutil.Process(template.process.pid).children()) <= before


def test_policies_made_at_run_time_leave_a_bounded_number_of_templates_and_busy_ones_stay():
    def policy(number):
        return load_policy("strict").replaced(limits=Limits(wall_s=100 + number))

    busy = FX.StartWorkerProcess(policy=policy(0)) | run
    kept = templates.template_for(policy(0)).process.pid

    def use(number):
        worker = FX.StartWorkerProcess(policy=policy(1 + number % 20)) | run
        answer = FX.SendCommandToWorkerProcess(process=worker, command=number) | run
        FX.StopWorkerProcess(process=worker) | run
        return answer

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(use, range(60))) == list(range(60))
    assert sum(not template.users for template in templates._templates.values()) <= templates.IDLE_MAX
    assert templates.template_for(policy(0)).process.pid == kept
    assert FX.SendCommandToWorkerProcess(process=busy, command=1) | run == 1
    FX.StopWorkerProcess(process=busy) | run
