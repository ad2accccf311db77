"""ListDirectory: the names in one directory below a granted one, with kinds and sizes."""

from __future__ import annotations

import os
import stat
from typing import Any

from fxcell.host.effects.beneath import DIRECTORY_FLAGS, granted
from fxcell.host.effects.context import Context, pace_of
from fxcell.host.effects.file_errors import failed, reported
from fxcell.host.effects.openat2 import open_beneath
from fxcell.policies.builtin import ListDirectory
from fxcell.policies.file_rule import MAX_ENTRIES
from fxcell.policies.under_rule import OWN_PREFIX

_CHECK_EVERY = 256
_OWN = OWN_PREFIX.encode()


def perform_list_directory(effect: ListDirectory, context: Context) -> list[dict[str, Any]]:
    """Answer one dict per name, sorted by the bytes of the names; what is removed meanwhile is left out.

    Raises: EffectFailed - not_found: no such directory; too_large: more names than the cap; permission, bad_request, busy,
            unsupported, timeout, cancelled.
    """
    pace = pace_of(effect, context)
    pace.check()
    rows: list[tuple[bytes, dict[str, Any]]] = []
    with reported(effect), granted(effect, context) as place:
        most = MAX_ENTRIES if place.rule is None else place.rule.max_entries
        directory = open_beneath(place.root, b"/".join(place.parts) or b".", DIRECTORY_FLAGS)
        try:
            with os.scandir(directory) as entries:
                for number, entry in enumerate(entries):
                    if number % _CHECK_EVERY == 0:
                        pace.check()
                    name = os.fsencode(entry.name)
                    row = None if name.startswith(_OWN) else _row(name, entry)
                    if row is None:
                        continue
                    if len(rows) == most:
                        raise failed(effect, "too_large", f"the directory holds more than {most} names")
                    rows.append((name, row))
        finally:
            os.close(directory)
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def _row(name: bytes, entry: os.DirEntry[str]) -> dict[str, Any] | None:
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    regular = stat.S_ISREG(found.st_mode)
    kind = "file" if regular else "directory" if stat.S_ISDIR(found.st_mode) else "other"
    return {"name": _text(name), "kind": kind, "size_bytes": found.st_size if regular else None}


def _text(name: bytes) -> str | bytes:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name
