"""The memory in which the results of a batch are kept: read back as they were, fixed in size, and no way for a worker to lie."""

from __future__ import annotations

import fcntl
import os

import pytest

from fxcell import Pool, zef_function
from fxcell.policies import values
from fxcell.policies.calls import Definition
from fxcell.sandbox import batches, wire
from fxcell.sandbox.area import SIZE_BYTES, HostArea, WorkerArea
from tests.host.pools import nothing_left as nothing_left  # noqa: PLC0414 - the fixture
from tests.host.pools import same

pytestmark = pytest.mark.usefixtures("nothing_left")


def filled(*results):
    area = HostArea()
    put = WorkerArea(os.dup(area.descriptor)).begin()
    for result in results:
        assert put(result)
    return area


def test_results_are_read_back_and_only_so_many_as_there_can_be():
    area = filled(None, 1, "ä", [1, (2, 3)], 2.5)
    assert area.results(5) == [None, 1, "ä", [1, (2, 3)], 2.5]
    with pytest.raises(wire.WireError, match="5 calls of a batch are done, of 4 at most"):
        area.results(4)
    area.clear()
    assert area.results(4) == []
    area.close()


@pytest.mark.parametrize(
    "written",
    [
        (1 << 32 | 2**32 - 1, b"\xc0"), (2**32 - 1 << 32 | 1, b"\xc0"), (3 << 32 | 1, b"\xc0\xc0\xc0"), (1 << 32 | 2, b"\xc0\xc0"),
        (1 << 32 | 5, b"\xdd\xff\xff\xff\xff"), (1 << 32 | 3, b"\xc7\x01\x02"), (1 << 32, b""),
    ],
)  # fmt: skip
def test_bytes_of_a_lying_worker_are_a_wire_error(written):
    area = HostArea()
    os.pwrite(area.descriptor, written[0].to_bytes(8, "little") + written[1], 0)
    with pytest.raises(wire.WireError):
        area.results(1000)
    area.close()


def test_worker_cannot_resize_or_unseal_the_area():
    area = HostArea()
    for size in (0, SIZE_BYTES - 1, SIZE_BYTES + 1):
        with pytest.raises(PermissionError):
            os.truncate(area.descriptor, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(area.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    area.close()
    control = os.memfd_create("control", os.MFD_ALLOW_SEALING)
    os.truncate(control, 5)
    os.close(control)


def test_result_that_has_no_room_is_left_to_travel_by_itself():
    area = HostArea()
    put = WorkerArea(os.dup(area.descriptor)).begin()
    assert put("x" * (SIZE_BYTES - 100))
    assert not put("y" * 200)
    assert not put(b"z" * values.OUT_OF_BAND_BYTES)
    assert area.results(10) == ["x" * (SIZE_BYTES - 100)]
    area.close()


@zef_function
def lie(n, what):
    """Writes into the area as if more were done, or something else."""
    import gc
    import mmap

    (area,) = [one for one in gc.get_objects() if isinstance(one, mmap.mmap)] or [None]
    if n == 5 and area is not None:
        area[:8] = what
    return n


@pytest.mark.parametrize("what", [b"\xff" * 8, (900 << 32).to_bytes(8, "little"), (1 << 32 | 1).to_bytes(8, "little")])
def test_worker_that_lies_about_what_is_done_harms_only_its_own_calls(what):
    with Pool(1) as pool:
        pool.map(same, range(500))
        found = pool.map(lie, range(200), [what] * 200, on_error="return")
        assert len(found) == 200
        assert pool.run(same(7)) == 7
        assert pool.map(same, range(500)) == list(range(500))


def test_batch_for_another_worker_needs_its_area_first():
    definition = Definition("0" * 64, "nothing")
    with pytest.raises(IndexError):
        batches.pack(definition, [], 1.0)
