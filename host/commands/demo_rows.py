"""The demo's plugins as a table: what each tries, under which policy, and how it must end."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from fxcell.host.commands.demo_world import MAX_PROCESSES, Ended, World, in_new_worker, installed, plugin_call
from fxcell.host.runtime import run
from fxcell.policies.builtin import (
    ListWorkerProcesses,
    SendCommandToWorkerProcess,
    StartWorkerProcess,
    StopWorkerProcess,
)
from fxcell.policies.crash import WorkerCrash
from fxcell.policies.effects import WorkerProcess
from fxcell.policies.errors import EffectDenied, PluginError

ANSWER = "answer"
DENIED = "effect denied"
_PI_HEX = "243F6A8885A308D313198A2E03707344A4093822299F31D0082EFA98EC4E6C89"
_PI_WORKERS = 4
_MAX_IMAGES = 200
_POEM = "The fox saw the hen, and the hen saw the fox; the rest is silence."


@dataclass(frozen=True, slots=True)
class Said:
    """One finished row: how it ended (in the words of `Row.expected`), the line to show, and the seconds it took."""

    ended: str
    line: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """One plugin of the demo.

    expected:   the ends that are right, in the words of `end_of`.
    needs:      a library without which the row is skipped.
    perform:    how it is run, when that is more than one call in a worker of its own.
    deadline_s: seconds for the call.
    """

    plugin: str
    tried: str
    expected: tuple[str, ...]
    hostile: bool = False
    policy: str = "compute"
    arguments: Callable[[World], dict[str, Any]] = field(default=lambda _world: {})
    deadline_s: float = 20.0
    needs: str = ""
    perform: Callable[[World, Row], Said] | None = None

    def run(self, world: World) -> Said:
        """Run it and say what happened. Raises what is no outcome: IsolationUnavailable, UserError."""
        if self.perform is not None:
            return self.perform(world, self)
        ended = in_new_worker(
            world.policies[self.policy], plugin_call(self.plugin, **self.arguments(world)), self.deadline_s
        )
        return Said(end_of(ended.outcome), line_of(ended.outcome), ended.seconds)

    @property
    def skipped(self) -> bool:
        """True when the library that it needs is not here."""
        return bool(self.needs) and not installed(self.needs)


def end_of(outcome: object) -> str:
    """How a command ended, in one or two words."""
    if isinstance(outcome, WorkerCrash):
        return outcome.reason.value
    if isinstance(outcome, PluginError):
        return outcome.type_name
    return DENIED if isinstance(outcome, EffectDenied) else ANSWER


def line_of(outcome: object) -> str:
    """The outcome's own line, or the answer."""
    return str(outcome) if isinstance(outcome, Exception) else repr(outcome)


def _draw(world: World, row: Row) -> Said:
    ended = in_new_worker(world.policies[row.policy], plugin_call(row.plugin), row.deadline_s)
    if end_of(ended.outcome) != ANSWER:
        return Said(end_of(ended.outcome), line_of(ended.outcome), ended.seconds)
    for name, content in ended.outcome.items():
        # The names come from a worker, whatever it is believed to be: never a path.
        with open(os.path.join(world.folder, os.path.basename(name)), "wb") as file:
            file.write(content)
    sizes = sum(len(content) for content in ended.outcome.values())
    return Said(ANSWER, f"{len(ended.outcome)} files, {sizes // 1024} KiB", ended.seconds)


def _resize_all(world: World, row: Row) -> Said:
    """Every picture in one worker after the other, as long as each lives."""
    ends: Counter[str] = Counter()
    made = 0
    worker: WorkerProcess | None = None
    started = time.perf_counter()
    for path in _pictures(world.folder):
        worker = worker or run(StartWorkerProcess(policy=world.policies[row.policy]))
        command = plugin_call(row.plugin, path=path)
        outcome = run.outcome(SendCommandToWorkerProcess(process=worker, command=command, deadline_s=row.deadline_s))
        ends[end_of(outcome)] += 1
        made += len(outcome) if isinstance(outcome, bytes) else 0
        worker = None if isinstance(outcome, WorkerCrash) else worker
    if worker is not None:
        run(StopWorkerProcess(process=worker))
    others = ", ".join(f"{count} x {end}" for end, count in sorted(ends.items()) if end != ANSWER)
    line = f"{ends[ANSWER]} thumbnails, {made // 1024} KiB" + (f"; damaged pictures: {others}" if others else "")
    right = ends == {ANSWER: 4, "OSError": 1} if world.drawn else ends[ANSWER] > 0
    return Said(ANSWER if right else "wrong pictures", line, time.perf_counter() - started)


def _pictures(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if entry.is_file(follow_symlinks=False))[:_MAX_IMAGES]


def _pi(world: World, row: Row) -> Said:
    """A part of the digits in each worker, all at the same time."""
    workers = [run(StartWorkerProcess(policy=world.policies[row.policy])) for _ in range(_PI_WORKERS)]
    share = len(_PI_HEX) // _PI_WORKERS
    started = time.perf_counter()
    futures = [
        run.submit(
            SendCommandToWorkerProcess(process=worker, command=plugin_call(row.plugin, start=part * share, count=share))
        )
        for part, worker in enumerate(workers)
    ]
    digits = "".join(future.result() for future in futures)
    seconds = time.perf_counter() - started
    for worker in workers:
        run(StopWorkerProcess(process=worker))
    return Said(ANSWER if digits == _PI_HEX else "wrong digits", f"3.{digits[:40]}… (hexadecimal)", seconds)


_LONGER_S = 15


def _bomb_beside_neighbour(world: World, row: Row) -> Said:
    """Let the bomb go off, and have the neighbour answer all the while."""
    worker = run(StartWorkerProcess(policy=world.policies[row.policy]))
    supervisor = psutil.Process(next(r["pid"] for r in run(ListWorkerProcesses()) if r["process"] == worker))
    started = time.perf_counter()
    run(SendCommandToWorkerProcess(process=worker, command=plugin_call("word_count", text=_POEM)))
    # Where a first call takes half a second, as under emulation, three are not enough to fork and to be seen.
    longer_s = min(_LONGER_S, round(30 * (time.perf_counter() - started)))
    before, most = world.asked, 0
    started = time.perf_counter()
    future = run.submit(
        SendCommandToWorkerProcess(process=worker, command=plugin_call(row.plugin), deadline_s=row.deadline_s + longer_s)
    )
    while not future.done():
        world.ask_neighbour()
        try:
            most = max(most, len(supervisor.children(recursive=True)))
        except psutil.NoSuchProcess:
            break
    ended = Ended(future.exception() or future.result(), time.perf_counter() - started)
    answered = world.asked - before
    line = f"{line_of(ended.outcome)}; {most} processes at most, the neighbour answered {answered} calls meanwhile"
    right = 1 < most <= MAX_PROCESSES and answered > 0
    return Said(end_of(ended.outcome) if right else "not capped", line, ended.seconds)


def _records(_world: World) -> dict[str, Any]:
    records = [{"customer": f"c{number % 3}", "cents": number} for number in range(10_000)]
    return {"packed": zlib.compress(json.dumps(records).encode())}


ROWS: tuple[Row, ...] = (
    Row("word_count", "count the words of a text", (ANSWER,), arguments=lambda _w: {"text": _POEM}),
    Row("json_totals", "unpack and add up 10,000 JSON records", (ANSWER,), arguments=_records),
    Row("linear_algebra", "solve 300 equations with numpy", (ANSWER,), policy="numeric", needs="numpy",
        arguments=lambda _w: {"size": 300}),
    Row("draw_images", "draw a folder of pictures with Pillow", (ANSWER,), policy="pictures", needs="PIL", perform=_draw),
    Row("thumbnail", "resize every picture of a folder, read by FX.ReadFile", (ANSWER,), policy="pictures", needs="PIL",
        deadline_s=5.0, perform=_resize_all),
    Row("fetch", "FX.HTTPRequest to the one host that is granted", (ANSWER,), policy="web",
        arguments=lambda w: {"url": f"http://127.0.0.1:{w.port}/"}),
    Row("pi_digits", f"digits of pi, in {_PI_WORKERS} workers at once", (ANSWER,), perform=_pi),
    Row("segfault", "read address 0 through ctypes", ("signal",), hostile=True),
    Row("abort", "abort() in native code", ("signal",), hostile=True),
    Row("infinite_loop", "keep a CPU busy for ever", ("deadline",), hostile=True, deadline_s=1.0),
    Row("memory_bomb", "take all memory", ("out_of_memory",), hostile=True),
    Row("fork_bomb", "fork for ever, under compute", ("PermissionError",), hostile=True),
    Row("fork_bomb", f"the same under a policy with {MAX_PROCESSES} processes", ("deadline",), hostile=True, policy="swarm",
        deadline_s=3.0, perform=_bomb_beside_neighbour),
    Row("read_shadow", "open /etc/shadow", ("FileNotFoundError", "PermissionError"), hostile=True),
    Row("ask_for_shadow", "FX.ReadFile of /etc/shadow by way of a granted folder", (DENIED,), hostile=True,
        policy="pictures", arguments=lambda w: {"path": f"{w.folder}/../../etc/shadow"}),
    Row("connect", "open a TCP connection of its own", ("PermissionError",), hostile=True,
        arguments=lambda w: {"host": "127.0.0.1", "port": w.port}),
    Row("fetch", "FX.HTTPRequest to a cloud's metadata service", (DENIED,), hostile=True, policy="web",
        arguments=lambda _w: {"url": "http://169.254.169.254/latest/meta-data/"}),
    Row("ptrace_sibling", "attach to another worker as a debugger", ("denied_syscall",), hostile=True,
        arguments=lambda w: {"pid": w.neighbour_pid()}),
    Row("start_shell", "become /bin/sh", ("denied_syscall",), hostile=True),
    Row("exit_zero", "exit with status 0 instead of answering", ("exited",), hostile=True),
    Row("forged_frame", "write a frame of 4 GiB to its own channel", ("protocol_violation",), hostile=True),
    Row("forged_answer", "answer another command than its own", ("protocol_violation",), hostile=True,
        arguments=lambda _w: {"number": 7}),
    Row("output_flood", "write to stdout without end", ("output_limit",), hostile=True),
)  # fmt: skip
