"""Lines 53, 54, 59: a file beside a granted folder, by every call that takes a path or a descriptor."""

import os

import pytest

from fxcell import PluginError, WorkerCrash, zef_function
from tests.escapes.conftest import compute

SCRATCH = {
    "allow": frozenset({"threads", "load_libraries", "scratch"}),
    "limits": {"scratch_bytes": 2**20, "file_bytes": 2**20},
}


@zef_function
def reach(sentinel, shown, scratch):
    """Everything that could give or change the file; answer what worked."""
    import os
    import shutil

    scratch = scratch or os.environ["TMPDIR"]
    worked, number = [], [0]

    def attempt(what, act):
        try:
            answer = act()
        except (OSError, ValueError):
            return
        worked.append((what, answer if isinstance(answer, bytes | str) else ""))

    def read(path):
        with open(path, "rb") as file:
            return file.read(100)

    def fresh(name):
        number[0] += 1
        return f"{scratch}/{name}{number[0]}"

    def through_link():
        link = fresh("link")
        os.symlink(sentinel, link)
        return read(link)

    def through_chain():
        first = before = fresh("chain")
        os.symlink(sentinel, before)
        for _ in range(30):
            link = fresh("chain")
            os.symlink(before, link)
            before = link
        assert first
        return read(before)

    def place(path, flags):
        descriptor = os.open(path, flags)
        try:
            return read(f"/dev/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def from_folder():
        folder = os.open(shown, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return os.read(os.open("../" + os.path.basename(sentinel), os.O_RDONLY, dir_fd=folder), 100)
        finally:
            os.close(folder)

    def moved(source, target):
        os.rename(source, target)
        return read(target)

    attempt("read", lambda: read(sentinel))
    attempt("link", through_link)
    attempt("chain of links", through_chain)
    attempt("O_PATH", lambda: place(sentinel, os.O_PATH))
    attempt("O_PATH of the folder", lambda: place(os.path.dirname(sentinel), os.O_PATH | os.O_DIRECTORY))
    attempt("below a descriptor", from_folder)
    attempt("hard link", lambda: os.link(sentinel, fresh("hard")))
    attempt("rename out", lambda: moved(sentinel, fresh("moved")))
    attempt("rename over", lambda: os.rename(shutil.copy(shown + "/public", fresh("copy")), sentinel))
    attempt("rename the folder", lambda: moved(os.path.dirname(sentinel), fresh("folder")))
    attempt("truncate", lambda: os.truncate(sentinel, 0))
    attempt("create", lambda: open(sentinel + ".new", "x").close())
    attempt("create beside", lambda: os.mkdir(os.path.dirname(sentinel) + "/made"))
    attempt("unlink", lambda: os.unlink(sentinel))
    attempt("chdir", lambda: os.chdir(os.path.dirname(sentinel)) or str(os.listdir()))
    attempt("listdir", lambda: str(os.listdir(os.path.dirname(sentinel))))
    attempt("copyfile", lambda: shutil.copyfile(sentinel, fresh("copied")))
    return worked


@pytest.mark.parametrize("words", [{}, SCRATCH], ids=["compute", "scratch"])
def test_file_beside_a_granted_folder_is_not_reached(arena, words):
    shown = arena.folder / "shown"
    shown.mkdir()
    shown.chmod(0o755)
    (shown / "public").write_text("public")
    policy = compute(name="one folder", visible=(str(shown),), **words)
    assert arena.attack(reach(str(arena.sentinel), str(shown), None), policy) == []
    assert sorted(path.name for path in arena.folder.iterdir()) == ["sentinel", "shown"]


def test_where_nothing_stops_it_most_ways_lead_there(arena):
    victim = arena.folder / "for the control"
    victim.mkdir()
    shown = victim / "shown"
    shown.mkdir()
    (shown / "public").write_text("public")
    (victim / "file").write_text("plain")
    victim.chmod(0o777)
    scratch = arena.folder / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    worked = dict(arena.control(reach(str(victim / "file"), str(shown), str(scratch))))
    assert worked["read"] == worked["below a descriptor"] == worked["O_PATH"] == b"plain"
    assert len(worked) >= 8, worked  # what was renamed is gone for the later ones


@zef_function
def write_to_kernel(paths):
    worked = []
    for path in paths:
        try:
            with open(path, "w") as file:
                file.write("x")
        except OSError:
            continue
        worked.append(path)
    return worked


KERNEL_FILES = (
    "/proc/sysrq-trigger", "//proc/sysrq-trigger", "/proc/./sysrq-trigger", "/proc/self/../sysrq-trigger",
    "/dev/../proc/sysrq-trigger",
    "/usr/../proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper", "/proc/self/oom_score_adj",
    "/proc/self/uid_map", "/sys/fs/cgroup/memory/release_agent", "/dev/shm/x", "/dev/tcp/127.0.0.1/80",
)  # fmt: skip


@pytest.mark.parametrize("policy", ["strict", "compute"])
def test_files_of_the_kernel_are_not_written_under_any_spelling(arena, policy):
    # No control: where it works it acts on this machine.
    assert arena.attack(write_to_kernel(list(KERNEL_FILES)), policy) == []


@zef_function
def look_at_parents(pid):
    import os

    found = []
    for who in (1, 2, pid, "self", "thread-self"):
        for what in ("environ", "maps", "mem", "cwd", "root", "fd", "status", "task"):
            try:
                os.stat(f"/proc/{who}/{what}")
                found.append(f"{who}/{what}")
            except OSError:
                continue
    return found


def test_proc_of_parents_is_not_there(arena):
    assert arena.attack(look_at_parents(os.getpid())) == []
    assert f"{os.getpid()}/status" in arena.control(look_at_parents(os.getpid()))


@zef_function
def mount_over_with_nul():
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(165, b"none\0hidden", b"/tmp\0/etc", b"tmpfs", 0, 0), ctypes.get_errno()


@zef_function
def names_with_nul():
    import os

    refused = 0
    for act in (os.stat, os.listdir, os.mkdir, os.unlink, os.readlink, os.chdir):
        try:
            act("/usr\0/../etc")
        except ValueError:
            refused += 1
    return refused


def test_nul_bytes_in_paths_and_mounts_are_clean_errors(arena):
    # Line 60.
    assert arena.attack(names_with_nul()) == arena.control(names_with_nul()) == 6
    outcome = arena.attack(mount_over_with_nul())
    assert isinstance(outcome, WorkerCrash | PluginError), outcome
