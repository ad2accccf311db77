"""ReadFile: one regular file below a granted directory, opened so that neither link nor race leads elsewhere."""

from __future__ import annotations

import os
import stat

from fxcell.host.effects.context import Context, Pace, pace_of
from fxcell.host.effects.file_errors import failed, reported
from fxcell.host.effects.openat2 import open_beneath
from fxcell.policies import rules
from fxcell.policies.builtin import ReadFile
from fxcell.policies.errors import EffectFailed
from fxcell.policies.file_rule import FileRule

HOST_MAX_BYTES = 1024 * 1024 * 1024
"""The cap where no policy gives one: a file that the host reads for itself."""

_CHUNK_BYTES = 1024 * 1024
# O_NONBLOCK: should the path become a FIFO between look and open, the open does not wait for a writer.
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

def perform_read_file(effect: ReadFile, context: Context) -> bytes:
    """Answer the whole file; it is read once and never longer than the cap, even while another process appends to it.

    Raises: EffectFailed - not_found, not_regular, too_large, permission, bad_request, unsupported, timeout, cancelled.
            The texts name the path as the plugin gave it, nothing else of the host.
    """
    pace = pace_of(effect, context)
    pace.check()
    with reported(effect):
        descriptor, max_bytes = _open(effect, context)
        try:
            return _read(descriptor, max_bytes, effect, pace)
        finally:
            os.close(descriptor)


def _open(effect: ReadFile, context: Context) -> tuple[int, int]:
    """A descriptor of the file, which is regular, and the cap for its size."""
    if context.policy is None:
        return _checked(os.open(effect.path, _READ_FLAGS), effect), HOST_MAX_BYTES
    rule = context.policy.effects["ReadFile"]
    assert isinstance(rule, FileRule)
    root, relative = rules.granted_root(context.policy, effect.path)
    path = relative.encode()  # not the file system's encoding: the rules have judged UTF-8
    if b"\0" in path:
        raise ValueError("NUL byte")
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A look first: opening a FIFO would wake its writer, opening a device can do anything.
        os.close(_checked(open_beneath(directory, path, os.O_PATH), effect))
        return _checked(open_beneath(directory, path, _READ_FLAGS), effect), rule.max_bytes
    finally:
        os.close(directory)


def _checked(descriptor: int, effect: ReadFile) -> int:
    """The descriptor, when it is of a regular file; otherwise it is closed. Raises EffectFailed(not_regular)."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise failed(effect, "not_regular", "it is not a regular file")
    return descriptor


def _read(descriptor: int, max_bytes: int, effect: ReadFile, pace: Pace) -> bytes:
    # st_size is 0 for files of /proc and grows for a log, so what is read counts as well.
    if os.fstat(descriptor).st_size > max_bytes:
        raise _too_large(effect, max_bytes)
    content = bytearray()
    while piece := os.read(descriptor, min(_CHUNK_BYTES, max_bytes + 1 - len(content))):
        content += piece
        if len(content) > max_bytes:
            raise _too_large(effect, max_bytes)
        pace.check()
    return bytes(content)


def _too_large(effect: ReadFile, max_bytes: int) -> EffectFailed:
    return failed(effect, "too_large", f"it is over {max_bytes} bytes")
