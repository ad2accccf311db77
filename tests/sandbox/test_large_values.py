"""Values that travel as sealed memory: read without a copy, passed on without one, and out of their sender's reach."""

import fcntl
import gc
import mmap
import os
import signal
import socket
import threading
import time

import pytest

from fxcell import FX, run, zef_function
from fxcell.policies import values
from fxcell.sandbox import wire
from fxcell.sandbox.kernel import memfd

numpy = pytest.importorskip("numpy")
MiB = 2**20
SIZE = 5 * MiB


@pytest.fixture
def host_and_worker():
    sockets = socket.socketpair()
    host, worker = (wire.Channel(end, max_value_bytes=64 * MiB) for end in sockets)
    worker.passes_on = True
    yield host, worker
    host.close()
    worker.close()


def carry(source, target, kind, value):
    sender = threading.Thread(target=source.send_value, args=(kind, 1, values.pack(value)))
    sender.start()
    got = target.value_of(getattr(target.receive(time.monotonic() + 5), kind), allow_calls=False)
    sender.join()
    return got


@pytest.fixture
def created(monkeypatch):
    """The sizes of the memory that was sealed from now on."""
    sizes = []
    create = memfd.create
    monkeypatch.setattr(memfd, "create", lambda parts: (sizes.append(sum(p.nbytes for p in parts)), create(parts))[1])
    return sizes


@pytest.mark.parametrize("size", [0, 1, memfd.HUGE_FROM_BYTES - 1, memfd.HUGE_FROM_BYTES, memfd.HUGE_FROM_BYTES + 4097])
def test_copy_on_huge_pages_is_the_same_bytes(size):
    data = os.urandom(size)
    copy = memfd.copied(memoryview(data))
    assert type(copy) is bytes
    assert copy == data
    assert hash(copy) == hash(data)


# --- arrays without a copy


@zef_function
def describe_memory(array):
    return [array.flags.writeable, array.flags.owndata, int(array[-1])]


@zef_function
def give_back(value):
    return value


@pytest.fixture
def numeric():
    worker = FX.StartWorkerProcess(policy="numeric") | run
    yield lambda call: FX.SendCommandToWorkerProcess(process=worker, command=call) | run
    FX.StopWorkerProcess(process=worker) | run


def test_array_in_a_worker_is_a_read_only_view_of_what_came(numeric):
    array = numpy.arange(SIZE, dtype=numpy.uint8)
    assert numeric(describe_memory(array)) == [False, False, int(array[-1])]


def test_array_of_a_worker_is_a_read_only_view_that_outlives_it(numeric):
    array = numeric(give_back(numpy.arange(SIZE // 8)))
    assert not array.flags.writeable
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="WRITE"):
        array.flags.writeable = True
    numeric(give_back(numpy.zeros(SIZE // 8)))
    assert (array == numpy.arange(SIZE // 8)).all()


def test_arrays_that_are_kept_hold_no_descriptor_and_their_memory_goes_with_them(numeric):
    def mapped():
        with open("/proc/self/maps", encoding="ascii") as maps:
            return sum("fxcell-value" in line for line in maps)

    descriptors, before = len(os.listdir("/proc/self/fd")), mapped()
    kept = [numeric(give_back(numpy.full(MiB // 8, n))) for n in range(50)]
    parts = [array[n:] for n, array in enumerate(kept)]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert mapped() - before == 50
    del kept
    assert [int(part[-1]) for part in parts] == list(range(50))
    del parts
    gc.collect()
    assert mapped() == before


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_large_bytes_of_every_kind_come_back_as_bytes(numeric, kind):
    data = os.urandom(SIZE)
    assert numeric(give_back(kind(data))) == data


def test_large_bytes_need_no_descriptor(host_and_worker, created):
    assert carry(*host_and_worker, "run", [b"x" * SIZE, bytearray(SIZE)]) == [b"x" * SIZE, bytes(SIZE)]
    assert created == []


def test_bytes_beside_an_array_are_sealed_with_it(host_and_worker, created):
    array, data = carry(*host_and_worker, "run", [numpy.arange(SIZE, dtype=numpy.uint8), b"x" * SIZE])
    assert array[-1] == numpy.arange(SIZE, dtype=numpy.uint8)[-1]
    assert data == b"x" * SIZE
    assert created == [2 * SIZE]


# --- passed on as they came


def same(value):
    return value


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (numpy.arange(SIZE, dtype=numpy.uint8), same),
        (numpy.arange(SIZE // 8), lambda array: array.reshape(-1, 16).view(numpy.uint32)),
        ({"a": numpy.ones(SIZE // 8)}, lambda table: [table["a"]]),
    ],
    ids=["array", "another shape", "out of a table"],
)
def test_value_that_is_what_came_goes_back_without_a_copy(host_and_worker, created, value, back):
    host, worker = host_and_worker
    there = carry(host, worker, "run", value)
    created.clear()
    answer = back(there)
    got = carry(worker, host, "result", answer)
    assert created == []
    assert values.encode_value(got) == values.encode_value(answer)


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (numpy.arange(SIZE, dtype=numpy.uint8), lambda array: array[1:]),
        (numpy.arange(SIZE, dtype=numpy.uint8), lambda array: array[::-1]),
        (numpy.arange(SIZE // 8), lambda array: array.reshape(8, -1).T),
        (numpy.arange(SIZE, dtype=numpy.uint8), lambda array: array.copy()),
        (numpy.arange(SIZE, dtype=numpy.uint8), lambda array: [array, array]),
        (numpy.arange(SIZE, dtype=numpy.uint8), lambda array: numpy.broadcast_to(array[: SIZE // 2], (2, SIZE // 2))),
        ([numpy.ones(SIZE // 8), numpy.zeros(SIZE // 8)], lambda parts: parts[1]),
    ],
    ids=["part", "reversed", "transposed", "copy", "twice", "a half twice", "one of two"],
)
def test_value_that_is_not_exactly_what_came_is_written_anew(host_and_worker, created, value, back):
    host, worker = host_and_worker
    answer = back(carry(host, worker, "run", value))
    created.clear()
    got = carry(worker, host, "result", answer)
    assert len(created) == 1
    assert values.encode_value(got) == values.encode_value(answer)


def test_what_came_before_the_last_message_is_written_anew(host_and_worker, created):
    host, worker = host_and_worker
    first = carry(host, worker, "run", numpy.arange(SIZE, dtype=numpy.uint8))
    carry(host, worker, "run", 1)
    created.clear()
    assert (carry(worker, host, "result", first) == first).all()
    assert created == [SIZE]


def test_host_never_passes_on_what_a_worker_sent(host_and_worker, created):
    host, worker = host_and_worker
    array = carry(worker, host, "result", numpy.arange(SIZE, dtype=numpy.uint8))
    created.clear()
    carry(host, worker, "run", array)
    assert created == [SIZE]
    assert host.received_fds == []


# --- out of the sender's reach


def sealed(seals):
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, bytes(64 * 1024))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def test_control_reader_of_memory_without_seals_dies_when_it_is_cut():
    descriptor = sealed(0)
    reader = os.fork()
    if reader == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        mapped = mmap.mmap(descriptor, 64 * 1024, prot=mmap.PROT_READ)
        os.ftruncate(descriptor, 0)
        os._exit(mapped[-1])
    _, status = os.waitpid(reader, 0)
    os.close(descriptor)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGBUS


def test_control_memory_without_the_write_seal_changes_under_its_reader():
    descriptor = sealed(fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    with mmap.mmap(descriptor, 64 * 1024, prot=mmap.PROT_READ) as mapped:
        os.pwrite(descriptor, b"changed", 0)
        assert mapped[:7] == b"changed"
    os.close(descriptor)


@pytest.mark.parametrize(
    "attack",
    [
        lambda fd: os.ftruncate(fd, 0),
        lambda fd: os.ftruncate(fd, 2 * SIZE),
        lambda fd: os.pwrite(fd, b"changed", 0),
        lambda fd: mmap.mmap(fd, SIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE),
        lambda fd: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0),
        lambda fd: fcntl.fcntl(fd, 1024 + 9, 0x10),
    ],
    ids=["shrink", "grow", "write", "map for writing", "seal", "seal future writes"],
)
def test_sealed_memory_refuses_its_own_sender(attack):
    descriptor = memfd.create([memoryview(bytes(SIZE))])
    view = memfd.map_sealed(descriptor, size_bytes=SIZE)
    with pytest.raises(PermissionError):
        attack(descriptor)
    os.close(descriptor)
    assert view[:8] == bytes(8)


@zef_function
def send_memory(seals, cut):
    import fcntl
    import os
    import time

    import fxcell
    from fxcell.policies import values
    from fxcell.sandbox import wire

    size = 1 << 20
    packed = values.pack(bytes(size))  # as large bytes could also travel
    descriptor = os.memfd_create("value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, bytes(size))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    message = wire.Message.new_message(id=fxcell.run.command)
    value = message.init("result")
    value.body, value.buffers = packed.body, [size]
    fxcell.run.channel.send(message, [descriptor])
    if cut:
        os.ftruncate(descriptor, 0)
    time.sleep(3600)


@pytest.mark.parametrize("missing", ["F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_SEAL"])
def test_worker_that_leaves_out_a_seal_ends_as_a_protocol_violation(missing):
    worker = FX.StartWorkerProcess() | run
    seals = memfd._SEALS & ~getattr(fcntl, missing)
    command = send_memory(seals, missing == "F_SEAL_SHRINK")
    outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command))
    assert outcome.reason.value == "protocol_violation"
    assert "seal" in outcome.detail


def test_control_worker_that_sends_the_same_with_every_seal_is_believed():
    worker = FX.StartWorkerProcess() | run
    outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=send_memory(memfd._SEALS, False)))
    assert outcome == bytes(1 << 20)
    FX.StopWorkerProcess(process=worker) | run
