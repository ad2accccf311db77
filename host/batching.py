"""A batch as the host sees it: many calls of one function, sent to a worker in one message (sandbox/batches.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from fxcell.policies import values
from fxcell.policies.calls import Call, Definition
from fxcell.policies.errors import EncodeError
from fxcell.policies.running import carries_work
from fxcell.sandbox import batches, wire
from fxcell.sandbox.area import HostArea

LONGEST_S = 0.01
"""After so many seconds a worker ends a batch: what is left of it may be better off elsewhere."""


class Batch:
    """The calls, how long the worker may take new ones of them, and what was done when the worker died.

    rows: the arguments of each call, equally many.
    """

    def __init__(self, definition: Definition, rows: Sequence[Sequence[Any]], call_s: float) -> None:
        """call_s: the deadline of one call. Raises: EncodeError."""
        self.longest_s = min(LONGEST_S, call_s / 10)
        self.packed = batches.pack(definition, rows, self.longest_s)
        self.done: list[Any] = []
        self._definition, self._rows = definition, rows

    def __len__(self) -> int:
        return len(self._rows)

    def settle(self, area: HostArea | None) -> values.Packed:
        """Read what the worker has left, which is dead: the results in `done`. Answers the call in which it ended."""
        if area is not None:
            # What is not as it should be is worth nothing, and its worker is gone already.
            with contextlib.suppress(wire.WireError):
                results = area.results(len(self) - 1)
                self.done = [] if carries_work(results) else results
        try:
            return values.pack(Call(self._definition, tuple(self._rows[len(self.done)]), {}))
        except EncodeError:  # a batch is one level less deep than a call
            return self.packed
