"""openat2(2): open below a directory and nowhere else.

Not made through fxcell.sandbox.kernel.libc, which keeps the interpreter lock during a call: a path on a network file
system can take seconds to open, and the host has other threads.
"""

from __future__ import annotations

import ctypes
import errno
import os

from fxcell.policies.errors import KernelRefused

_OPENAT2 = 437  # the same on every architecture
# include/uapi/linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
_ATTEMPTS = 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_beneath(directory: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open a path that must stay below a directory and go through no symbolic link; answer a descriptor.

    directory: descriptor of a directory; O_PATH is enough.
    path:      relative, without NUL. Mount points on the way are followed: whoever granted a tree granted what is
               mounted in it (volumes, bind mounts), hence no RESOLVE_NO_XDEV.
    mode:      permission bits of a new file, less the umask; 0 unless the flags make one.
    After:     the descriptor is closed on exec.
    Raises:    KernelRefused - EXDEV: it leaves the directory; ELOOP: a symbolic link; ENOSYS: Linux before 5.6.
    Source:    openat2(2), Linux 5.6.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    number = errno.EAGAIN
    for _ in range(_ATTEMPTS):
        descriptor: int = _libc.syscall(
            _OPENAT2, directory, ctypes.c_char_p(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: something was renamed while ".." was being resolved
            break
    raise KernelRefused("open a file below a granted directory", number, "openat2")
