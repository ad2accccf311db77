"""Tries single system calls by number, and machine code for those that have none on this architecture."""

from __future__ import annotations

from typing import Any


def call(do: Any, name: str, number: int, arguments: list[int]) -> None:
    """Make one system call with these registers."""
    do.syscall(name, number, *arguments)


def new_user_by_clone(do: Any, number: int) -> None:
    """Fork into a user namespace of its own, where it would be root."""
    import os

    if do.syscall("clone(CLONE_NEWUSER)", number, 0x10000000 | 17, 0, 0, 0, 0) == 0:
        os._exit(0)


def undo_lockdown(do: Any, number: int) -> None:
    """Take back what prctl(2) set: dumpable, speculation, who may trace it, capabilities to keep."""
    for name, option, value in (
        ("PR_SET_DUMPABLE", 4, 1),
        ("PR_SET_KEEPCAPS", 8, 1),
        ("PR_SET_PTRACER", 0x59616D61, -1),
        ("PR_SET_SECCOMP", 22, 1 << 20),
        ("PR_CAP_AMBIENT", 47, 4),
        ("PR_SET_MM", 35, 1 << 20),
    ):
        do.syscall(name, number, option, value, 0, 0, 0)


def raise_limits(do: Any) -> None:
    """Ask for no limits."""
    import resource

    for name in ("RLIMIT_NOFILE", "RLIMIT_DATA", "RLIMIT_CORE", "RLIMIT_STACK"):
        kind, none = getattr(resource, name), resource.RLIM_INFINITY

        def act(kind: int = kind, none: int = none) -> str:
            try:
                resource.setrlimit(kind, (none, none))
            except ValueError as error:  # Python's word for a hard limit in the way
                raise PermissionError(1, str(error)) from error
            return "raised"

        do(name, act)


def type_into_the_terminal(do: Any, number: int) -> None:
    """TIOCSTI and TIOCLINUX, also with bits above 32 that only some filters look at."""
    for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C)):
        for disguise in (0, 1 << 32):
            for descriptor in (0, 1, 2):
                do.syscall(f"{name} + {disguise:#x}", number, descriptor, request | disguise, 0)


def _machine_code(code: bytes) -> Any:
    import ctypes
    import mmap

    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return ctypes.CFUNCTYPE(ctypes.c_long)(address), memory


def run_written_memory(do: Any) -> None:
    """Write machine code and run it: `mov eax, 7; ret`."""

    def act() -> Any:
        function, _memory = _machine_code(b"\xb8\x07\0\0\0\xc3")
        return function()

    do("memory that is writable and executable", act)


def call_32_bit(do: Any) -> None:
    """Call getpid by int 0x80, whose numbers are those of another architecture: from a file, as memory is mostly not code."""
    import ctypes
    import mmap
    import os

    addresses = []

    def map_it() -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        descriptor = os.memfd_create("code")
        os.write(descriptor, b"\x53\xb8\x14\0\0\0\xcd\x80\x5b\xc3")
        address = libc.mmap(
            None, ctypes.c_size_t(4096), mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, descriptor, ctypes.c_long(0)
        )
        os.close(descriptor)
        if address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")
        addresses.append(address)
        return "mapped"

    # Where even this is refused the call is never made, and the report says so: what it names is the mapping.
    if do("map the code of it", map_it):
        do.did.clear()
        do("int 0x80", ctypes.CFUNCTYPE(ctypes.c_long)(addresses[0]))


def call_x32(do: Any) -> None:
    """Call getpid with the x32 bit, which filters by number alone take for another call. It needs no code of its own."""
    do.syscall("x32 getpid", 0x40000000 | 39)
