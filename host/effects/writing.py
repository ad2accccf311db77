"""WriteFile and DeleteFile: regular files below a granted directory, within the rule's quotas.

    lock of the granted directory -> parent, no link followed -> what stands there -> quotas, counted on disk -> write

The lock makes counting and writing one step: two workers, or two hosts, cannot both have the last of a quota. It is the
granted directory's; where two policies grant directories one inside the other, each keeps its own quota only.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from fxcell.host.effects.beneath import Granted, descend, granted, look, made, sync_directory
from fxcell.host.effects.context import Context, Pace, pace_of
from fxcell.host.effects.drafts import draft
from fxcell.host.effects.file_errors import failed, reported
from fxcell.host.effects.openat2 import open_beneath
from fxcell.host.effects.usage import alone, measure
from fxcell.policies.builtin import DeleteFile, WriteFile
from fxcell.policies.write_rule import WriteRule

_CHUNK_BYTES = 1024 * 1024
_NAME_LOOKS = 16
_CHANGED = "another process changed the file in that moment"
# O_NONBLOCK: should a FIFO take the file's place, the open does not wait for a reader.
_APPEND_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY


class _Plan(NamedTuple):
    """What a write would change. found: the file that is there. size: of the file afterwards, in bytes."""

    found: os.stat_result | None
    missing: list[bytes]
    size: int


def perform_write_file(effect: WriteFile, context: Context) -> None:
    """Write the whole content, on disk when it returns, or change nothing but parents that were made.

    Raises: EffectFailed - exists, not_found, not_regular, too_large, quota, permission, no_space, bad_request, busy,
            unsupported, unmeasurable, timeout, cancelled. After a timeout the file may have been written.
    """
    pace = pace_of(effect, context)
    pace.check()
    with reported(effect), granted(effect, context) as place:
        if place.rule is None:  # the host for itself: no quota, and nobody else to wait for
            _write(effect, place, pace)
            return
        with alone(place.root, pace):
            _write(effect, place, pace)


def perform_delete_file(effect: DeleteFile, context: Context) -> None:
    """Remove the name of a regular file. Put there in that very moment, a link is removed itself, never what it leads to.

    Raises: EffectFailed - not_found, not_regular, permission, bad_request, timeout, cancelled.
    """
    pace = pace_of(effect, context)
    pace.check()
    with reported(effect), granted(effect, context) as place, descend(place.root, place.parts[:-1]) as (parent, missing):
        name = place.parts[-1]
        if missing or look(effect, parent, name) is None:
            raise failed(effect, "not_found", "there is no such file")
        os.unlink(name, dir_fd=parent)
        sync_directory(parent)


def _write(effect: WriteFile, place: Granted, pace: Pace) -> None:
    name = place.parts[-1]
    with descend(place.root, place.parts[:-1]) as (parent, missing):
        if missing and not (place.rule and place.rule.create_parents):
            raise failed(effect, "not_found", "a directory on the way to it is missing, and the rule makes none")
        plan = _planned(effect, None if missing else look(effect, parent, name), missing)
        if place.rule is not None:
            _check_quotas(effect, plan, place.root, place.rule, pace)
        with made(parent, missing, pace) as directory:
            if effect.mode == "append" and plan.found is not None:
                _append(effect, directory, name, plan, pace)
            else:
                _write_new(effect, directory, name, plan, pace)


def _planned(effect: WriteFile, found: os.stat_result | None, missing: list[bytes]) -> _Plan:
    if found is None:
        return _Plan(None, missing, len(effect.content))
    if effect.mode == "create":
        raise failed(effect, "exists", "something of that name is there already")
    if not found.st_mode & 0o200:  # also for root, whom the kernel would let write
        raise failed(effect, "permission", "the file is write-protected")
    if effect.mode == "append":
        _refuse_links(effect, found)
        return _Plan(found, missing, found.st_size + len(effect.content))
    return _Plan(found, missing, len(effect.content))


def _refuse_links(effect: WriteFile, found: os.stat_result) -> None:
    if found.st_nlink > 1:
        text = "the file has several names (hard links), so an append would change it in other places too"
        raise failed(effect, "permission", text)


def _refuse_other_names(effect: WriteFile, descriptor: int, parent: int, name: bytes) -> None:
    """Raise unless the file has this name and no other.

    The kernel tells the number of names and what a name leads to one after the other. A file that has a second name for
    good passes only if its name here goes between each of these questions and the next, and is back for the one after.
    """
    for _ in range(_NAME_LOOKS):
        # rename(2) over a name counts it out some time before the name is gone, and holds the file's lock until then
        # (vfs_rename in fs/namei.c). Removing an attribute waits for that lock; nothing has this one.
        with contextlib.suppress(OSError):
            os.removexattr(descriptor, "user.fxcell-none")
        found = os.fstat(descriptor)
        _refuse_links(effect, found)
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino):
            raise failed(effect, "busy", _CHANGED)


def _check_quotas(effect: WriteFile, plan: _Plan, root: int, rule: WriteRule, pace: Pace) -> None:
    if plan.size > rule.max_bytes:
        text = f"it would have {plan.size:,} bytes, over effects.WriteFile.max_bytes = {rule.max_bytes}"
        raise failed(effect, "too_large", text)
    usage = measure(root, rule.max_files, pace)
    if usage.files + (plan.found is None) + len(plan.missing) > rule.max_files:
        text = f"the granted directory would hold more than effects.WriteFile.max_files = {rule.max_files}"
        raise failed(effect, "quota", text)
    before = 0 if plan.found is None else plan.found.st_size
    if usage.total_bytes - before + plan.size > rule.quota_bytes:
        text = f"the granted directory would hold more than effects.WriteFile.quota_bytes = {rule.quota_bytes}"
        raise failed(effect, "quota", text)
    pace.check()


def _write_new(effect: WriteFile, parent: int, name: bytes, plan: _Plan, pace: Pace) -> None:
    with draft(parent) as new:
        if plan.found is not None:
            os.fchmod(new.descriptor, os.fstat(new.descriptor).st_mode & plan.found.st_mode & 0o777)
        _write_all(new.descriptor, effect.content, pace)
        # The mode "append" makes a file only where there is none, so one that came meanwhile is not replaced.
        if effect.mode == "replace":
            new.replace(name)
        else:
            new.create(name)


def _append(effect: WriteFile, parent: int, name: bytes, plan: _Plan, pace: Pace) -> None:
    descriptor = open_beneath(parent, name, _APPEND_FLAGS)
    try:
        found, looked = os.fstat(descriptor), plan.found
        if looked is None or (found.st_dev, found.st_ino, found.st_size) != (looked.st_dev, looked.st_ino, looked.st_size):
            raise failed(effect, "busy", _CHANGED)
        _refuse_other_names(effect, descriptor, parent, name)
        try:
            _write_all(descriptor, effect.content, pace)
            os.fsync(descriptor)
        except BaseException:
            os.ftruncate(descriptor, found.st_size)
            raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes, pace: Pace) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest[:_CHUNK_BYTES]) :]
        pace.check()
