"""The answering end of a side: runs a generator, one step for each line on standard input.

Run by:  python -m benchmarks.side module:generator '{"argument": 1}'     (benchmarks/sides.py does it)
Writes:  one JSON line per step: {"samples": [...]}, {"absent": why} or {"failed": why}. What code prints goes to stderr.
Ends:    with the end of standard input, after the generator was closed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Generator

from benchmarks.clock import Absent, NoFigure


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, _, function = sys.argv[1].partition(":")
    steps: Generator[list[float], None, None] | None = None
    # os.read, and not sys.stdin: its lock would be held while a pool's thread forks, and the child waits for it for ever.
    while os.read(0, 1):
        try:
            if steps is None:
                steps = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
            answer = {"samples": list(next(steps))}
        except Absent as absent:
            answer = {"absent": str(absent)}
        except ModuleNotFoundError as error:
            answer = {"absent": f"{error.name} is not installed"}
        except StopIteration:
            answer = {"failed": "it has no more turns"}
        except NoFigure as none:
            answer = {"failed": str(none)}
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its answer
            answer = {"failed": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
    if steps is not None:
        steps.close()


if __name__ == "__main__":
    main()
