"""Sealed memory: a buffer another process can map, that nobody can change or shrink any more. memfd_create(2)."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import weakref
from collections.abc import Sequence

from fxcell.policies.errors import DecodeError
from fxcell.sandbox.kernel import libc

HUGE_FROM_BYTES = 4 * 1024 * 1024
"""From here on a copy is made on huge pages: most of the time of a large copy is the kernel's, giving out small ones."""

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype, _new_bytes.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t)
_address_of = ctypes.pythonapi.PyBytes_AsString
_address_of.restype, _address_of.argtypes = ctypes.c_void_p, (ctypes.py_object,)
_view_of = ctypes.pythonapi.PyMemoryView_FromMemory
_view_of.restype, _view_of.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_WRITABLE = 0x200  # PyBUF_WRITE

_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _libc.mmap, _libc.munmap
_mmap.restype, _mmap.argtypes = ctypes.c_void_p, (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = 2 ** (8 * ctypes.sizeof(ctypes.c_void_p)) - 1

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
    After:  the mapping holds no descriptor, and ends with the last view of it.
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
    # Not mmap.mmap(), which keeps a descriptor for each mapping: who keeps a thousand arrays could open no more files.
    address = _mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address in (None, _MAP_FAILED):
        why = os.strerror(ctypes.get_errno())
        raise DecodeError(f"memory that came with a value cannot be mapped: {why}")
    memory = (ctypes.c_ubyte * size_bytes).from_address(address)
    weakref.finalize(memory, _munmap, address, size_bytes).atexit = False
    return memoryview(memory).cast("B").toreadonly()


def unfilled(size: int) -> tuple[bytes, memoryview]:
    """Bytes of this size, above 0, whose content is yet to be written, and the view to write it through.

    Large ones are on huge pages where the kernel has some to give, which takes less than half the time.
    Before:  nobody looks at the bytes until they are written; the view is gone before they are.
    Raises:  MemoryError.
    Source:  PyBytes_FromStringAndSize(NULL, n) is the documented way to bytes yet to be filled; madvise(2), MADV_HUGEPAGE.
    """
    data: bytes = _new_bytes(None, size)
    address: int = _address_of(data)
    if size >= HUGE_FROM_BYTES:
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
        libc.attempt("madvise", ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_HUGEPAGE)
    return data, _view_of(address, size, _WRITABLE)


def copied(view: memoryview) -> bytes:
    """The same as bytes(view), faster where it is large."""
    if view.nbytes < HUGE_FROM_BYTES:
        return bytes(view)
    data, target = unfilled(view.nbytes)
    target[:] = view
    return data
