"""The words of a policy's `allow` list: each opens one group of system calls, and nothing else does.

What a word means in system calls is in fxcell.sandbox.syscalls; the two tables have the same keys. Words in NEVER exist
only to say why no policy can hold them.
"""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "threads": "Opens pthread_create, epoll and the wake-up pair of an asyncio loop; does not raise the limits on "
    "tasks, CPU or memory, and opens no process.",
    "load_libraries": "Opens mapping files as executable memory, which C extensions and ctypes need; does not open "
    "writable code, and only files that the worker may read can be mapped.",
    "writable_code": "Opens memory that is written and then executed (JIT compilers, ctypes callbacks), so injected "
    "machine code is no longer stopped from running; every other layer still holds it.",
    "scratch": "Opens creating, writing, renaming and locking files in a private /tmp of scratch_bytes that ends with "
    "the worker; does not open any file of the host.",
    "processes": "Opens fork, waiting for children and signals inside the worker's own pid namespace, up to the limit "
    "`processes`; does not open exec of a program or signals to anything outside.",
}
"""Word -> what exactly it opens and what it does not."""

NEVER: Mapping[str, str] = {
    "ptrace": "it reads and writes the memory of other processes",
    "mount": "it changes what the worker's root directory shows",
    "namespaces": "a new user namespace opens most of the kernel's attack surface",
    "bpf": "it runs programs inside the kernel",
    "keyctl": "kernel keyrings belong to the user, not to the worker",
    "kexec": "it replaces the kernel",
    "modules": "it adds code to the kernel",
    "listener": "a seccomp listener of the worker's own could answer in place of the host's",
    "tiocsti": "it types into the terminal of the host's user",
    "io_uring": "its operations are not seen by the seccomp filter",
    "userfaultfd": "it stops the kernel in the middle of a copy, which exploits need",
    "perf": "performance counters watch other processes and the kernel",
    "privileges": "capabilities and user ids are what every other layer relies on",
    "network": "a worker has no sockets; grant effects.HTTPRequest and the host asks on its behalf",
    "files": "a worker opens no files of the host for writing; use `visible`, effects.ReadFile, effects.WriteFile or the "
    "word scratch",
}
"""Word -> why it can never be granted."""
