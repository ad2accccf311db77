"""The answering end of a side: loads a generator, then runs it one step for each byte on standard input.

Run by:  python -m benchmarks.side module:generator '{"argument": 1}'     (benchmarks/sides.py does it)
Writes:  a JSON line when it is loaded and after each step: {"samples": [...]}, {"absent": why} or {"failed": why}.
         What code prints goes to stderr.
Ends:    with the end of standard input, after the generator was closed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Generator
from typing import Any

from benchmarks.clock import Absent, NoFigure


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    steps = _Steps(sys.argv[1], json.loads(sys.argv[2]))
    answers.write(json.dumps(_answer(steps.load)) + "\n")
    # os.read, and not sys.stdin: its lock would be held while a pool's thread forks, and the child waits for it for ever.
    while os.read(0, 1):
        answers.write(json.dumps(_answer(steps.next)) + "\n")
    steps.close()


class _Steps:
    """The generator, made when its module is loaded."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self._name, self._arguments = name, arguments
        self._generator: Generator[list[float], None, None] | None = None

    def load(self) -> list[float]:
        module, _, function = self._name.partition(":")
        self._generator = getattr(importlib.import_module(module), function)(**self._arguments)
        return []

    def next(self) -> list[float]:
        assert self._generator is not None
        return list(next(self._generator))

    def close(self) -> None:
        if self._generator is not None:
            self._generator.close()


def _answer(step: Callable[[], list[float]]) -> dict[str, Any]:
    try:
        return {"samples": step()}
    except Absent as absent:
        return {"absent": str(absent)}
    except ModuleNotFoundError as error:
        return {"absent": f"{error.name} is not installed"}
    except StopIteration:
        return {"failed": "it has no more turns"}
    except NoFigure as none:
        return {"failed": str(none)}
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its answer
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()
