"""Who is told what workers do: one hook in the broker and the sessions, None while nobody listens.

    add(observer) -> Broker.observer = observer, or all of several in the order they were added

An observer is called in the thread that runs the command. What it raises from effect_granted refuses the effect; every
other method must not raise.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxcell.host.broker import Broker, EffectRecord
    from fxcell.policies.crash import WorkerCrash
    from fxcell.policies.effects import Effect


class Observer:
    """What can be told; each method of this class does nothing."""

    def worker_started(self, broker: Broker) -> None:
        """A worker is ready, its layers checked."""

    def worker_ended(self, broker: Broker, why: str) -> None:
        """A worker was ended by its host, without a crash."""

    def worker_crashed(self, broker: Broker, crash: WorkerCrash) -> None:
        """A worker crashed, also one that never became ready."""

    def command_started(self, broker: Broker) -> None:
        """A command is about to be sent; broker.command and broker.plugin name it."""

    def command_ended(self, broker: Broker, outcome: BaseException | None) -> None:
        """A command has ended: None for a value."""

    def effect_granted(self, broker: Broker, effect: Effect, number: int) -> None:
        """The rules and budgets grant an effect that is not performed yet. Raises EffectDenied to refuse it."""

    def effect_ended(self, broker: Broker, effect: Effect, record: EffectRecord, reason: str, result: Any) -> None:
        """An effect was denied, done, failed or cancelled. reason: why, unless done. result: None unless done."""


class _Several(Observer):
    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers = observers

    def worker_started(self, broker: Broker) -> None:
        for observer in self._observers:
            observer.worker_started(broker)

    def worker_ended(self, broker: Broker, why: str) -> None:
        for observer in self._observers:
            observer.worker_ended(broker, why)

    def worker_crashed(self, broker: Broker, crash: WorkerCrash) -> None:
        for observer in self._observers:
            observer.worker_crashed(broker, crash)

    def command_started(self, broker: Broker) -> None:
        for observer in self._observers:
            observer.command_started(broker)

    def command_ended(self, broker: Broker, outcome: BaseException | None) -> None:
        for observer in self._observers:
            observer.command_ended(broker, outcome)

    def effect_granted(self, broker: Broker, effect: Effect, number: int) -> None:
        for observer in self._observers:
            observer.effect_granted(broker, effect, number)

    def effect_ended(self, broker: Broker, effect: Effect, record: EffectRecord, reason: str, result: Any) -> None:
        for observer in self._observers:
            observer.effect_ended(broker, effect, record, reason, result)


_added: list[Observer] = []
_table = threading.Lock()


def add(observer: Observer) -> None:
    """Tell an observer of everything from now on, workers that live already included."""
    with _table:
        _added.append(observer)
        _install()


def remove(observer: Observer) -> None:
    """Tell an observer nothing more; one that was not added is no error."""
    with _table:
        if observer in _added:
            _added.remove(observer)
        _install()


def _install() -> None:
    from fxcell.host.broker import Broker

    Broker.observer = None if not _added else _added[0] if len(_added) == 1 else _Several(tuple(_added))


def _forget_after_fork() -> None:
    global _table
    _table = threading.Lock()
    if _added:  # they belong to the parent: its files, its threads
        _added.clear()
        _install()


os.register_at_fork(after_in_child=_forget_after_fork)
