"""Asking sides in turn, so that noise of the machine hits all alike, and making rows of what they answered."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from benchmarks.results import Result, median
from benchmarks.sides import Side, SideAbsent, SideFailed

OURS = "fxcell"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a run measures: all, or with `quick` just enough to see that it works."""

    quick: bool = False

    def of(self, full: int, quick: int = 1) -> int:
        return quick if self.quick else full

    def some(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """All names, or the first: for peers that a quick run tries in another row."""
        return names[:1] if self.quick else names

    def slice_s(self, full: float) -> float:
        """Seconds of one turn of a side that counts how much it can do in it."""
        return full / 8 if self.quick else full


@dataclass(slots=True)
class Answers:
    """rounds: side -> its samples, turn by turn. absent, failed: side -> why it has none (any more)."""

    rounds: dict[str, list[list[float]]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Of all samples of a side; nan for one that failed, whatever it answered before."""
        if name in self.absent or name in self.failed:
            return median([])
        return median(sample for turn in self.rounds.get(name, []) for sample in turn)


def interleaved(sides: list[Side], rounds: int) -> Answers:
    """Ask each side once per round, each round beginning with another one. A side that fails is not asked again."""
    answers = Answers({side.name: [] for side in sides})
    asked = list(sides)

    def attempt(side: Side, action: Callable[[], object]) -> None:
        try:
            action()
        except SideAbsent as absent:
            answers.absent[side.name] = str(absent)
        except SideFailed as failed:
            answers.failed[side.name] = str(failed)
        else:
            return
        asked.remove(side)
        side.stop()

    def take(side: Side) -> None:
        answers.rounds[side.name].append(side.ask())

    try:
        for side in sides:
            side.start()
        for side in sides:
            attempt(side, side.wait_until_ready)
        for number in range(rounds):
            for side in _turned(asked, number):
                attempt(side, functools.partial(take, side))
    finally:
        for side in sides:
            side.stop()
    return answers


def _turned(sides: list[Side], number: int) -> list[Side]:
    start = number % len(sides) if sides else 0
    return [*sides[start:], *sides[:start]]


def rows(
    what: str, answers: Answers, limits: Mapping[str, float], *, unit: str = "s", higher: bool = False, ours: str = OURS,
    peers: list[str] | None = None,
) -> Iterator[Result]:  # fmt: skip
    """One Result for each peer (all other sides, or those named), in their order; judged where `limits` names the peer."""
    why = answers.absent.get(ours) or answers.failed.get(ours)
    if why:
        print(f"{what}: {ours}: {why}", file=sys.stderr)
    for peer in [name for name in answers.rounds if name != ours] if peers is None else peers:
        yield Result(
            what, peer, answers.median(ours), answers.median(peer), unit, limits.get(peer), higher,
            skipped=answers.absent.get(peer) or answers.absent.get(ours, ""),
            note=answers.failed.get(peer) or (f"fxcell: {answers.failed[ours]}" if ours in answers.failed else ""),
        )  # fmt: skip
