"""Writing to what a worker can see: the interpreter, libraries, its own launcher, a granted folder."""

import pytest

from fxcell import PluginError, zef_function
from tests.escapes.conftest import compute

SCRATCH = compute(
    name="scratch",
    allow=frozenset({"threads", "load_libraries", "scratch"}),
    limits={"scratch_bytes": 2**20, "scratch_files": 32, "file_bytes": 2**20},
)


@zef_function
def plant_files():
    """Every way to leave something in every folder that can be seen; answer the scratch folder and what worked."""
    import os
    import sys

    import fxcell

    folders = {
        path
        for path in (
            *sys.path,
            os.path.dirname(fxcell.__file__),
            "/",
            os.environ["TMPDIR"],
            "/tmp",
            "/dev",
            "/usr/lib",
            "/etc",
            os.getcwd(),
        )
        if path
    }
    folders |= {os.path.dirname(os.__file__), os.path.dirname(os.path.realpath(sys.executable))}
    worked = []

    def attempt(what, act):
        try:
            act()
        except OSError:
            return
        worked.append(what)

    for folder in sorted(folders):
        for name in ("sitecustomize.py", "planted.pth", ".bashrc", "missing-before"):
            path = os.path.join(folder, name)
            attempt(("create", path), lambda path=path: open(path, "x").close())
            attempt(("mkdir", path), lambda path=path: os.mkdir(path))
            attempt(("symlink", path), lambda path=path: os.symlink("/etc/passwd", path))
        attempt(("chmod", folder), lambda folder=folder: os.chmod(folder, 0o777))
        attempt(("utime", folder), lambda folder=folder: os.utime(folder))
    for file in (os.__file__, fxcell.__file__, sys.executable):
        attempt(("open", file), lambda file=file: open(file, "r+b").close())
        attempt(("truncate", file), lambda file=file: os.truncate(file, 0))
        attempt(("unlink", file), lambda file=file: os.unlink(file))
        attempt(("rename", file), lambda file=file: os.rename(file, file + ".moved"))
        attempt(("hard link", file), lambda file=file: os.link(file, os.environ["TMPDIR"] + "/link"))
        attempt(("reopen", file), lambda file=file: open(f"/dev/fd/{os.open(file, os.O_RDONLY)}", "r+b").close())
    return os.environ["TMPDIR"], worked


@zef_function
def write_to(path):
    with open(path, "w") as file:
        file.write("written by a plugin")
    return "written"


@zef_function
def fill_scratch(block, files):
    import os

    written, made = 0, 0
    error = None
    try:
        for number in range(files):
            with open(f"{os.environ['TMPDIR']}/{number}", "wb") as file:
                made += 1
                written += file.write(bytes(block))
    except OSError as caught:
        error = caught.errno
    return written, made, error, sorted(os.listdir(os.environ["TMPDIR"]))[:1]


@zef_function
def load_copied_library(folder):
    import _ctypes
    import ctypes
    import os
    import shutil

    copy = (folder or os.environ["TMPDIR"]) + "/library.so"
    shutil.copyfile(_ctypes.__file__, copy)
    return repr(ctypes.CDLL(copy))


@zef_function
def make_device():
    import os

    os.mknod(os.environ["TMPDIR"] + "/zero", 0o020666, os.makedev(1, 5))


@zef_function
def make_fifo():
    import os

    os.mkfifo(os.environ["TMPDIR"] + "/fifo")


def test_fifo_cannot_be_made(arena):
    for policy in ("compute", SCRATCH):
        assert arena.attack(make_fifo(), policy).evidence.syscall.name in ("mknod", "mknodat")


@pytest.mark.parametrize("policy", ["strict", "compute"])
def test_nothing_can_be_planted_anywhere(arena, policy):
    assert arena.attack(plant_files(), policy)[1] == []


def test_with_scratch_only_the_private_folder_takes_files(arena):
    scratch, worked = arena.attack(plant_files(), SCRATCH)
    assert scratch in ("/tmp", "/scratch")  # the latter where something below /tmp is shown
    assert worked
    assert {path for _, path in worked if not path.startswith(scratch)} == set(), worked
    assert not [what for what, _ in worked if what in ("hard link", "open", "truncate", "unlink", "rename")]


def test_granted_folder_is_read_only(arena):
    shown = arena.folder / "shown"
    shown.mkdir()
    shown.chmod(0o777)
    policy = compute(name="one folder", visible=(str(shown),))
    assert isinstance(arena.attack(write_to(str(shown / "new")), policy), PluginError)
    assert list(shown.iterdir()) == []
    assert arena.control(write_to(str(shown / "new"))) == "written"
    assert [path.name for path in shown.iterdir()] == ["new"]


def test_filling_the_scratch_folder_ends_at_its_size(arena):
    written, _, error, _ = arena.attack(fill_scratch(64 * 1024, 1000), SCRATCH)
    assert error == 28  # ENOSPC
    assert written <= 2**20


def test_many_small_files_end_at_the_number_of_files(arena):
    _, made, error, _ = arena.attack(fill_scratch(1, 1000), SCRATCH)
    assert error == 28
    assert made <= 32


@zef_function
def use_temporary_files():
    import shutil
    import tempfile

    with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryDirectory() as folder:
        file.write(b"text")
        file.flush()
        with open(shutil.copy(file.name, folder), "rb") as copy:
            return copy.read()


def test_temporary_files_work_in_the_scratch_folder_and_nowhere_without(arena):
    assert arena.attack(use_temporary_files(), SCRATCH) == b"text"
    assert isinstance(arena.attack(use_temporary_files()), PluginError)


def test_file_left_by_one_worker_is_not_there_for_the_next(arena):
    assert arena.attack(fill_scratch(10, 3), SCRATCH)[3] == ["0"]
    assert arena.attack(fill_scratch(10, 0), SCRATCH)[3] == []


def test_library_in_the_scratch_folder_cannot_be_loaded(arena):
    outcome = arena.attack(load_copied_library(None), SCRATCH)
    assert isinstance(outcome, PluginError)
    assert outcome.type_name == "OSError"
    assert "CDLL" in arena.control(load_copied_library(str(arena.folder)))


def test_device_cannot_be_made(arena):
    crash = arena.attack(make_device(), SCRATCH)
    assert crash.evidence.syscall.name in ("mknod", "mknodat")
