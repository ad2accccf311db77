"""Tries to get at other processes, and to make more of its own."""

from __future__ import annotations

import os
from typing import Any


def fork(do: Any) -> None:
    """Become two."""

    def act() -> int:
        child = os.fork()
        if child == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    do("fork", act)


def leave_a_daemon(do: Any) -> None:
    """Fork twice and leave the session, so that the grandchild outlives its parents."""

    def act() -> int:
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    import time

                    time.sleep(3600)
            finally:
                os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    do("daemon", act)


def run_program(do: Any, path: str) -> None:
    """Become another program."""
    do("execve", lambda: os.execv(path, [path]))  # noqa: S606 - the attack


def run_memory(do: Any) -> None:
    """Become a program that is only in memory."""

    def act() -> None:
        descriptor = os.memfd_create("program")
        try:
            with open("/bin/true", "rb") as program:
                os.write(descriptor, program.read())
            os.execve(descriptor, ["program"], {})  # noqa: S606 - the attack
        finally:
            os.close(descriptor)

    try:
        do("execve of memory", act)
    except FileNotFoundError:
        do.refused.append(["read /bin/true", "ENOENT"])


def run_empty_memory(do: Any, number: int) -> None:
    """The same by number, with AT_EMPTY_PATH."""
    import ctypes

    descriptor = os.memfd_create("program")
    os.write(descriptor, b"#!/bin/true\n")
    empty, none = ctypes.c_char_p(b""), ctypes.c_void_p()
    do.syscall("execveat", number, descriptor, empty, none, none, 0x1000)


def shell(do: Any) -> None:
    """Start a shell the way most code does."""

    def act() -> bytes:
        import subprocess

        return subprocess.run(["/bin/sh", "-c", "echo out"], capture_output=True, check=True).stdout

    do("subprocess", act)


def kill(do: Any, pid: int, number: int) -> None:
    """Send a signal."""
    do(f"kill {pid}", lambda: os.kill(pid, number))


def kill_by_descriptor(do: Any, pid: int) -> None:
    """Send SIGKILL through a pidfd."""
    import signal

    do("pidfd_open and pidfd_send_signal", lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL))


def read_memory(do: Any, pid: int, address: int, number: int) -> None:
    """Read the secret from the memory of another process."""
    import ctypes
    import struct

    buffer = ctypes.create_string_buffer(64)
    local = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(buffer), 64))
    remote = ctypes.create_string_buffer(struct.pack("=QQ", address, 64))
    do.syscall("process_vm_readv", number, pid, local, 1, remote, 1, 0)
    if buffer.value:
        do.did.append(f"read {buffer.value.decode(errors='replace')}")


def read_proc(do: Any, pid: int, address: int) -> None:
    """Read its memory and its environment through /proc."""

    def memory() -> str:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
            file.seek(address)
            return file.read(64).decode(errors="replace")

    def environ() -> str:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().decode(errors="replace")[-60:]

    do("/proc/PID/mem", memory)
    do("/proc/PID/environ", environ)


def starve(do: Any, pid: int) -> None:
    """Take away what another process may use: descriptors and priority."""
    import resource

    do("prlimit", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (16, 16)))
    do("setpriority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
