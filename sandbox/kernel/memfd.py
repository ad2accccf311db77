"""Sealed memory: a buffer another process can map, that nobody can change or shrink any more. memfd_create(2)."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Sequence

from fxcell.policies.errors import DecodeError
from fxcell.sandbox.kernel import libc

HUGE_FROM_BYTES = 4 * 1024 * 1024
"""From here on a copy is made on huge pages: most of the time of a large copy is the kernel's, giving out small ones."""

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype, _new_bytes.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t)
_address_of = ctypes.pythonapi.PyBytes_AsString
_address_of.restype, _address_of.argtypes = ctypes.c_void_p, (ctypes.py_object,)
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def create(parts: Sequence[memoryview]) -> int:
    """A sealed memfd that holds the parts one after another; answer its descriptor, which the caller closes."""
    descriptor = os.memfd_create("fxcell-value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for part in parts:
            rest = part
            while rest.nbytes:
                rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def map_sealed(descriptor: int, *, size_bytes: int) -> memoryview:
    """Map sealed memory of exactly size_bytes read-only.

    The seals are checked before the mapping: without F_SEAL_SHRINK the sender could cut the file and kill the reader
    with SIGBUS, without F_SEAL_WRITE it could change a value after it was checked.
    Raises: DecodeError - not a memfd, seals missing, or another size.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise DecodeError("a descriptor that came with a value is not sealed memory") from error
    if seals & _SEALS != _SEALS:
        raise DecodeError(f"memory that came with a value lacks seals (has {seals:#x}, needs {_SEALS:#x})")
    actual = os.fstat(descriptor).st_size
    if actual != size_bytes:
        raise DecodeError(f"memory that came with a value has {actual} bytes, the message says {size_bytes}")
    try:
        return memoryview(mmap.mmap(descriptor, size_bytes, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED))
    except (OSError, ValueError) as error:
        raise DecodeError(f"memory that came with a value cannot be mapped: {error}") from error


def copied(view: memoryview) -> bytes:
    """The same as bytes(view), in less than half the time where it is large and the kernel has huge pages to give.

    Source: madvise(2), MADV_HUGEPAGE; PyBytes_FromStringAndSize(NULL, n) is the documented way to bytes yet to be filled.
    """
    size = view.nbytes
    if size < HUGE_FROM_BYTES:
        return bytes(view)
    data: bytes = _new_bytes(None, size)
    address: int = _address_of(data)
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    libc.attempt("madvise", ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_HUGEPAGE)
    (ctypes.c_char * size).from_address(address).raw = view  # type: ignore[assignment]
    return data
