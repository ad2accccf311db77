"""Harmless programs that together need every row of the table of system calls: test_rules_in_use.py records them.

main(group) runs those of one group: "profiles", or one word of a policy's `allow` list beyond those of the profiles.
Prints: one line for each program that did not do what it should. Exit status: 1 then.
"""

from __future__ import annotations

import importlib.util

from fxcell import FX, WorkerCrash, load_policy, run, zef_function
from tests.compatibility import libraries
from tests.compatibility.cases import are_installed, outcomes_of

PURE = "test_json test_re test_heapq test_textwrap test_string"
MODULES = (
    "test_time test_threading_local test_asyncio.test_locks test_asyncio.test_threads test_ctypes test_codecs test_sqlite3 "
    "test_uuid test_hashlib test_select test_queue test_bytes test_memoryview test_locale test_decimal"
)
MIB = 2**20


@zef_function
def regression_tests(name):
    return sum(outcome == "passed" for outcome, _ in outcomes_of(name).values())


@zef_function
def use_effects():
    FX.Print(content="harmless") | run
    return (FX.Now() | run) > 0


@zef_function
def echo(value):
    return value


@zef_function
def use_clocks_and_ids():
    import os
    import resource
    import select
    import time

    time.get_clock_info("process_time")
    select.select([], [], [], 0.001)
    os.access("/usr", os.R_OK, effective_ids=True)
    os.access("/usr", os.R_OK)
    os.sysconf("SC_PHYS_PAGES")
    descriptor = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
    os.listdir(descriptor)
    os.close(descriptor)
    return os.times().elapsed >= 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0, os.getpid()


@zef_function
def use_signals():
    import os
    import signal

    seen = []
    signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    signal.raise_signal(signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    return len(seen)


@zef_function
def use_sealed_memory():
    import fcntl
    import os

    for flags in (os.MFD_CLOEXEC, os.MFD_ALLOW_SEALING, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING):
        descriptor = os.memfd_create("memory", flags)
        if flags & os.MFD_ALLOW_SEALING:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
            fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        os.set_inheritable(os.dup(descriptor), True)
    return True


@zef_function
def use_thread_names():
    import ctypes

    libc = ctypes.CDLL(None)
    name = ctypes.create_string_buffer(16)
    return libc.prctl(16, name) == 0 and libc.prctl(15, name) == 0 and name.value == b"fxcell-worker"


@zef_function
def free_twice():
    import ctypes

    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    block = ctypes.c_void_p(libc.malloc(64))
    libc.free(block)
    libc.free(block)


@zef_function
def use_files():
    import fcntl
    import mmap
    import os
    import pathlib
    import shutil
    import sqlite3
    import tempfile

    folder = pathlib.Path(tempfile.mkdtemp())
    file = folder / "a"
    file.write_text("x" * 5000)
    file.chmod(0o600)
    os.utime(file, (1, 1))
    file.rename(folder / "b")
    os.replace(folder / "b", folder / "c")
    os.truncate(folder / "c", 4096)
    os.symlink("c", folder / "link")
    with open(folder / "c", "r+b") as opened:
        opened.truncate(8192)
        os.pwrite(opened.fileno(), b"y", 10)
        os.fsync(opened.fileno())
        os.fdatasync(opened.fileno())
        os.posix_fallocate(opened.fileno(), 0, 16384)
        os.fchmod(opened.fileno(), 0o644)
        fcntl.lockf(opened, fcntl.LOCK_EX)
        with mmap.mmap(opened.fileno(), 4096) as mapped:
            mapped[0:1] = b"z"
            mapped.flush()
        os.statvfs(opened.fileno())
    os.chdir(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    os.fchdir(descriptor)
    os.mkdir("sub", dir_fd=descriptor)
    os.rename("sub", "sub2", src_dir_fd=descriptor, dst_dir_fd=descriptor)
    os.rmdir("sub2", dir_fd=descriptor)
    os.symlink("c", "link2", dir_fd=descriptor)
    os.chmod("c", 0o600, dir_fd=descriptor)
    os.unlink("link2", dir_fd=descriptor)
    os.umask(os.umask(0o22))
    with sqlite3.connect("data.sqlite") as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table t (n)")
        connection.executemany("insert into t values (?)", [(n,) for n in range(1000)])
    connection.execute("begin immediate")
    connection.execute("delete from t")
    connection.commit()
    connection.close()
    os.statvfs("/tmp")
    os.chdir("/")
    shutil.rmtree(folder)
    return True


@zef_function
def use_children():
    import os
    import signal

    def child(code):
        pid = os.fork()
        if pid == 0:
            os._exit(code)
        return pid

    codes = [os.waitstatus_to_exitcode(os.waitpid(child(number), 0)[1]) for number in (3, 4)]
    os.waitid(os.P_PID, child(5), os.WEXITED)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.dup2(writer, 20)
        os.dup2(writer, 21, inheritable=False)
        os.write(20, f"{os.getppid() > 0}{os.getpgrp() == os.getsid(0) == os.getpgid(0)}".encode())
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.raise_signal(signal.SIGUSR1)
        os._exit(0)
    os.waitpid(pid, 0)
    pid = child_that_waits()
    os.setpgid(pid, pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return codes, os.read(reader, 100)


def child_that_waits():
    import os
    import time

    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    return pid


@zef_function
def use_code_made_at_run_time():
    import ctypes
    import mmap

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda number: number + 1)
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    libc = ctypes.CDLL(None)
    address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    return callback(1), libc.mprotect(address, ctypes.c_size_t(4096), 5)


WORDS = {
    "scratch": (use_files(), {"scratch_bytes": 16 * MIB, "file_bytes": 8 * MIB}),
    "processes": (use_children(), {"processes": 4}),
    "writable_code": (use_code_made_at_run_time(), {}),
}
LIBRARIES = {"imaging": "PIL", "numeric": "numpy scipy pandas lxml cryptography sklearn regex"}


def main(group):
    wrong = []
    for policy, call, right in programs(group):
        worker = FX.StartWorkerProcess(policy=policy) | run
        outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=call))
        FX.StopWorkerProcess(process=worker) | run
        if not right(outcome):
            wrong.append(f"{getattr(policy, 'name', policy)}: {call!r:.60}: {outcome!r:.300}")
    print("\n".join(wrong))
    return 1 if wrong else 0


def programs(group):
    """(policy, call, what its outcome must satisfy)."""
    compute = load_policy("compute")
    if group in WORDS:
        call, limits = WORDS[group]
        limits = type(compute.limits)(**{**compute.limits.to_data(), **limits})
        yield compute.replaced(name=group, allow=compute.allow | {group}, limits=limits), call, works
        return
    big = b"x" * (4 * MIB)
    for profile, modules in (("strict", PURE), ("compute", MODULES)):
        yield profile, use_effects(), works
        yield profile, echo(big), lambda answer: answer == big
        if are_installed():
            here = (name for name in modules.split() if importlib.util.find_spec(f"test.{name}"))
            yield from ((profile, regression_tests(name), works) for name in here)
    for call in (use_clocks_and_ids(), use_signals(), use_sealed_memory(), use_thread_names()):
        yield "compute", call, works
    yield "compute", free_twice(), lambda crash: isinstance(crash, WorkerCrash) and crash.signal_name == "SIGABRT"
    for profile, names in LIBRARIES.items():
        for name in names.split():
            if importlib.util.find_spec(name):
                yield profile, getattr(libraries, f"use_{name}".replace("PIL", "pillow"))(), works


def works(answer):
    return bool(answer) and not isinstance(answer, Exception)
