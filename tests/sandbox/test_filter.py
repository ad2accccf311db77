"""The compiled filter: foreign numbers, the table's names, masked arguments, writable code."""

from __future__ import annotations

import errno
import platform
import shutil
import subprocess

import pyseccomp
import pytest

from fxcell import FX, Reason, WorkerCrash, load_policy, run, zef_function
from fxcell.policies.words import NEVER, WORDS
from fxcell.sandbox import filter as filters
from fxcell.sandbox import syscalls
from fxcell.sandbox.kernel import seccomp
from tests.sandbox import bpf

PROFILES = {name: load_policy(name).allow for name in ("strict", "compute")} | {"every word": frozenset(WORDS)}
MACHINE = platform.machine()
HERE = bpf.ARCHITECTURES.get(MACHINE, 0)
# Names of the table that one of our two architectures does not have.
ONLY_X86 = (
    "open stat lstat readlink access poll select time fork vfork getpgrp pipe dup2 mkdir rmdir unlink rename chmod symlink "
    "epoll_wait creat link chown lchown utime utimes futimesat epoll_create signalfd inotify_init sendfile getrlimit"
)
KNOWN_ABSENT = {"x86_64": "", "aarch64": ONLY_X86}

only_x86 = pytest.mark.skipif(MACHINE != "x86_64", reason="numbers and machine code of x86-64")
every_profile = pytest.mark.parametrize("profile", PROFILES)


def number_of(name):
    return pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)

OWN_PID = 2


def answer(profile, name, *arguments):
    """What the compiled program says to a call, in words."""
    number = name if isinstance(name, int) else number_of(name)
    registers = tuple(argument % 2**64 for argument in arguments) + (0,) * (6 - len(arguments))
    program = filters.for_process(filters.compile_filter(PROFILES[profile]), OWN_PID)
    return bpf.words(bpf.run(program, bpf.Call(number, HERE, registers)))


@every_profile
def test_every_name_of_the_table_resolves_or_is_known_absent(profile):
    rows = syscalls.allowed(PROFILES[profile])
    names = {row.name for row in rows} | {name for name, _, _ in syscalls.refused(rows)}
    absent = {name for name in names if number_of(name) < 0}
    assert absent <= set(KNOWN_ABSENT[MACHINE].split())


@every_profile
def test_every_row_has_a_reason_and_every_call_has_one_answer(profile):
    rows = syscalls.allowed(PROFILES[profile])
    assert all(row.reason for row in rows)
    refused = [name for name, _, _ in syscalls.refused(rows)]
    assert len(refused) == len(set(refused)), sorted(name for name in refused if refused.count(name) > 1)
    assert not set(refused) & {row.name for row in rows if not row.when}


def test_words_of_policies_and_of_the_table_are_the_same():
    assert set(syscalls.BY_WORD) == set(WORDS)
    assert not set(syscalls.BY_WORD) & set(NEVER)


@every_profile
def test_program_fits_the_kernels_limit(profile):
    program = filters.compile_filter(PROFILES[profile])
    assert len(program) % 8 == 0
    assert len(program) // 8 < seccomp.FILTER_INSTRUCTIONS_MAX // 4


@every_profile
@pytest.mark.parametrize("architecture", [0, 1, *(bits for name, bits in bpf.ARCHITECTURES.items() if name != MACHINE)])
def test_every_number_of_a_foreign_architecture_kills_the_process(profile, architecture):
    program = filters.compile_filter(PROFILES[profile])
    for number in range(512):
        assert bpf.reachable(program, number, architecture) == {bpf.KILL_PROCESS}


@only_x86
@every_profile
def test_every_x32_number_kills_the_process(profile):
    program = filters.compile_filter(PROFILES[profile])
    for number in (*range(bpf.X32_BIT, bpf.X32_BIT + 600), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE):
        assert bpf.reachable(program, number, HERE) == {bpf.KILL_PROCESS}, hex(number)


@every_profile
def test_number_minus_one_is_never_allowed(profile):
    program = filters.compile_filter(PROFILES[profile])
    assert bpf.ALLOW not in bpf.reachable(program, 0xFFFFFFFF, HERE)


@every_profile
def test_calls_that_came_later_are_answered_as_by_an_older_kernel(profile):
    assert {answer(profile, number) for number in range(449, 512)} == {f"errno {errno.ENOSYS}"}
    assert answer(profile, "clone3") == f"errno {errno.ENOSYS}"


GARBAGE = 0xDEADBEEF << 32


@pytest.mark.parametrize("high", [0, 1 << 32, GARBAGE])
def test_argument_of_32_bits_is_compared_without_what_is_above(high):
    for profile in PROFILES:
        assert answer(profile, "ioctl", 0, 0x5412 | high) != "allow"  # TIOCSTI
        assert (
            answer(profile, "fcntl", 0, 1030 | high) == "allow"
        )  # F_DUPFD_CLOEXEC: the kernel ignores what is above too
        assert answer(profile, "prctl", 15 | high) == "allow"
        for request in (
            4,
            8,
            22,
            23,
            24,
            28,
            35,
            38,
            53,
            59,
        ):  # dumpable, keepcaps, seccomp, bounding set, securebits …
            assert answer(profile, "prctl", request | high) == "notify"
    assert answer("compute", "ioctl", 0, 0x5421 | high) == "allow"
    assert answer("compute", "ioctl", 0, 0x5422 | high) == "notify"


@pytest.mark.parametrize("high", [0, 1 << 32, GARBAGE])
def test_clone_is_for_threads_only_whatever_else_is_set(high):
    thread, vm, settls = 0x10000, 0x100, 0x80000
    wanted = thread | vm | settls | high
    assert answer("strict", "clone", wanted) == f"errno {errno.EPERM}"
    for flag in (0x80, 0x2000, 0x20000, 0x800000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        for profile in ("compute", "every word"):
            assert answer(profile, "clone", wanted | flag) == "notify", hex(flag)
            assert answer(profile, "clone", 17 | flag | high) == "notify", hex(flag)
    assert answer("compute", "clone", 0x3D0F00) == "allow"  # what glibc's pthread_create sets
    assert answer("compute", "clone", 0x1200011) == "notify"  # what fork() sets
    assert answer("every word", "clone", 0x1200011) == "allow"


@pytest.mark.parametrize("high", [0, GARBAGE])
@pytest.mark.parametrize("name", ["mmap", "mprotect"])
def test_executable_memory_by_profile(name, high):
    read, write, execute = 1, 2, 4
    for protection, strict, compute in (
        (read, "allow", "allow"),
        (read | write, "allow", "allow"),
        (execute, "notify", "allow" if name == "mmap" else "notify"),
        (read | execute, "notify", "allow" if name == "mmap" else "notify"),
        (read | write | execute, "notify", "notify"),
        (write | execute, "notify", "notify"),
    ):
        assert answer("strict", name, 0, 4096, protection | high) == strict
        assert answer("compute", name, 0, 4096, protection | high) == compute
        assert answer("every word", name, 0, 4096, protection | high) == "allow"
    assert answer("strict", "pkey_mprotect", 0, 4096, execute, 0) != "allow"


@every_profile
def test_limits_can_be_read_and_not_set(profile):
    assert answer(profile, "prlimit64", 0, 7, 0, 0x1000) == "allow"
    assert answer(profile, "prlimit64", 0, 7, 0x1000, 0) == "notify"
    assert answer(profile, "prlimit64", 0, 7, 1 << 32, 0) == "notify"  # a pointer whose low half is 0


@every_profile
@pytest.mark.parametrize("name", ["kill", "tgkill"])
def test_signals_go_to_the_worker_itself_only(profile, name):
    everybody = profile == "every word"  # inside the pid namespace
    for target in (1, 3, 0, -1, -2, 0x7FFFFFFF, 2**31):
        assert (answer(profile, name, target, target, 9) == "allow") is everybody
    assert answer(profile, name, OWN_PID, OWN_PID, 9) == "allow"


@every_profile
def test_stand_in_for_the_process_id_is_nowhere_left(profile):
    program = filters.for_process(filters.compile_filter(PROFILES[profile]), OWN_PID)
    stand_in = syscalls.WORKER_PID.to_bytes(4, "little")
    assert stand_in not in {program[start + 4 : start + 8] for start in range(0, len(program), 8)}


@only_x86
@every_profile
def test_sendmsg_goes_to_the_host_only(profile):
    for descriptor in (0, 1, 2, 5, 6, 100, -1):
        assert answer(profile, "sendmsg", descriptor, 0, 0) == "notify"


def test_pair_of_sockets_is_a_local_stream():
    stream, datagram, packets = 1, 2, 5
    flags = 0x800 | 0x80000
    for high in (0, GARBAGE):
        assert answer("compute", "socketpair", 1 | high, stream | flags | high, 0) == "allow"
        for kind in (datagram, packets, 3, 4, 0, 9, 17):
            assert answer("compute", "socketpair", 1 | high, kind | flags | high, 0) == "notify"
        for family in (0, 2, 10, 16, 17, 40):
            assert answer("compute", "socketpair", family | high, stream | high, 0) == "notify"
    assert answer("compute", "sendto", 4, 0, 1, 0, 0, 0) == "allow"
    assert answer("compute", "sendto", 4, 0, 1, 0, 1 << 32, 0) == "notify"


@zef_function
def executable_anonymous_memory():
    import mmap

    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    return len(memory)


@zef_function
def make_memory_executable():
    import ctypes
    import mmap

    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:6] = b"\xb8\x07\0\0\0\xc3"  # mov eax, 7; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), 5):
        return -ctypes.get_errno()
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


@zef_function
def execute_written_memfd():
    import ctypes
    import os

    descriptor = os.memfd_create("code")
    os.write(descriptor, b"\xb8\x07\0\0\0\xc3".ljust(4096, b"\0"))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, ctypes.c_size_t(4096), 5, 2, descriptor, ctypes.c_long(0))
    if address == 2**64 - 1:
        return -ctypes.get_errno()
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


STRICT = load_policy("strict").replaced(name="strict with ctypes", preload=("ctypes", "mmap"))


def outcome(call, policy):
    worker = FX.StartWorkerProcess(policy=policy) | run
    try:
        return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=call))
    finally:
        FX.StopWorkerProcess(process=worker) | run


@only_x86
def test_written_memory_is_not_executed_in_strict_and_is_where_nothing_stops_it():
    assert outcome(executable_anonymous_memory(), STRICT).type_name == "PermissionError"
    assert outcome(make_memory_executable(), STRICT) == -errno.EACCES
    assert outcome(execute_written_memfd(), STRICT) == -errno.EACCES
    assert outcome(executable_anonymous_memory(), "trusted") == 4096
    assert outcome(make_memory_executable(), "trusted") == 7
    assert outcome(execute_written_memfd(), "trusted") == 7


@only_x86
def test_written_memory_is_executed_only_with_the_word_in_compute():
    compute = load_policy("compute")
    for call in (executable_anonymous_memory(), make_memory_executable()):
        assert outcome(call, compute) not in (7, 4096)
    with_word = compute.replaced(name="writable code", allow=compute.allow | {"writable_code"})
    assert outcome(make_memory_executable(), with_word) == 7


FOREIGN = """
long by_int80(long number, long a) {
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(number), "b"(a) : "memory");
    return r;
}
long by_syscall(long number, long a) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(number), "D"(a), "S"(0L), "d"(0L) : "rcx", "r11", "memory");
    return r;
}
"""


@zef_function
def call_library(path, function, number):
    import ctypes

    library = getattr(ctypes.CDLL(path), function)
    library.restype, library.argtypes = ctypes.c_long, [ctypes.c_long, ctypes.c_long]
    return library(number, 0)


@pytest.fixture(scope="module")
def foreign_calls(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (gcc or cc) for machine code of a foreign architecture")
    folder = tmp_path_factory.mktemp("foreign")
    for place in (folder, folder.parent):
        place.chmod(0o755)
    (folder / "foreign.c").write_text(FOREIGN)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "foreign.so", folder / "foreign.c"], check=True)
    return folder


@only_x86
@pytest.mark.parametrize(
    ("function", "number"),
    [("by_int80", 20), ("by_int80", 11), ("by_syscall", 0x40000000 | 39), ("by_syscall", 0x40000000 | 520)],
)
def test_foreign_call_made_by_machine_code_ends_the_worker(foreign_calls, function, number):
    policy = load_policy("compute").replaced(name="foreign code", visible=(str(foreign_calls),))
    call = call_library(str(foreign_calls / "foreign.so"), function, number)
    crash = outcome(call, policy)
    assert isinstance(crash, WorkerCrash), crash
    assert crash.reason in (Reason.SIGNAL, Reason.DENIED_SYSCALL)
    assert crash.signal_name == "SIGSYS"
    assert f"in {'call_library'}" in crash.evidence.python_stack or not crash.evidence.python_stack


@only_x86
def test_the_same_machine_code_makes_a_call_of_this_architecture(foreign_calls):
    policy = load_policy("compute").replaced(name="foreign code", visible=(str(foreign_calls),))
    path = str(foreign_calls / "foreign.so")
    assert outcome(call_library(path, "by_syscall", 39), policy) == 2  # getpid
    assert outcome(call_library(path, "by_syscall", 39), "trusted") > 1


_PRIVATE, _SHARED, _ANONYMOUS, _GROWS_DOWN, _HUGE = 0x2, 0x1, 0x20, 0x100, 0x40000


@every_profile
@pytest.mark.parametrize("protection", [1, 3, 4, 5])
@pytest.mark.parametrize("kind", [_PRIVATE | _ANONYMOUS, _PRIVATE, _SHARED])
@pytest.mark.parametrize("uncounted", [_GROWS_DOWN, _HUGE, _GROWS_DOWN | _HUGE | 21 << 26])
def test_memory_that_no_limit_counts_is_refused(profile, protection, kind, uncounted):
    assert answer(profile, "mmap", 0, 4096, protection, kind | uncounted, -1, 0) != "allow"


@every_profile
@pytest.mark.parametrize("protection", [1, 3, 4, 5, 7])
def test_shared_memory_without_a_file_is_refused_whatever_its_protection(profile, protection):
    assert answer(profile, "mmap", 0, 4096, protection, _SHARED | _ANONYMOUS, -1, 0) != "allow"


@every_profile
@pytest.mark.parametrize("flags", [0, 0x40, 0x4000])  # none, do not wait, no signal
def test_messages_go_in_band_only(profile, flags):
    assert answer(profile, "sendmsg", 3, 0x1000, flags) == "allow"
    assert answer(profile, "sendmsg", 3, 0x1000, flags | 1) != "allow"
    assert answer(profile, "sendto", 3, 0x1000, 1, flags | 1, 0, 0) != "allow"
