"""Memory without end, in every form a plugin can get it: out_of_memory, or an error at the limit of the process."""

import pytest

from fxcell import PluginError, Reason, WorkerCrash, zef_function
from fxcell.host import cgroups
from tests.escapes.conftest import compute

SMALL = compute(name="96 MiB", limits={"memory_bytes": 96 * 2**20})


@zef_function
def one_big_block(mebibytes):
    return len(bytearray(mebibytes << 20))


@zef_function
def many_small_blocks(mebibytes):
    return len([bytearray(b"x") * (1 << 20) for _ in range(mebibytes)])


@zef_function
def touched_mapping(mebibytes):
    import mmap

    memory = mmap.mmap(-1, mebibytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, mebibytes << 20, 4096):
        memory[page] = 1
    return mebibytes


@zef_function
def shared_mapping(mebibytes):
    import mmap

    memory = mmap.mmap(-1, mebibytes << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    for page in range(0, mebibytes << 20, 4096):
        memory[page] = 1
    return mebibytes


@zef_function
def decompression_bomb(mebibytes):
    import zlib

    deflate = zlib.compressobj(9)
    packed = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(mebibytes)) + deflate.flush()
    return len(zlib.decompress(packed))


@zef_function
def growing_memfd(mebibytes):
    import os

    descriptor = os.memfd_create("growing")
    block = bytes(1 << 20)
    for _ in range(mebibytes):
        os.write(descriptor, block)
    return os.fstat(descriptor).st_size >> 20


@zef_function
def many_memfds(mebibytes):
    import os

    block = bytes(1 << 20)
    for _ in range(mebibytes):
        descriptor = os.memfd_create("one of many")
        os.write(descriptor, block)
    return mebibytes


@pytest.mark.parametrize(
    "grow", [one_big_block, many_small_blocks, decompression_bomb], ids=lambda f: f.definition.name
)
def test_private_memory_over_the_limit_is_out_of_memory(arena, grow):
    crash = arena.attack(grow(400), SMALL)
    assert isinstance(crash, WorkerCrash), crash
    assert crash.reason is Reason.OUT_OF_MEMORY, crash
    assert arena.control(grow(130)) in (130, 130 << 20)


def test_private_mapping_over_the_limit_is_killed_or_refused(arena):
    outcome = arena.attack(touched_mapping(300), SMALL)
    if isinstance(outcome, PluginError):  # mmap() says so with an OSError, where the process's own limit acts
        assert "Cannot allocate memory" in outcome.message
    else:
        assert outcome.reason is Reason.OUT_OF_MEMORY, outcome
    assert arena.control(touched_mapping(130)) == 130


def test_shared_memory_over_the_limit_is_out_of_memory_or_refused_where_nothing_counts_it(arena):
    crash = arena.attack(shared_mapping(400), SMALL)
    if "memory" not in cgroups.places():
        assert isinstance(crash, PluginError), crash
        assert crash.type_name == "PermissionError"
        return
    assert isinstance(crash, WorkerCrash), crash
    assert crash.reason is Reason.OUT_OF_MEMORY, crash
    assert arena.control(shared_mapping(130)) == 130


@pytest.mark.parametrize("grow", [growing_memfd, many_memfds], ids=lambda f: f.definition.name)
def test_memory_files_over_the_limit_are_refused_or_counted(arena, grow):
    outcome = arena.attack(grow(400), SMALL)
    if isinstance(outcome, PluginError):
        assert outcome.type_name == "OSError"
    else:
        assert outcome.reason in (Reason.OUT_OF_MEMORY, Reason.SIGNAL), outcome
    assert arena.control(grow(40)) == 40
