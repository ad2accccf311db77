"""The system calls a worker may make, as a table with a reason for each.

Three answers: a call in BASE reaches the kernel (some only with certain arguments); a call in _SAFE_ERRNOS fails with an
errno, because honest libraries try it and go on without; every other call ends the worker, with evidence. A policy widens
the first table by the words of its `allow` list (BY_WORD); what a machine or an older libc needs is in BY_MACHINE and OLDER_LIBC.

Arguments are compared as registers only: what a pointer points to can change after the check.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import mmap
import os
import platform
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

WORKER_PID = 0x7FFFFF02
"""Stands for the worker's own process id until filter.for_process puts it in; no kernel gives out numbers this high."""

CHANNEL_FD = 3
REPORT_FD = 4
"""The socket on which the worker hands the seccomp listener to its supervisor; closed before plugin code runs."""

STACK_FD = 5
"""The pipe into which faulthandler writes the Python stacks of a dying worker."""

_LOW_32 = 0xFFFFFFFF
_FIONBIO = 0x5421  # asm-generic/ioctls.h
_CLONE_PTHREAD = 0x00000100 | 0x00000200 | 0x00000400 | 0x00000800 | 0x00010000
"""CLONE_VM, FS, FILES, SIGHAND, THREAD: all that a thread shares. One with its own descriptors would double their limit."""
_CLONE_NEVER = (
    0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x00020000 | 0x00000080 | 0x00802000
)
"""Every CLONE_NEW* flag, CLONE_NEWTIME's bit, CLONE_PTRACE and CLONE_UNTRACED."""


@dataclass(frozen=True, slots=True)
class Compare:
    """`(argument & mask) == value`, on the register with this index."""

    argument: int
    value: int
    mask: int = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Allow:
    """One call that reaches the kernel. Several rows for one name are alternatives; comparisons of a row must all hold.

    machine: the only architecture whose libc makes this call; "" for all.
    asked:   the supervisor is asked first, and lets it through or not.
    """

    name: str
    reason: str
    when: tuple[Compare, ...] = ()
    machine: str = ""
    asked: bool = False

    def fits(self, arguments: tuple[int, ...]) -> bool:
        """True when every comparison holds for these registers."""
        return all(arguments[compare.argument] & compare.mask == compare.value for compare in self.when)


def _rows(reason: str, names: str, machine: str = "") -> tuple[Allow, ...]:
    return tuple(Allow(name, reason, machine=machine) for name in names.split())


def _argument(name: str, reason: str, argument: int, allowed: Iterable[int], mask: int = _LOW_32) -> tuple[Allow, ...]:
    return tuple(Allow(name, reason, (Compare(argument, value, mask),)) for value in allowed)


_NO_EXEC = (Compare(2, 0, mmap.PROT_EXEC),)
_UNCOUNTED = 0x00100 | 0x40000
"""MAP_GROWSDOWN, which RLIMIT_DATA takes for a stack, and MAP_HUGETLB, which no memory cgroup counts: in no row for mmap."""
# Shared memory without a file is in no limit of the process: only a memory cgroup counts it.
_NOT_SHARED, _NOT_ANONYMOUS = Compare(3, 0, mmap.MAP_SHARED | _UNCOUNTED), Compare(3, 0, mmap.MAP_ANONYMOUS | _UNCOUNTED)
_IN_BAND = 2, 0, socket.MSG_OOB
"""A byte out of band makes poll(2) tell of data that is in no stream of bytes."""

BASE: tuple[Allow, ...] = (
    *_rows("the channel and opened files", "read write close lseek pread64 recvmsg"),
    *_rows("the C library's last words, such as free(): invalid pointer", "writev"),
    Allow("sendmsg", "frames and sealed memory to the host", (Compare(0, CHANNEL_FD, _LOW_32), Compare(*_IN_BAND))),
    Allow("sendmsg", "the seccomp listener to the supervisor", (Compare(0, REPORT_FD, _LOW_32), Compare(*_IN_BAND))),
    *_rows("waiting for the channel; time.sleep", "poll clock_nanosleep"),
    *_rows("poll() where there is no call of that name", "ppoll", "aarch64"),
    *_rows("the kernel makes it after a stopped process was continued", "restart_syscall"),
    *_rows("imports of pure Python modules; Landlock decides which", "openat fstat newfstatat getdents64 readlink getcwd access faccessat2"),
    *_rows("access() and readlink() where there is no call of that name", "faccessat readlinkat", "aarch64"),
    *_rows("memory of the interpreter", "munmap brk mremap madvise"),
    Allow("mmap", "private memory that is not executable", (*_NO_EXEC, _NOT_SHARED)),
    Allow("mmap", "files and sealed memory, not executable", (*_NO_EXEC, _NOT_ANONYMOUS)),
    Allow("mprotect", "memory that is not executable", _NO_EXEC),
    # No MFD_HUGETLB: a reader of huge pages that are not there dies of SIGBUS. 1 = close on exec, 2 = sealable.
    *_argument("memfd_create", "large values to the host", 1, (1, 2, 3)),
    *_argument("fcntl", "descriptor flags, duplicates, seals", 1, (
        fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_DUPFD_CLOEXEC, fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS)),
    *_rows("signal handlers, faulthandler's stack", "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack"),
    *(Allow(name, "abort() and raise() of the worker itself", (Compare(0, WORKER_PID, _LOW_32),)) for name in ("tgkill", "kill")),
    *_rows("locks of the interpreter", "futex set_robust_list rseq"),
    *_rows("what time it is, where the vDSO does not know; time that was used", "clock_gettime clock_getres times getrusage"),
    *_rows("who and where am I; harmless to know", "getpid gettid getuid geteuid getgid getegid sched_getaffinity uname"),
    Allow("prlimit64", "reading limits", (Compare(2, 0),)),
    *_argument("prctl", "names of threads", 0, (15, 16)),
    *_rows("hash seeds, random", "getrandom"),
    *_rows("the end", "exit exit_group"),
)  # fmt: skip

BY_WORD: Mapping[str, tuple[Allow, ...]] = {
    "threads": (
        Allow("clone", "pthread_create", (Compare(0, _CLONE_PTHREAD, _CLONE_PTHREAD | _CLONE_NEVER),)),
        *_rows("event loops of the standard library", "epoll_create1 epoll_ctl epoll_wait select pselect6 pipe2"),
        *_rows("epoll_wait() where there is no call of that name", "epoll_pwait", "aarch64"),
        *_rows("locks that spin a little, as OpenMP's", "sched_yield"),
        # Streams only: sendmsg on a datagram socket takes an address, and reaches any named socket the worker can see.
        Allow("socketpair", "the wake-up pair of an asyncio loop", (
            Compare(0, socket.AF_UNIX, _LOW_32), Compare(1, socket.SOCK_STREAM, _LOW_32 & ~(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)))),
        Allow("sendto", "the wake-up pair of an asyncio loop; no address", (Compare(4, 0), Compare(3, 0, socket.MSG_OOB))),
        *_rows("the wake-up pair of an asyncio loop", "recvfrom"),
        *_argument("ioctl", "setblocking() of that pair; no other command", 1, (_FIONBIO,)),
    ),
    "load_libraries": (
        *(Allow("mmap", "mapping a shared library", (Compare(2, mmap.PROT_EXEC, mmap.PROT_EXEC | mmap.PROT_WRITE), counted))
          for counted in (_NOT_SHARED, _NOT_ANONYMOUS)),
        *_rows("C code that asks for the time, where the vDSO does not know it", "gettimeofday"),
        *_rows("how much memory the machine has: sysconf(), which qsort() calls", "sysinfo"),
    ),
    "writable_code": (
        Allow("mmap", "code written at run time (JIT, ctypes callbacks)", (_NOT_SHARED,)),
        *_rows("code written at run time (JIT, ctypes callbacks)", "mprotect"),
    ),
    "scratch": (
        *_rows("files in the private /tmp", "mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 ftruncate truncate"),
        *_rows("files in the private /tmp", "pwrite64 fsync fdatasync fallocate fchmod chmod fchmodat utimensat umask statfs fstatfs chdir fchdir symlink symlinkat"),
        *_argument("fcntl", "locks of SQLite files", 1, (fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW)),
        *_rows("mapped files", "msync"),
    ),
    "processes": (
        Allow("clone", "fork; the pid namespace and the task limit hold them", (Compare(0, 0, _CLONE_NEVER),)),
        *_rows("fork and the end of children", "fork vfork wait4 waitid setsid setpgid getpgrp getppid getpgid getsid kill tgkill pipe pipe2 dup2 dup3"),
    ),
}  # fmt: skip

MEMORY_IS_COUNTED, TASKS_ARE_NOT_COUNTED = "memory_is_counted", "tasks_are_not_counted"
BY_MACHINE: Mapping[str, tuple[Allow, ...]] = {
    MEMORY_IS_COUNTED: (
        Allow("mmap", "shared memory without a file: a memory cgroup counts it", (*_NO_EXEC, Compare(3, 0, _UNCOUNTED))),
    ),
    TASKS_ARE_NOT_COUNTED: (),
}
"""Words that no policy can name: they follow from what this machine has. Without a user namespace the kernel has no count of
one worker's tasks: then the supervisor counts, and each clone() that would be allowed is asked of it first."""

OLDER_LIBC = _rows("a C library other than glibc 2.33 or newer, which makes openat and newfstatat of them", "open stat lstat faccessat nanosleep readv")
"""Allowed in addition where the C library needs them."""

_SAFE_ERRNOS: tuple[tuple[int, str, str], ...] = (
    (errno.ENOSYS, "libc falls back to clone, whose flags can be checked", "clone3"),
    (errno.ENOSYS, "newer call; libc falls back to an older one", "statx openat2 close_range membarrier io_uring_setup io_uring_enter io_uring_register"),
    (errno.ENOSYS, "older forms, which libc no longer makes", "open stat lstat faccessat nanosleep getrlimit time getcpu ppoll epoll_pwait"),
    (errno.ENOSYS, "for threads and C libraries", "select pselect6 sched_yield gettimeofday sysinfo"),
    (errno.EPERM, "the clock is the host's to set", "clock_settime"),
    (errno.ENOSYS, "NUMA and System V probes of numeric libraries", "get_mempolicy set_mempolicy mbind shmget shmat shmctl shmdt mq_open inotify_init1"),
    (errno.EPERM, "no network: sockets are the host's business", "socket connect bind listen accept accept4 setsockopt getsockopt getsockname getpeername sendmmsg recvmmsg"),
    (errno.EPERM, "sockets with an address, or other descriptors", "sendmsg sendto socketpair recvfrom shutdown"),
    (errno.EPERM, "no new processes", "clone fork vfork wait4 waitid"),
    (errno.EPERM, "no signals to others", "kill tgkill tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal pidfd_getfd"),
    (errno.EPERM, "priorities, affinity and limits are the host's to set", "sched_setaffinity sched_setscheduler sched_setparam sched_getscheduler sched_getparam getpriority setpriority ioprio_set setrlimit prlimit64"),
    (errno.EPERM, "identity does not change", "setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid getresuid getresgid getgroups capget setsid setpgid getpgrp getppid getpgid getsid"),
    (errno.EPERM, "process attributes are locked", "prctl"),
    # A timer that is left behind ends a later command by SIGALRM: a plugin's time is the host's to limit (deadline_s).
    (errno.EPERM, "no timers that send signals: code with a timeout of its own goes on without", "alarm setitimer getitimer"),
    (errno.ENOTTY, "there is no terminal and no device", "ioctl"),
    (errno.EINVAL, "other descriptor commands, other kinds of memory", "fcntl memfd_create"),
    (errno.EACCES, "memory cannot become code", "mmap mprotect pkey_mprotect"),
    (errno.EROFS, "nothing to write to", ("creat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat ftruncate truncate fallocate "
     "chmod fchmod fchmodat chown fchown lchown fchownat utime utimes utimensat futimesat pwrite64 pwritev pwritev2 fsync fdatasync msync sync_file_range flock")),
    (errno.EOPNOTSUPP, "extended attributes", "getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr"),
    (errno.EPERM, "other ways to move or wait for bytes; libraries fall back to read and write", "readv dup sendfile copy_file_range splice tee vmsplice epoll_create epoll_create1 eventfd2 pipe pipe2 dup2 dup3 umask chdir fchdir statfs fstatfs preadv preadv2 fadvise64 mlock mlock2 munlock readlinkat timerfd_create signalfd4"),
)  # fmt: skip

NEW_CALLS = range(449, 512)
"""Numbers that came after this table (futex_waitv is 449): ENOSYS, as an older kernel would answer."""


def allowed(words: Iterable[str]) -> tuple[Allow, ...]:
    """The rows for a policy's `allow` words. Raises KeyError for a word that is in neither table."""
    rows = list(BASE)
    words = frozenset(words)
    for word in sorted(words):
        rows.extend(BY_WORD[word] if word in BY_WORD else BY_MACHINE[word])
    if TASKS_ARE_NOT_COUNTED in words:
        rows = [dataclasses.replace(row, asked=True) if row.name == "clone" else row for row in rows]
    if _libc_is_older():
        rows.extend(OLDER_LIBC)
    return tuple(row for row in rows if row.machine in ("", platform.machine()))


def _libc_is_older() -> bool:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < (2, 33)
    except (ValueError, OSError):  # musl has no such name
        return True


def refused(rows: Iterable[Allow]) -> Iterator[tuple[str, int, str]]:
    """(name, errno, reason) of every call that is answered with an errno; calls allowed whatever their arguments are left out."""
    unconditional = {row.name for row in rows if not row.when}
    for number, reason, names in _SAFE_ERRNOS:
        for name in names.split():
            if name not in unconditional:
                yield name, number, reason
