"""Speaks to the host on the channel itself: what is no frame, and what nobody asked for; and asks for effects."""

from __future__ import annotations

import os
import time
from typing import Any

from fxcell import FX, run


def write(do: Any, data: bytes) -> None:
    """Write bytes to the channel, then wait."""
    os.write(3, data)
    time.sleep(3600)
    do.did.append("believed")


def answer(do: Any, kind: str, number: int) -> None:
    """Send a well-formed message that is not due."""
    from fxcell.policies import values

    runner: Any = run
    runner.channel.send_value(kind, number, values.pack("forged"))
    time.sleep(3600)
    do.did.append("believed")


def push_descriptors(do: Any) -> None:
    """Send descriptors that nobody asked for."""
    from fxcell.sandbox import wire

    message = wire.Message.new_message()
    message.init("output").stream = 1
    runner: Any = run
    runner.channel.send(message, [0, 0, 0])
    time.sleep(3600)
    do.did.append("believed")


def changing_memory(do: Any) -> None:
    """Send a result in memory that it could still change while the host reads."""
    from fxcell.sandbox import wire

    runner: Any = run
    descriptor = os.memfd_create("unsealed")
    os.write(descriptor, bytes(100_000))
    message = wire.Message.new_message(id=runner.command)  # the right answer to what was asked, but for the seals
    value = message.init("result")
    value.body, value.buffers = b"\xc0", [100_000]
    runner.channel.send(message, [descriptor])
    time.sleep(3600)
    do.did.append("believed")


def close(do: Any) -> None:
    """Close the channel and go on."""
    os.close(3)
    time.sleep(3600)
    do.did.append("went on")


def ask(do: Any, effect: str, fields: dict[str, Any]) -> None:
    """Ask the host for an effect."""
    do.did.append(repr(getattr(FX, effect)(**fields) | run))


def start_worker(do: Any) -> None:
    """Ask the host for a worker without a sandbox."""
    do.did.append(repr(FX.StartWorkerProcess(policy="trusted") | run))
