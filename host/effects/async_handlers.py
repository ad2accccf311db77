"""`async def` handlers: one loop in one background thread performs them for all workers.

    command's thread --coroutine--> loop          waits for: the result, the deadline, the worker's end
                     <--result or cancel---

The command's thread goes on at the deadline whatever the coroutine does: one that swallows its cancellation, or blocks
the loop, can hold up other coroutines but no command beyond its time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fxcell.host.effects.context import Context, cancelled
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectFailed

_LOOK_S = 0.05
"""How often a waiting command looks whether its worker is still there; a result wakes it at once."""

_CLOSE_S = 5.0

_starting = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def perform(start: Callable[[], Coroutine[Any, Any, Any]], effect: Effect, context: Context) -> Any:
    """Run the coroutine on the loop and answer its result, within the context's time.

    Raises: EffectFailed - timeout or cancelled, after its task was told to end; and whatever the coroutine raises.
    """
    if threading.current_thread() is _thread:
        raise RuntimeError(f"FX.{effect.effect_name} | run would wait for its own loop; write `await run.aio(…)` here")
    future = asyncio.run_coroutine_threadsafe(_call(start), _running())
    try:
        while True:
            left = context.deadline - time.monotonic()
            if concurrent.futures.wait([future], max(0.0, min(left, _LOOK_S))).done:
                try:
                    return future.result()
                except concurrent.futures.CancelledError:
                    raise EffectFailed(effect.effect_name, "cancelled", "its handler was cancelled") from None
            if left <= 0:
                raise EffectFailed(effect.effect_name, "timeout", "the command's deadline passed while it was performed")
            if context.cancelled(0.0):
                raise cancelled(effect.effect_name)
    finally:
        future.cancel()  # without effect on one that is done


def close() -> None:
    """Cancel what runs, end the loop and its thread; the next `perform` starts afresh."""
    global _loop, _thread
    with _starting:
        loop, thread, _loop, _thread = _loop, _thread, None, None
    if loop is None or thread is None:
        return
    loop.call_soon_threadsafe(loop.stop)
    thread.join(_CLOSE_S)


async def _call(start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    try:
        return await start()
    except (SystemExit, KeyboardInterrupt) as error:
        # The loop would end with it, and with the loop every handler of every worker. Ctrl-C comes to the main thread.
        raise RuntimeError(f"the handler raised {type(error).__name__}") from error


def _running() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _starting:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_serve, args=(_loop,), name="fxcell-async-effects", daemon=True)
            _thread.start()
        return _loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _forget_after_fork() -> None:
    global _starting, _loop, _thread
    _starting, _loop, _thread = threading.Lock(), None, None


os.register_at_fork(after_in_child=_forget_after_fork)
