"""The account of a run of chaos: which command has which kind, and whether its outcome and its effects are right."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import random
import threading
from collections.abc import Iterator
from typing import Any

from fxcell import PluginError, Reason, WorkerCrash

COMMANDS = int(os.environ.get("FXCELL_CHAOS_COMMANDS", "300"))
SEED = int(os.environ.get("FXCELL_CHAOS_SEED", "0")) or (
    20_260_101 if COMMANDS <= 1000 else random.SystemRandom().getrandbits(32)
)

KINDS = {
    # name: (weight, effects that one command asks for)
    "plain": (30, 0),
    "effect": (20, 1),
    "two effects": (15, 2),
    "coroutine": (5, 1),
    "work": (15, 1),
    "large": (8, 1),
    "raise": (5, 1),
    "exit": (2, 1),
}
NAMES = list(KINDS)
PARTS = 2

ANSWERED, RAISED, CANCELLED = "answered", "raised", "cancelled"
OUTCOMES = ["", ANSWERED, RAISED, CANCELLED, *Reason]
PLAUSIBLE = {Reason.KILLED_EXTERNALLY, Reason.DEADLINE, Reason.CONNECTION_LOST}
"""What the chaos can be the reason of; EXITED besides, of the one kind that exits."""


class Ledger:
    """What became of each command: in arrays made beforehand, so that the ledger itself does not grow."""

    def __init__(self) -> None:
        chosen = random.Random(SEED).choices(range(len(NAMES)), [weight for weight, _ in KINDS.values()], k=COMMANDS)
        self.kinds = bytes(chosen)
        self.outcomes = bytearray(COMMANDS)
        self.performed = bytearray(COMMANDS * PARTS)
        self.lock = threading.Lock()
        self.accounted = 0
        self.wrong: list[str] = []

    def perform(self, number: int, part: int) -> int:
        with self.lock:
            self.performed[number * PARTS + part] += 1
        return number + part

    def close(self, number: int, outcome: Any) -> None:
        """Account for one command."""
        word, wrong = self.judged(number, outcome)
        with self.lock:
            if self.outcomes[number]:
                wrong = "it had an outcome already"
            self.outcomes[number] = OUTCOMES.index(word)
            self.accounted += 1
            if wrong:
                self.wrong.append(f"{number}, {self.kind(number)}: {wrong}: {outcome!r:.300}")

    def judged(self, number: int, outcome: Any) -> tuple[str, str]:
        kind = self.kind(number)
        parts = self.performed[number * PARTS : (number + 1) * PARTS]
        asked, done = KINDS[kind][1], sum(parts)
        again = "an effect was performed twice" if max(parts) > 1 else ""
        if isinstance(outcome, WorkerCrash):
            told = outcome.evidence.effects_performed
            if outcome.reason not in PLAUSIBLE | ({Reason.EXITED} if kind == "exit" else set()):
                return outcome.reason, "no reason that the chaos can give"
            return outcome.reason, again or ("" if done <= told <= asked else f"{done} effects, {told} in the evidence")
        if isinstance(outcome, asyncio.CancelledError | concurrent.futures.CancelledError):
            return CANCELLED, again
        missing = "" if done == asked else f"{done} of {asked} effects were performed"
        if isinstance(outcome, PluginError):
            return RAISED, again or missing or ("" if kind == "raise" else "it does not raise")
        right = kind not in ("raise", "exit") and outcome == expected(number, kind)
        return ANSWERED, again or missing or ("" if right else "not its result")

    def fits_exactly(self, number: int, error: Any) -> bool:
        """True for a crash whose evidence tells of as many effects as this command has had."""
        done = sum(self.performed[number * PARTS : (number + 1) * PARTS])
        return isinstance(error, WorkerCrash) and error.evidence.effects_performed == done

    def kind(self, number: int) -> str:
        return NAMES[self.kinds[number]]

    def numbers(self) -> Iterator[list[int]]:
        """Commands in handfuls, each to one thread. Safe from many threads."""
        while True:
            with self.lock:
                start = self.taken = getattr(self, "taken", 0)
                self.taken = min(COMMANDS, start + 40)
            if start == self.taken:
                return
            yield list(range(start, self.taken))


ledger = Ledger()


def data_of(number: int, kind: str) -> bytes:
    return number.to_bytes(8, "little") * 12_500 if kind == "large" else b""  # 100 kB: sealed memory, both ways


def expected(number: int, kind: str) -> Any:
    return [number, number**2, data_of(number, kind)]
