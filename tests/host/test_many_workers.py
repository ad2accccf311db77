"""Many workers of one host at the same time: each answers, and nothing of any is left.

FXCELL_WORKERS says how many (default 40); `make test-thousand` starts 1,000 and prints what they take.
"""

import os
import pickle
import re
import resource
import statistics
import time
from pathlib import Path

import psutil
import pytest

from fxcell import FX, OutOfDescriptors, Pool, load_policy, run, zef_function
from fxcell.host import registry
from fxcell.sandbox.kernel import processes
from tests import leaks

WORKERS = int(os.environ.get("FXCELL_WORKERS", "40"))
DESCRIPTORS_EACH = 3
MEMORY_EACH = 24 * 2**30 // 1000
"""1,000 workers fit into 24 GiB."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(max(180, WORKERS))]


@zef_function
def answer(number):
    import os

    return number, os.getpid()


@pytest.fixture
def descriptors():
    """Room for that many workers in this process, afterwards as before."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = DESCRIPTORS_EACH * WORKERS + 256
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"{WORKERS} workers need {needed} open files, and {hard} is the hard limit")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def kibibytes(path, words):
    return sum(map(int, re.findall(rf"^(?:{words}):\s+(\d+) kB", Path(path).read_text(), re.MULTILINE)))


def show_memory(workers, available_before):
    used = available_before - psutil.virtual_memory().available
    print(f"MemAvailable is {used / 2**20:.0f} MiB less: {used / WORKERS / 2**20:.2f} MiB for each worker")
    assert used < WORKERS * MEMORY_EACH or WORKERS < 500  # of few workers it is lost in what else this machine does
    if os.geteuid():
        return  # workers are not dumpable: only root may look
    supervisors = [registry.session_of(worker).pid for worker in workers]
    inside = [child for supervisor in supervisors for child in processes.children_of(supervisor)]
    for what, pids in (("worker", inside), ("supervisor", supervisors)):
        own = [kibibytes(f"/proc/{pid}/smaps_rollup", "Private_Clean|Private_Dirty") / 1024 for pid in pids]
        shared = [kibibytes(f"/proc/{pid}/smaps_rollup", "Pss") / 1024 for pid in pids]
        print(f"{what}: USS {statistics.median(own):.2f} MiB, PSS {statistics.median(shared):.2f} MiB, sum {sum(shared):.0f} MiB")


@pytest.mark.usefixtures("descriptors")
def test_many_workers_alive_at_once_each_give_their_own_answer_and_leave_nothing():
    FX.StopWorkerProcess(process=FX.StartWorkerProcess() | run) | run  # the template stays, and is not counted
    available = psutil.virtual_memory().available
    with leaks.assert_nothing_left(patience_s=30):
        workers, seconds = [], []
        try:
            for _ in range(WORKERS):
                started = time.perf_counter()
                workers.append(FX.StartWorkerProcess() | run)
                seconds.append(time.perf_counter() - started)
            third = max(1, WORKERS // 3)
            shown = ", ".join(f"{statistics.median(part) * 1000:.1f}" for part in (seconds[:third], seconds[-third:]))
            print(f"\n{WORKERS} workers started in {sum(seconds):.1f} s; first and last third, p50: {shown} ms")
            answers = [FX.SendCommandToWorkerProcess(process=w, command=answer(n)) | run for n, w in enumerate(workers)]
            assert [number for number, _ in answers] == list(range(WORKERS))
            assert all(registry.session_of(worker).lives for worker in workers)
            assert len({registry.session_of(worker).pid for worker in workers}) == WORKERS
            show_memory(workers, available)
        finally:
            started = time.perf_counter()
            for worker in workers:
                FX.StopWorkerProcess(process=worker) | run
            print(f"stopped in {time.perf_counter() - started:.1f} s")


@pytest.mark.usefixtures("descriptors")
def test_pool_of_many_workers_starts_them_all_and_each_serves():
    FX.StopWorkerProcess(process=FX.StartWorkerProcess() | run) | run
    with leaks.assert_nothing_left(patience_s=30):
        with Pool(WORKERS, min_workers=WORKERS) as pool:
            assert pool.workers == pool.started == WORKERS
            numbers = [number for number, _ in pool.map(answer, range(3 * WORKERS))]
            assert pool.workers == WORKERS
        assert numbers == list(range(3 * WORKERS))


def test_host_without_room_for_the_descriptors_of_a_worker_says_so_and_goes_on(arena_of_few_descriptors):
    workers = arena_of_few_descriptors
    with pytest.raises(OutOfDescriptors, match=r"resource\.setrlimit.*ulimit -n") as refused:
        while True:
            workers.append(FX.StartWorkerProcess() | run)
    assert refused.value.limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert workers
    for number, worker in enumerate(workers):
        assert (FX.SendCommandToWorkerProcess(process=worker, command=answer(number)) | run)[0] == number
    FX.StopWorkerProcess(process=workers.pop()) | run
    FX.StopWorkerProcess(process=workers.pop()) | run
    workers.append(FX.StartWorkerProcess() | run)
    with pytest.raises(OutOfDescriptors):
        Pool(64, min_workers=64)
    assert (FX.SendCommandToWorkerProcess(process=workers[-1], command=answer(7)) | run)[0] == 7


@pytest.fixture
def arena_of_few_descriptors():
    FX.StopWorkerProcess(process=FX.StartWorkerProcess() | run) | run
    workers = []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with leaks.assert_nothing_left():
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, before[1]))
        yield workers
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for worker in workers:
            FX.StopWorkerProcess(process=worker) | run


def test_new_template_without_room_for_its_descriptors_is_refused_the_same_way(tmp_path):
    (tmp_path / "new.toml").write_text('extends = "compute"\n[limits]\nopen_files = 65\n')
    policy = load_policy(tmp_path / "new.toml")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with leaks.assert_nothing_left():
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 4, before[1]))
        try:
            with pytest.raises(OutOfDescriptors):
                FX.StartWorkerProcess(policy=policy) | run
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_refusal_at_the_hard_limit_names_who_can_raise_it_and_survives_pickling():
    refused = pickle.loads(pickle.dumps(OutOfDescriptors(1024, 1024)))
    assert (refused.limit, refused.hard) == (1024, 1024)
    assert "LimitNOFILE=" in str(refused)
    assert "setrlimit" not in str(refused)
