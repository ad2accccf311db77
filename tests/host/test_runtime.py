"""`run` in the host: what it does with each kind of value, in threads and in asyncio."""

import asyncio
import os
import threading
import time

import numpy
import pytest

from fxcell import *
from fxcell import Effect, handles, load_policy
from fxcell.host import background, registry, runtime


@zef_function
def add(a, b):
    return a + b


@zef_function
def fail():
    raise ValueError("no")


@zef_function
def where():
    import os

    return os.getpid()


@pytest.fixture
def worker():
    process = FX.StartWorkerProcess() | run
    yield process
    FX.StopWorkerProcess(process=process) | run


def command(process, value):
    return FX.SendCommandToWorkerProcess(process=process, command=value)


@pytest.mark.parametrize("value", [None, 7, "text", {"a": 1}, (1, 2), []], ids=repr)
def test_plain_value_is_itself(value):
    assert (value | run) == value
    assert run(value) == value


def test_array_is_itself_and_is_not_run_element_by_element():
    array = numpy.arange(3)
    assert (array | run) is array


def test_call_runs_here():
    assert (add(2, 3) | run) == 5
    assert (where() | run) == os.getpid()


def test_list_runs_in_order_and_nested_lists_too(capsys):
    result = [FX.Print(content="a"), add(1, 2), [FX.Print(content="b"), "x"], 4] | run
    assert result == [None, 3, [None, "x"], 4]
    assert capsys.readouterr().out == "a\nb\n"


def test_result_that_is_work_is_run():
    @zef_function
    def plan(depth):
        return plan_of(depth - 1) if depth else [add(1, 1), 5]

    plan_of = plan
    assert (plan(3) | run) == [2, 5]


def test_effects_of_the_host_are_performed_with_its_own_authority(tmp_path):
    file = tmp_path.resolve() / "note.txt"
    file.write_text("here")
    assert (FX.ReadFile(path=str(file)) | run) == b"here"
    assert len(FX.RandomBytes(count=5) | run) == 5
    assert (FX.Now() | run) > 1_700_000_000


def test_command_in_a_list_with_local_effects(worker):
    assert ([command(worker, where()), add(1, 1)] | run) == [2, 2]


def test_outcome_returns_what_run_raises(worker):
    assert run.outcome(command(worker, add(1, 2))) == 3
    assert isinstance(run.outcome(command(worker, fail())), PluginError)
    assert isinstance(run.outcome(command(worker, FX.ReadFile(path="/etc/passwd"))), EffectDenied)


def test_outcome_raises_the_callers_own_mistakes(worker):
    with pytest.raises(EncodeError):
        run.outcome(command(worker, object()))


def test_submit_runs_workers_at_the_same_time(monkeypatch):
    both = threading.Barrier(2)

    class Meeting:
        """Each line waits in the host for the other worker's: one worker after the other, they would never end."""

        def write(self, _text):
            both.wait(timeout=60)

        def flush(self):
            pass

    workers = [FX.StartWorkerProcess() | run for _ in range(2)]
    monkeypatch.setattr("sys.stdout", Meeting())
    futures = [run.submit(command(process, FX.Print(content="here"))) for process in workers]
    assert [future.result(60) for future in futures] == [None, None]
    for process in workers:
        FX.StopWorkerProcess(process=process) | run


def test_submit_hands_the_outcome_to_the_future(worker):
    future = run.submit(command(worker, fail()))
    assert isinstance(future.exception(60), PluginError)


def test_aio_without_a_loop_is_a_coroutine_that_asyncio_runs(worker):
    assert asyncio.run(run.aio(command(worker, add(1, 2)))) == 3
    with pytest.raises(PluginError):
        asyncio.run(run.aio(command(worker, fail())))
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(run.aio(command(worker, loop())), 0.3))
    with pytest.raises(WorkerStopped, match="stopped by this host"):  # the timeout ended the worker
        asyncio.run(run.aio(command(worker, add(1, 2))))


def test_aio_answers_without_blocking_the_loop():
    async def main():
        workers = await asyncio.gather(*(run.aio(FX.StartWorkerProcess()) for _ in range(3)))
        results = await asyncio.gather(*(run.aio(command(w, add(i, 1))) for i, w in enumerate(workers)))
        with pytest.raises(PluginError):
            await run.aio(command(workers[0], fail()))
        asleep = asyncio.ensure_future(run.aio(command(workers[1], FX.Sleep(seconds=0.2))))
        await asyncio.sleep(0)
        assert not asleep.done()
        await asleep
        await asyncio.gather(*(run.aio(FX.StopWorkerProcess(process=w)) for w in workers))
        return results

    assert asyncio.run(main()) == [1, 2, 3]


@zef_function
def loop():
    while True:
        pass


def ended(process):
    """True once the worker is in nobody's list any more."""
    return all(entry["process"] != process for entry in FX.ListWorkerProcesses() | run)


def test_cancelled_command_ends_its_worker_and_no_other(worker):
    other = FX.StartWorkerProcess() | run

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(run.aio(command(worker, loop())), 0.3)
        with pytest.raises(WorkerStopped, match="stopped by this host"):
            await run.aio(command(worker, add(1, 2)))  # waits for its turn, which the ended command gives free
        return await run.aio(command(other, add(1, 2)))

    assert asyncio.run(main()) == 3
    assert ended(worker)
    FX.StopWorkerProcess(process=other) | run


def test_cancelled_command_that_waits_for_its_turn_never_runs_and_its_worker_lives(worker):
    async def main():
        first = run.aio(command(worker, FX.Sleep(seconds=0.5)))
        await asyncio.sleep(0.1)
        second = run.aio(command(worker, loop()))
        await asyncio.sleep(0.1)
        second.cancel()
        await first
        return await run.aio(command(worker, add(20, 22)))

    assert asyncio.run(main()) == 42


def test_cancelled_future_that_is_done_ends_nothing(worker):
    async def main():
        future = run.aio(command(worker, add(1, 2)))
        assert await future == 3
        assert not future.cancel()
        return await run.aio(command(worker, add(3, 4)))

    assert asyncio.run(main()) == 7


def test_stored_value_runs_later(worker):
    stored = command(worker, [add(20, 22), "plain"]).to_bytes()
    assert (FX.from_bytes(stored) | run) == [42, "plain"]


def test_cancelling_needs_no_thread_of_those_that_run_commands(worker, monkeypatch):
    one = background.DaemonExecutor(1, "only")
    monkeypatch.setattr(runtime, "_threads", lambda: one)

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(run.aio(command(worker, loop())), 0.3)

    began = time.monotonic()
    asyncio.run(main())
    while not ended(worker):
        assert time.monotonic() - began < 20, "its command runs on until its deadline"
        time.sleep(0.01)
    one.close()


def test_thread_that_cannot_be_started_is_an_error_of_its_own_submit(monkeypatch):
    many = background.DaemonExecutor(2, "many")
    start = threading.Thread.start

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    called = []
    with pytest.raises(RuntimeError, match="can't start"):
        many.submit(called.append, "never")
    monkeypatch.setattr(threading.Thread, "start", start)
    assert many.submit(str, 1).result(20) == "1"
    let_go = threading.Event()
    busy = many.submit(let_go.wait, 20)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    waits = many.submit(str, 2)  # the thread that there is will do it
    let_go.set()
    assert waits.result(20) == "2"
    assert busy.result(20)
    assert called == []
    many.close()


class AskAnother(Effect):
    """Its handler sends a command to another worker."""


others = []


@handles(AskAnother)
def ask_another(_effect):
    return command(others[-1], add(1, 2)) | run


@zef_function
def ask_another_and_loop():
    FX.AskAnother() | run
    FX.Now() | run
    while True:
        pass


def test_command_is_cancelled_also_after_one_of_its_handlers_sent_another():
    policy = load_policy("compute").replaced(name="asks", effects={"AskAnother": True, "Now": True})
    one, other = FX.StartWorkerProcess(policy=policy) | run, FX.StartWorkerProcess() | run
    others.append(other)

    async def main():
        future = run.aio(command(one, ask_another_and_loop()))
        while registry.session_of(one).broker.performed != 2:  # noqa: ASYNC110 - it is the worker that says so
            await asyncio.sleep(0.01)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future

    asyncio.run(main())
    began = time.monotonic()
    while not ended(one):
        assert time.monotonic() - began < 20, "it runs on until its deadline"
        time.sleep(0.01)
    assert command(other, add(3, 4)) | run == 7
    FX.StopWorkerProcess(process=other) | run
    FX.StopWorkerProcess(process=one) | run
