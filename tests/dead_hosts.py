"""The cgroups that hosts leave which were killed, or cut off: a later host takes them away."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

from fxcell.host import cgroups


def groups_of(pid: int) -> list[str]:
    """The names of a host's groups, one for each controller."""
    return sorted(name for name in _names() if name.startswith(f"fxcell-{pid}-"))


def groups_of_the_dead() -> list[str]:
    """The names of the groups of all hosts that are gone."""
    owned = [(name, re.match(r"fxcell-(\d+)-", name)) for name in _names()]
    return [name for name, match in owned if match is not None and not os.path.exists(f"/proc/{match[1]}")]


def sweep_until_gone(groups: Callable[[], list[str]], patience_s: float) -> list[str]:
    """Do what a host does that starts a minute later, until the last of them has died too; what is left all the same."""
    end = time.monotonic() + patience_s
    while groups() and time.monotonic() < end:
        cgroups.sweep(cgroups.places(), older_than_s=0)
    return groups()


def _names() -> list[str]:
    return [name for place in cgroups.places().values() for name in os.listdir(place.folder)]
