"""The rules of effects that read or remove files: ReadFile, ListDirectory, DeleteFile. WriteFile's is in write_rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import MiB
from fxcell.policies.names import short
from fxcell.policies.rule import byte_count
from fxcell.policies.under_rule import UnderRule

MAX_ENTRIES = 100_000
"""The most names that a policy can let one listing hold."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileRule(UnderRule):
    """Files below these directories, up to a size.

    under:     absolute directories; everything below them is granted, they themselves are not.
    max_bytes: size of one file.
    """

    nested: ClassVar[bool] = True

    max_bytes: int = 16 * MiB

    def __post_init__(self) -> None:
        UnderRule.__post_init__(self)
        byte_count("max_bytes", self.max_bytes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ListRule(UnderRule):
    """Listings of these directories and of all below them.

    under:       absolute directories, themselves included.
    max_entries: names in one directory, from 1 to 100,000.
    """

    itself: ClassVar[bool] = True
    nested: ClassVar[bool] = True

    max_entries: int = 1000

    def __post_init__(self) -> None:
        UnderRule.__post_init__(self)
        count_of("max_entries", self.max_entries, MAX_ENTRIES)


def count_of(name: str, value: object, high: int) -> None:
    """Raise PolicyError unless the value is a whole number from 1 to `high`."""
    if type(value) is not int or not 1 <= value <= high:
        raise PolicyError(f"{name} must be a whole number from 1 to {high:,}, got {short(value)}", at=(name,))
