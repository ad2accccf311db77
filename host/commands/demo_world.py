"""What the demo's plugins meet: policies, a web server on 127.0.0.1, a folder of pictures, and a neighbour.

The neighbour is a worker that does honest work all the time: it must never notice what happens beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import importlib.util
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fxcell.host.plugins import load_plugin
from fxcell.host.runtime import run
from fxcell.policies.builtin import (
    ListWorkerProcesses,
    SendCommandToWorkerProcess,
    StartWorkerProcess,
    StopWorkerProcess,
)
from fxcell.policies.calls import Call
from fxcell.policies.effects import WorkerProcess
from fxcell.policies.errors import UserError
from fxcell.policies.loader import load_profile
from fxcell.policies.policy import Policy

MAX_PROCESSES = 16
"""What the policy `swarm` lets a worker have."""

_PLUGINS = os.path.join(os.path.dirname(__file__), "demo_plugins")
_GREETING = b"hello from the demo's server"
_QUESTION = {"text": "to be or not to be"}
_ANSWER = [("to", 2), ("be", 2), ("or", 1)]


@dataclass(frozen=True, slots=True)
class Ended:
    """How one command ended: its value or its outcome error, and how long it took."""

    outcome: Any
    seconds: float


@dataclass(slots=True)
class World:
    """Everything that the rows of the demo need.

    drawn: True when the folder holds the demo's own pictures, False for the user's.
    asked: how often the neighbour was asked, and answered rightly.
    """

    folder: str
    drawn: bool
    port: int
    neighbour: WorkerProcess
    policies: dict[str, Policy] = field(default_factory=dict)
    asked: int = 0

    def ask_neighbour(self) -> None:
        """Have the neighbour work. Raises AssertionError when its answer is not what it always is."""
        answer = run(SendCommandToWorkerProcess(process=self.neighbour, command=plugin_call("word_count", **_QUESTION)))
        if answer != _ANSWER:
            raise AssertionError(f"the neighbour answered {answer!r} instead of {_ANSWER!r}")
        self.asked += 1

    def neighbour_pid(self) -> int:
        """The neighbour's process id, as the host sees it."""
        return next(int(row["pid"]) for row in run(ListWorkerProcesses()) if row["process"] == self.neighbour)


def plugin_call(plugin: str, **arguments: Any) -> Call:
    """A call of one of the demo's plugins."""
    return load_plugin(os.path.join(_PLUGINS, f"{plugin}.py")).call(**arguments)


def in_new_worker(policy: Policy, command: Call, deadline_s: float) -> Ended:
    """Run one command in a worker of its own."""
    worker = run(StartWorkerProcess(policy=policy))
    try:
        started = time.perf_counter()
        outcome = run.outcome(SendCommandToWorkerProcess(process=worker, command=command, deadline_s=deadline_s))
        return Ended(outcome, time.perf_counter() - started)
    finally:
        run(StopWorkerProcess(process=worker))


def installed(module: str) -> bool:
    """True when a library can be imported here; it is not."""
    return importlib.util.find_spec(module) is not None


@contextlib.contextmanager
def world(images: str | None) -> Iterator[World]:
    """Set everything up, and take it down again.

    images: a folder of the user's pictures, or None to draw some.
    Raises: UserError for a folder that is not there; IsolationUnavailable.
    """
    if images is not None and not os.path.isdir(images):
        raise UserError(f"--images {images!r} is not a folder")
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(_server())
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"fxcell-{os.getpid()}-demo-"))
        folder = os.path.realpath(made if images is None else images)
        neighbour = run(StartWorkerProcess())
        stack.callback(run, StopWorkerProcess(process=neighbour))
        yield World(folder, images is None, port, neighbour, _policies(folder, port))


def _policies(folder: str, port: int) -> dict[str, Policy]:
    compute = load_profile("compute")
    imaging = load_profile("imaging") if installed("PIL") else compute
    granted_folder = {"ReadFile": {"under": [folder]}}
    granted_host = {"HTTPRequest": {"hosts": [f"127.0.0.1:{port}"], "private_hosts": True}}
    return {
        "compute": compute,
        "numeric": load_profile("numeric") if installed("numpy") else compute,
        # No Print: what decoders write about damaged pictures is not shown.
        "pictures": imaging.replaced(name="pictures", effects=granted_folder),
        "web": compute.replaced(name="web", effects={**compute.effects, **granted_host}),
        "swarm": compute.replaced(
            name="swarm",
            # Without threads, for the kernel counts both as tasks: then the cap is the number of processes.
            allow=(compute.allow - {"threads"}) | {"processes"},
            limits=dataclasses.replace(compute.limits, processes=MAX_PROCESSES, threads=0),
        ),
    }


@contextlib.contextmanager
def _server() -> Iterator[int]:
    """A web server on a free port of 127.0.0.1."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="fxcell-demo-server", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(_GREETING)))
        self.end_headers()
        self.wfile.write(_GREETING)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing: the table does."""
