"""Inputs that crash again and again: refused after so many crashes, and named, instead of costing a worker each time.

An input is a command's bytes together with the code that it calls: a new version of a plugin begins with a clean slate.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Any

from fxcell.policies import values
from fxcell.policies.crash import Reason, WorkerCrash
from fxcell.policies.errors import EncodeError, Quarantined

_KEPT = 10_000
_NOT_ITS_DOING = frozenset(
    {Reason.KILLED_EXTERNALLY, Reason.STOPPED, Reason.START_FAILED, Reason.CONNECTION_LOST}
)


class Quarantine:
    """Crashes by input. Safe from many threads; of the latest 10,000 inputs that crashed."""

    def __init__(self, after: int) -> None:
        """after: crashes of one input from which on it is refused."""
        self.after = after
        self._lock = threading.Lock()
        self._crashes: OrderedDict[str, list[str]] = OrderedDict()
        self._refused: dict[str, frozenset[str]] = {}  # with the digests of the code in it

    def forget_after_fork(self) -> None:
        """In the child of a fork, where a thread that is not there may have held the lock."""
        self._lock = threading.Lock()
        self._crashes.clear()
        self._refused = {}

    def check(self, value: Any) -> None:
        """Raises Quarantined when the value has crashed its worker too often."""
        if not self._refused:  # then nothing is packed and hashed for it
            return
        digest = digest_of(value)
        with self._lock:
            reasons = list(self._crashes[digest]) if digest in self._refused else None
        if reasons is not None:
            raise Quarantined(digest, reasons)

    def add(self, value: Any, crash: WorkerCrash) -> None:
        """Count a crash, if it was the input's doing."""
        if crash.reason in _NOT_ITS_DOING:
            return
        try:
            digest, code = _digests_of(value)
        except EncodeError:  # it was one call of a batch, which may be a level deeper than a call by itself
            return
        with self._lock:
            reasons = self._crashes.setdefault(digest, [])
            reasons.append(crash.reason.value)
            self._crashes.move_to_end(digest)
            if len(reasons) >= self.after:
                self._refused[digest] = code
            while len(self._crashes) > _KEPT:
                self._refused.pop(self._crashes.popitem(last=False)[0], None)

    def concerns(self, code: str) -> bool:
        """True when an input of the code with this digest is refused."""
        with self._lock:
            return any(code in digests for digests in self._refused.values())

    @property
    def listed(self) -> list[str]:
        """The digests of the inputs that are refused."""
        with self._lock:
            return sorted(self._refused)

    def release(self, digest: str) -> None:
        """Let an input in again."""
        with self._lock:
            self._refused.pop(digest, None)
            self._crashes.pop(digest, None)


def digest_of(value: Any) -> str:
    """SHA-256 of a command's bytes and of the code in it, in hex."""
    return _digests_of(value)[0]


def _digests_of(value: Any) -> tuple[str, frozenset[str]]:
    packed = values.pack_inline(value)
    told = hashlib.sha256(packed.body)
    for digest in sorted(packed.definitions):
        told.update(digest.encode())
    return told.hexdigest(), frozenset(packed.definitions)
