"""PoolExecutor.map with a chunksize: what a chunk is made of is the caller's, what it comes to is as if there were none."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest

from fxcell import FX, EncodeError, PluginError, PoolExecutor, WorkerCrash, load_policy
from fxcell.host import templates
from tests.host.pools import acts, counted
from tests.host.pools import nothing_left as nothing_left  # noqa: PLC0414 - the fixture

pytestmark = pytest.mark.usefixtures("nothing_left")
POLICY = load_policy("compute").replaced(name="executor", effects={"Step": True})


@pytest.fixture(autouse=True, scope="module")
def template():
    templates.template_for(POLICY)
    yield
    templates.close(POLICY)


def cube(n):
    return n**3


def add(a, b):
    return a + b


def misbehave(n):
    if n == 5:
        raise ValueError(n)
    if n == 15:
        os._exit(3)
    return n


def step(n):
    FX.Step(item=f"executor {n}") | run
    return n


from fxcell import run  # noqa: E402  (in a worker the function above finds it as a global; here it is the host's)


@pytest.mark.parametrize("count", [0, 1, 4, 9, 2000])
@pytest.mark.parametrize("chunksize", [1, 4, 10**9])
def test_any_chunksize_gives_what_the_process_pool_gives(count, chunksize):
    inputs = range(count), range(7, 1007)
    with PoolExecutor(2) as ours, concurrent.futures.ThreadPoolExecutor(2) as theirs:
        assert list(ours.map(cube, inputs[0], chunksize=chunksize)) == list(theirs.map(cube, inputs[0]))
        assert list(ours.map(add, *inputs, chunksize=chunksize)) == list(theirs.map(add, *inputs))


@pytest.mark.parametrize("chunksize", [1, 4, 7, 100])
@pytest.mark.parametrize(("first", "error"), [(0, PluginError), (6, WorkerCrash)])
def test_outcome_that_is_no_result_is_raised_at_its_own_place_in_a_chunk(first, error, chunksize):
    seen = []
    with PoolExecutor(2) as executor:
        with pytest.raises(error):
            seen.extend(executor.map(misbehave, range(first, 20), chunksize=chunksize))
        assert seen == list(range(first, 5 if first < 5 else 15))
        assert executor.submit(cube, 2).result() == 8


def test_chunks_run_although_nobody_asks_for_their_results():
    counted.clear()
    with PoolExecutor(2, policy=POLICY) as executor:
        executor.map(step, range(10), chunksize=3)
    assert counted == {f"executor {n}": 1 for n in range(10)}


def test_chunks_that_no_worker_has_begun_are_cancelled_when_the_results_are_let_go():
    counted.clear()
    begun, go = threading.Event(), threading.Event()
    acts["executor 0"] = lambda _context: (begun.set(), go.wait(60))[0]
    try:
        with PoolExecutor(1, policy=POLICY) as executor:
            results = executor.map(step, range(12), chunksize=4, timeout=0.05)
            assert begun.wait(60)
            with pytest.raises(TimeoutError):
                next(results)
            go.set()
        assert set(counted) <= {f"executor {n}" for n in range(4)}
    finally:
        del acts["executor 0"]


def test_timeout_counts_from_the_call():
    with PoolExecutor(1) as executor:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            list(executor.map(time.sleep, [3.0, 3.0], chunksize=2, timeout=0.2))
        assert time.monotonic() - began < 3.0


@pytest.mark.parametrize("chunksize", [0, -1])
def test_chunksize_below_one_is_refused_as_the_process_pool_does(chunksize):
    with PoolExecutor(1) as executor, pytest.raises(ValueError, match="chunksize"):
        executor.map(cube, [1], chunksize=chunksize)


class Model:
    def __init__(self):
        self.factor = 1

    def predict(self, n):
        return self.factor * n


@pytest.mark.parametrize("chunksize", [1, 2])
def test_object_that_changes_between_submits_travels_as_it_is_then(chunksize):
    model = Model()
    with PoolExecutor(1) as executor:
        assert executor.submit(model.predict, 3).result(60) == 3
        model.factor = 7
        assert executor.submit(model.predict, 3).result(60) == 21
        assert list(executor.map(model.predict, [1, 2], chunksize=chunksize)) == [7, 14]
        factor = 2

        def scaled(n):
            return factor * n

        assert executor.submit(scaled, 3).result(60) == 6
        factor = 3
        assert executor.submit(scaled, 3).result(60) == 9


def test_functions_with_what_they_hold_are_let_go_of():
    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)
    with PoolExecutor(1) as executor:
        assert executor.submit(functools.partial(isinstance, held, Held)).result(60) is True
        held = None
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("at", [0, 3])
def test_argument_that_cannot_travel_loses_no_answer_of_its_chunk(at):
    inputs = list(range(6))
    inputs[at] = threading.Lock()
    with PoolExecutor(1) as executor:
        results = executor.map(cube, inputs, chunksize=6)
        assert [next(results) for _ in range(at)] == [n**3 for n in range(at)]
        with pytest.raises(EncodeError):
            next(results)


AT_THE_END = """
import sys
from fxcell import Pool, PoolExecutor, zef_function

def work(n):
    import time
    time.sleep(%(seconds)s)
    return n * 2

def done(future):
    sys.stdout.write(f'{future.result()}\\n')
    sys.stdout.flush()

if sys.argv[1] == 'pool':
    pool = Pool(2)
    for n in range(4):
        pool.submit(zef_function(work)(n)).add_done_callback(done)
else:
    executor = PoolExecutor(2)
    for n in range(4):
        executor.submit(work, n).add_done_callback(done)
    if sys.argv[1] == 'nowait':
        executor.shutdown(wait=False)
    if sys.argv[1] == 'dropped':
        del executor
print('end of script', flush=True)
"""


@pytest.mark.parametrize("how", ["open", "nowait", "dropped", "pool"])
def test_end_of_the_program_waits_for_what_an_executor_was_given_and_not_for_a_pools(tmp_path, how):
    (tmp_path / "script.py").write_text(AT_THE_END % {"seconds": 300 if how == "pool" else 0.2})
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), how], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    first, *results = ended.stdout.split("\n")
    assert first == "end of script"
    assert sorted(results) == ([""] if how == "pool" else ["", "0", "2", "4", "6"])


def test_chunksize_that_is_no_whole_number_is_refused():
    with PoolExecutor(1) as executor, pytest.raises(TypeError, match="as an integer"):
        executor.map(cube, range(3), chunksize=2.5)
