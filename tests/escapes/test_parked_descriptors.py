"""A worker parks descriptors in the queue of a socket that nobody reads: they count for every process of its user.

The kernel then takes no descriptor from another process of that user whose limit on open files is lower (unix(7),
ETOOMANYREFS): other workers' large values, new workers' listeners, the template that hands workers over.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from fxcell import FX, load_policy, run, zef_function

ETOOMANYREFS = 109


@zef_function
def park():
    """Put an end of a socket pair at the channel's number, the only one that descriptors can be sent through."""
    import array
    import builtins
    import fcntl
    import os
    import socket

    channel = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 40)
    os.close(3)
    pair = sorted(socket.socketpair(), key=lambda end: end.fileno())
    assert pair[0].fileno() == 3
    sent, error = 0, 0
    while not error:
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))]
            pair[0].sendmsg([b"x"], rights, socket.MSG_DONTWAIT)
            sent += 250
        except OSError as refused:
            error = refused.errno
    builtins.kept = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 30), pair[1].detach()
    pair[0].detach()
    os.close(3)
    fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(channel)
    return sent, error


@zef_function
def send_one_descriptor():
    """The control: what the kernel says to another worker that sends one. Through the channel's number, as in park."""
    import array
    import fcntl
    import os
    import socket

    channel = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 40)
    os.close(3)
    pair = sorted(socket.socketpair(), key=lambda end: end.fileno())
    error = 0
    try:
        pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))], socket.MSG_DONTWAIT)
    except OSError as refused:
        error = refused.errno
    for end in pair:
        end.close()
    fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(channel)
    return error


@zef_function
def keep_memory_files():
    """As many memory files alive at the same time as can be: those in the socket's queue are not in the table any more."""
    import array
    import fcntl
    import os
    import socket

    channel = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(3)
    pair = sorted(socket.socketpair(), key=lambda end: end.fileno())
    in_flight, files = 0, []
    while True:
        try:
            while True:
                files.append(os.memfd_create("file", os.MFD_CLOEXEC))
                os.write(files[-1], b"x" * 1024)
        except OSError:
            pass
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
            pair[0].sendmsg([b"x"], rights, socket.MSG_DONTWAIT)
        except OSError:
            break
        in_flight += len(files)
        while files:
            os.close(files.pop())
    still_open = len(files)
    while files:
        os.close(files.pop())
    rights = pair[1].recvmsg(1, socket.CMSG_SPACE(4 * 64))[1]
    back = array.array("i", rights[0][2])
    alive = sum(os.fstat(descriptor).st_size == 1024 for descriptor in back)
    for descriptor in back:
        os.close(descriptor)
    for end in pair:
        end.close()
    fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(channel)
    return in_flight, still_open, alive == len(back)


@zef_function
def twice(data):
    return data + data


@zef_function
def tripled(array):
    return {"tripled": array * 3, "beside": [array, b"x" * 100_000]}


@zef_function
def of_size(size):
    return b"x" * size


def send(worker, command):
    return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command))


@pytest.fixture
def hostile():
    worker = FX.StartWorkerProcess() | run
    yield worker
    FX.StopWorkerProcess(process=worker) | run


def test_large_values_of_another_worker_travel_while_one_has_parked_descriptors(arena, hostile):
    victim = FX.StartWorkerProcess() | run
    assert send(victim, send_one_descriptor()) == 0
    sent, error = send(hostile, park())
    assert sent >= 64
    assert error == ETOOMANYREFS
    assert send(victim, send_one_descriptor()) == ETOOMANYREFS
    data = os.urandom(150_000)
    for _ in range(2):
        assert send(victim, twice(data)) == data + data
    assert send(victim, of_size(15 * 2**20)) == b"x" * (15 * 2**20)
    FX.StopWorkerProcess(process=victim) | run


def test_arrays_and_workers_of_other_policies_travel_and_start_all_the_same(arena, hostile):
    assert send(hostile, park())[1] == ETOOMANYREFS
    array = np.arange(50_000, dtype=np.float64)
    numeric = FX.StartWorkerProcess(policy="numeric") | run
    answer = send(numeric, tripled(array))
    assert (answer["tripled"] == array * 3).all()
    assert (answer["beside"][0] == array).all()
    assert answer["beside"][1] == b"x" * 100_000
    FX.StopWorkerProcess(process=numeric) | run
    assert arena.attack(of_size(200_000), "strict") == b"x" * 200_000


def test_values_too_large_for_a_frame_travel_all_the_same(arena, hostile):
    assert send(hostile, park())[1] == ETOOMANYREFS
    victim = FX.StartWorkerProcess(policy="numeric") | run
    assert send(victim, of_size(20 * 2**20)) == b"x" * (20 * 2**20)
    array = np.arange(3_000_000, dtype=np.float64)
    assert (send(victim, tripled(array))["tripled"] == array * 3).all()
    FX.StopWorkerProcess(process=victim) | run


def test_memory_files_that_live_are_at_most_three_times_the_open_files(arena):
    most = load_policy("compute").limits.open_files
    in_flight, still_open, alive = arena.attack(keep_memory_files())
    assert alive
    assert most < in_flight + still_open <= 3 * most


HOST = """
import resource, sys
limit, policy = int(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
from fxcell import *

%s

@zef_function
def size(data): return len(data)

def start(): return FX.StartWorkerProcess(policy=policy) | run
def send(worker, command): return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command))

bystander, hostile = start(), start()
assert send(bystander, size(b"x")) == 1
print("parked", send(hostile, park())[1], flush=True)
for _ in range(3):
    try:
        worker = start()
        print("started", send(worker, size(bytes(200_000))), flush=True)
    except WorkerCrash as crash:
        print("refused", crash.reason.value, "on their way" in str(crash) or crash, flush=True)
print("bystander", send(bystander, size(bytes(200_000))), flush=True)
print("hostile", send(hostile, size(b"x")), flush=True)
FX.StopWorkerProcess(process=hostile) | run
print("afterwards", send(start(), size(bytes(200_000))), flush=True)
"""


def of_a_host_with(limit, tmp_path):
    """What a host says whose limit on open files is low, one of whose workers parks as much as it can."""
    policy = tmp_path / "wide.toml"
    policy.write_text('extends = "compute"\n[limits]\nopen_files = 4096\nstart = "1.5 s"\n')
    script = tmp_path / "host.py"
    import inspect

    script.write_text(HOST % inspect.getsource(park.function))
    done = subprocess.run(
        [sys.executable, script, str(limit), policy], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_worker_that_parks_all_it_can_leaves_room_for_new_workers(tmp_path):
    assert of_a_host_with(1024, tmp_path) == [
        f"parked {ETOOMANYREFS}", *["started 200000"] * 3, "bystander 200000", "hostile 1", "afterwards 200000",
    ]  # fmt: skip


def test_without_room_a_start_is_refused_at_its_deadline_and_template_and_workers_live(tmp_path):
    """The control of the one before: so few open files that no worker's limit can be below the template's."""
    assert of_a_host_with(128, tmp_path) == [
        f"parked {ETOOMANYREFS}", *["refused start_failed True"] * 3, "bystander 200000", "hostile 1", "afterwards 200000",
    ]  # fmt: skip
