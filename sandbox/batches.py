"""Many calls of one function in one message: what is in it, and how a worker goes through them.

    [digest, name, seconds, arguments per call, arguments of all calls one after another]

A result that is plain and small goes to the area (area.py); the last call that a worker makes is answered by an ordinary
result or failure. It is the last of the batch, or one that did more than compute (asked for an effect, wrote output, raised,
has a large result), or the one in which the seconds of the batch ran out. What the host has not heard of was not begun.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fxcell.policies import calls, values
from fxcell.policies.errors import InternalError
from fxcell.policies.running import holds_work
from fxcell.policies.value_types import SCALARS
from fxcell.sandbox import code
from fxcell.sandbox.area import WorkerArea
from fxcell.sandbox.runtime import WorkerRunner


def pack(definition: calls.Definition, rows: Sequence[Sequence[Any]], seconds: float) -> values.Packed:
    """The body of a batch message. rows: the arguments of each call, equally many, at least one. Raises: EncodeError."""
    width = len(rows[0])
    flat = [row[0] for row in rows] if width == 1 else [argument for row in rows for argument in row]
    packed = values.pack([definition.digest, definition.name, seconds, width, flat])
    packed.definitions[definition.digest] = definition
    return packed


def go_through(batch: list[Any], run: WorkerRunner, area: WorkerArea) -> Any:
    """Call after call; answers the result of the last one, which is not in the area. Raises what that one raised."""
    digest, name, seconds, width, arguments = batch
    definition = calls.known_definition(digest, name)
    if definition.function is None:
        definition.function = code.load(definition)
    function, channel = definition.function, run.channel
    end_s, acts, put = time.monotonic() + seconds, channel.acts, area.begin()
    last = len(arguments) // width
    for row in zip(*[iter(arguments)] * width, strict=True):
        result = function(*row)
        if type(result) not in SCALARS and holds_work(result):
            result = run(result)
        last -= 1
        if not last or channel.acts != acts or time.monotonic() >= end_s or not put(result):
            return result
    raise InternalError("the host sent a batch without calls")
