"""Line 50: taking the lockdown back by prctl. Line 40 and 41: calls of another architecture, in a worker with a sentinel.
Line 47: what a new C library calls at start is there."""

import errno
import shutil
import subprocess

import pytest

from fxcell import PluginError, Reason, WorkerCrash, zef_function
from tests.escapes.calls import make_call
from tests.escapes.conftest import compute

PRCTL = 157
OPTIONS = {
    "PR_SET_DUMPABLE": (4, 1), "PR_SET_PDEATHSIG": (1, 0), "PR_SET_KEEPCAPS": (8, 1), "PR_SET_SECCOMP off": (22, 0),
    "PR_CAPBSET_DROP": (24, 0), "PR_SET_SECUREBITS": (28, 0), "PR_SET_NO_NEW_PRIVS off": (38, 0), "PR_SET_MM": (35, 1),
    "PR_CAP_AMBIENT": (47, 2), "PR_SET_SPECULATION_CTRL": (53, 0), "PR_SET_PTRACER": (0x59616D61, -1),
    "PR_SET_CHILD_SUBREAPER": (36, 1), "PR_SET_TSC": (26, 2), "PR_SET_MDWE off": (65, 0), "PR_SET_SYSCALL_USER_DISPATCH": (59, 1),
    "PR_SET_MDWE + 2^32": (65 + 2**32, 0), "PR_SET_DUMPABLE + 2^32": (4 + 2**32, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_prctl_changes_nothing(arena, name):
    option, value = OPTIONS[name]
    assert arena.attack(make_call(PRCTL, option, value, 0, 0, 0)) == (-1, errno.EPERM)


def test_where_nothing_stops_it_prctl_changes_something(arena):
    assert arena.control(make_call(PRCTL, 4, 1, 0, 0, 0)) == (0, 0)


OPEN = """
#include <stddef.h>
/* Opens and reads a file with calls of another table: 32-bit by int 0x80, or x32. */
long by_int80(long path, long buffer) {
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(5L), "b"(path), "c"(0L), "d"(0L) : "memory");
    if (r < 0) return r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(3L), "b"(r), "c"(buffer), "d"(100L) : "memory");
    return r;
}
long by_x32(long path, long buffer) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(0x40000002L), "D"(path), "S"(0L), "d"(0L) : "rcx", "r11", "memory");
    if (r < 0) return r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(0x40000000L), "D"(r), "S"(buffer), "d"(100L) : "rcx", "r11", "memory");
    return r;
}
"""


@zef_function
def read_by(library, function, path):
    """The 32-bit call takes addresses of 32 bits: text and buffer are mapped low."""
    import ctypes
    import mmap

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    low = libc.mmap(None, ctypes.c_size_t(8192), 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40, -1, ctypes.c_long(0))
    ctypes.memmove(low, path.encode() + b"\0", len(path) + 1)
    call = getattr(ctypes.CDLL(library), function)
    call.restype, call.argtypes = ctypes.c_long, [ctypes.c_long, ctypes.c_long]
    result = call(low, low + 4096)
    return result, ctypes.string_at(low + 4096, max(result, 0))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (gcc or cc) for machine code of a foreign architecture")
    folder = tmp_path_factory.mktemp("foreign-escape")
    for place in (folder, folder.parent):
        place.chmod(0o755)
    (folder / "open.c").write_text(OPEN)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", folder / "open.so", folder / "open.c"], check=True)
    return folder


@pytest.mark.parametrize("function", ["by_int80", "by_x32"])
def test_file_is_not_read_by_calls_of_another_architecture(arena, foreign, function):
    policy = compute(name="foreign code", visible=(str(foreign),))
    crash = arena.attack(read_by(str(foreign / "open.so"), function, str(arena.sentinel)), policy)
    assert isinstance(crash, WorkerCrash), crash
    assert (crash.reason, crash.signal_name) == (Reason.SIGNAL, "SIGSYS")


def test_where_nothing_stops_it_the_32_bit_call_reads_the_file(arena, foreign):
    outcome = arena.control(read_by(str(foreign / "open.so"), "by_int80", str(arena.sentinel)))
    if isinstance(outcome, WorkerCrash):
        pytest.skip("this kernel has no 32-bit calls")
    assert outcome == (32, arena.secret.encode())


@zef_function
def start_like_a_new_libc():
    import os
    import threading

    done = []
    thread = threading.Thread(target=lambda: done.append(os.getrandom(8)))
    thread.start()
    thread.join()
    return len(done[0])


def test_threads_random_and_rseq_work(arena):
    assert arena.attack(start_like_a_new_libc()) == 8


@zef_function
def turn_seccomp_off_by_strict_mode():
    import ctypes

    return ctypes.CDLL(None).prctl(22, 1, 0, 0, 0)


def test_strict_mode_of_old_is_refused_as_well(arena):
    outcome = arena.attack(turn_seccomp_off_by_strict_mode())
    assert outcome == -1 or isinstance(outcome, PluginError)
