"""Take layers away from this process and all that it starts, then run a command: a machine that lacks them.

Inputs:   arguments WORD... -- COMMAND...
Words:    no-user-namespaces  unshare and clone with CLONE_NEWUSER answer EPERM, clone3 ENOSYS: sysctl, AppArmor, Docker
          no-mount            mount answers EPERM, unshare works: AppArmor's unprivileged_userns profile
          no-pivot-root       pivot_root answers EPERM
          no-mount-setattr    mount_setattr answers ENOSYS: Linux before 5.12
          no-landlock         landlock_create_ruleset answers ENOSYS: Linux before 5.13
          landlock-abi=N      the first question for Landlock's version is answered with N: an older kernel
          no-notify           seccomp(SECCOMP_GET_ACTION_AVAIL) answers EOPNOTSUPP: Linux before 5.0
          no-listener         seccomp with a listener answers EBUSY: below a supervisor that has one, such as LXD
          no-cgroups          every cgroup hierarchy is unmounted in a mount namespace of its own (root)
Outputs:  the command's. It runs in this very process: signals and the exit code are its own.
"""

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pyseccomp

from fxcell.sandbox import enforced
from fxcell.sandbox.kernel import mounts, namespaces, privileges, seccomp

_NEW_USER = 0x10000000
_SECCOMP = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
_LANDLOCK_CREATE_RULESET, _CLONE3, _MOUNT_SETATTR = 444, 435, 442
_NOTIFICATION_SEND = 0xC0182101


def number(name):
    return pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)


def take(word, program):
    def refuse(call, answer, *arguments):
        program.add_rule(pyseccomp.ERRNO(answer), call, *arguments)

    match word:
        case "no-user-namespaces":
            for call in ("unshare", "clone"):
                refuse(number(call), errno.EPERM, pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _NEW_USER, _NEW_USER))
            refuse(_CLONE3, errno.ENOSYS)
        case "no-mount":
            refuse(number("mount"), errno.EPERM)
        case "no-pivot-root":
            refuse(number("pivot_root"), errno.EPERM)
        case "no-mount-setattr":
            refuse(_MOUNT_SETATTR, errno.ENOSYS)
        case "no-landlock":
            refuse(_LANDLOCK_CREATE_RULESET, errno.ENOSYS)
        case "no-notify":
            refuse(_SECCOMP, errno.EOPNOTSUPP, pyseccomp.Arg(0, pyseccomp.EQ, 2))
        case "no-listener":
            refuse(
                _SECCOMP, errno.EBUSY, pyseccomp.Arg(0, pyseccomp.EQ, 1), pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 8, 8)
            )
        case _:
            raise SystemExit(f"there is no layer to take away by the name {word!r}")


def unmount_cgroups():
    namespaces.unshare(["mount"])
    mounts.make_private()
    libc = ctypes.CDLL(None, use_errno=True)
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for words in reversed(lines):
        if words[words.index("-") + 1] in ("cgroup", "cgroup2") and libc.umount2(words[4].encode(), 2):
            raise OSError(ctypes.get_errno(), f"umount {words[4]}")


def answer_version(version):
    """Start a process that answers the next question for Landlock's version, then closes the listener.

    The kernel takes no second listener below an open one, so it must be gone before a worker installs its own: the
    program that asked forks and mounts for some milliseconds in between.
    """
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        (listener,) = array.array("i", theirs.recvmsg(1, socket.CMSG_SPACE(4))[1][0][2])
        theirs.close()
        sys.stdin.close()
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        call = seccomp.receive(listener)
        fcntl.ioctl(listener, _NOTIFICATION_SEND, struct.pack("=QqiI", call.id, version, 0, 0))
        os.close(listener)
        os._exit(0)
    theirs.close()
    ask_version = 0x06, 0, 0, 0x7FC00000
    rows = (
        (0x20, 0, 0, 0), (0x15, 0, 3, _LANDLOCK_CREATE_RULESET), (0x20, 0, 0, 16 + 2 * 8), (0x15, 0, 1, 1), ask_version,
        (0x06, 0, 0, 0x7FFF0000),
    )  # fmt: skip
    privileges.set_no_new_privs()
    enforced.send_listener(ours, seccomp.install_filter(b"".join(struct.pack("=HBBI", *row) for row in rows)))


def main():
    where = sys.argv.index("--")
    words, command = sys.argv[1:where], sys.argv[where + 1 :]
    if "no-cgroups" in words:
        words.remove("no-cgroups")
        unmount_cgroups()
    for word in [word for word in words if word.startswith("landlock-abi=")]:
        words.remove(word)
        answer_version(int(word.partition("=")[2]))
    if words:
        program = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        for word in words:
            take(word, program)
        program.load()
    os.execv(command[0], command)


def run_without(words, command, **options):
    """Start the command on such a machine: for tests."""
    whole = [sys.executable, __file__, *words, "--", *map(str, command)]
    return subprocess.Popen(whole, cwd=Path(__file__).parents[2], **options)


if __name__ == "__main__":
    main()
