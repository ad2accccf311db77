"""How many threads a worker has or is about to have, where no cgroup counts them and the supervisor is asked for each.

Between the answer to clone() and the new thread lies a moment in which /proc does not show it: threads that ask one after
another within that moment would all find the same room.
"""

from __future__ import annotations

import time

from fxcell.sandbox.kernel import processes

_BORN_S = 0.25
"""A thread whose clone() was let through this long ago has made it: also on a processor that sixty others wait for."""


class ThreadCount:
    """Room for new threads in one worker.

    tasks_max: threads that the worker may have, its first one included.
    """

    def __init__(self, worker_pid: int, tasks_max: int) -> None:
        self._worker_pid = worker_pid
        self._tasks_max = tasks_max
        self._on_their_way: dict[int, float] = {}

    def room_for(self, thread_id: int) -> bool | None:
        """True when the clone() that a thread waits in may go on, and is counted from now on; None: ask again soon.

        None where there is room only if threads on their way have come to nothing: those are never refused for, since code
        that is within its limits would be.
        """
        # One that asks again has got its answer to the last time.
        self._on_their_way.pop(thread_id, None)
        oldest = time.monotonic() - _BORN_S
        self._on_their_way = {asker: at for asker, at in self._on_their_way.items() if at > oldest}
        try:
            tasks = processes.tasks_of(self._worker_pid)  # after the line above: who is forgotten there is counted here
        except OSError:
            return False
        if tasks + len(self._on_their_way) < self._tasks_max:
            self._on_their_way[thread_id] = time.monotonic()
            return True
        return False if tasks >= self._tasks_max else None
