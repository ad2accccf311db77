"""Line 56: odd names, links, depths and sizes in the private folder; all of it stays there and ends with the worker."""

import time

from fxcell import FX, run, zef_function
from tests.escapes.conftest import add, compute

SCRATCH = compute(
    name="scratch tricks",
    allow=frozenset({"threads", "load_libraries", "scratch"}),
    limits={"scratch_bytes": 4 * 2**20, "scratch_files": 2048, "file_bytes": 4 * 2**20},
)


@zef_function
def odd_names():
    import os

    scratch = os.environ["TMPDIR"].encode()
    made = 0
    for name in (b"\xff\xfe", b"-rf", b"new\nline", b"x" * 255, b"\x1b[2J", "\u202egpj.exe".encode()):
        with open(scratch + b"/" + name, "w"):
            made += 1
    return made, [len(name) for name in sorted(os.listdir(scratch))]


@zef_function
def deep_folders(depth):
    """Deeper than any path can say, by descriptors."""
    import os

    made, here = 0, os.open(os.environ["TMPDIR"], os.O_RDONLY)
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
            made += 1
    except OSError:
        pass
    return made


@zef_function
def many_links(count):
    import os

    scratch = os.environ["TMPDIR"]
    for number in range(count):
        os.symlink(f"{scratch}/{(number + 1) % count}", f"{scratch}/{number}")
    try:
        open(f"{scratch}/0").close()
    except OSError as error:
        return error.errno
    return 0


@zef_function
def sparse_file(size):
    import os

    with open(f"{os.environ['TMPDIR']}/sparse", "wb") as file:
        try:
            os.ftruncate(file.fileno(), size)
        except OSError as error:
            return error.errno
    return 0


@zef_function
def links_out(target, folder):
    import os

    link = f"{folder or os.environ['TMPDIR']}/out"
    os.symlink(target, link)
    try:
        with open(link) as file:
            return file.read()
    except OSError as error:
        return error.errno


def test_odd_names_are_the_workers_own_matter(arena):
    assert arena.attack(odd_names(), SCRATCH)[0] == 6


def test_deep_folders_end_with_the_worker_and_do_not_hold_up_the_next(arena):
    made = arena.attack(deep_folders(1500), SCRATCH)
    assert made >= 1000
    started = time.monotonic()
    worker = FX.StartWorkerProcess(policy=SCRATCH) | run
    assert FX.SendCommandToWorkerProcess(process=worker, command=add(1, 1)) | run == 2
    FX.StopWorkerProcess(process=worker) | run
    assert time.monotonic() - started < 3


def test_circle_of_a_hundred_links_is_an_error(arena):
    assert arena.attack(many_links(100), SCRATCH) == 40  # ELOOP


def test_sparse_file_of_a_pebibyte_is_over_the_limit_of_a_file(arena):
    outcome = arena.attack(sparse_file(2**50), SCRATCH)
    assert outcome == 27 or outcome.signal_name == "SIGXFSZ"  # EFBIG


def test_link_to_the_sentinel_leads_nowhere(arena):
    assert arena.attack(links_out(str(arena.sentinel), None), SCRATCH) in (2, 13)
    assert arena.control(links_out(str(arena.sentinel), str(arena.folder))) == arena.secret
