"""A host for tests/host/test_unfinished.py: its main thread ends while a daemon thread is in the middle of a step.

Inputs:   arguments: the step (a name of STEPS), and "cut" where the end of the program is to wait for nothing.
Outputs:  "in the middle" on stdout, before the end. Exit 0.
"""

import os
import sys
import threading
import time

from fxcell import FX, run
from fxcell.host import ending, unfinished

CUT = sys.argv[2:] == ["cut"]
PAUSE_S = 60.0 if CUT else 1.0  # the end must come in it, or wait for it
in_the_middle = threading.Event()


def pausing(function, *, before):
    """The function, standing still for a moment before it or after it, in which the program ends."""

    def paused(*args, **options):
        if not before:
            result = function(*args, **options)
        in_the_middle.set()
        time.sleep(PAUSE_S)
        return function(*args, **options) if before else result

    return paused


def trial():
    """The first start of all makes a group to see whether that can be done."""
    os.rmdir = pausing(os.rmdir, before=True)
    FX.StartWorkerProcess() | run


def start():
    """A worker's group is there, and nobody's list has the worker."""
    FX.StopWorkerProcess(process=FX.StartWorkerProcess() | run) | run
    ending.Handles.__init__ = pausing(ending.Handles.__init__, before=False)
    FX.StartWorkerProcess() | run


def stop():
    """A worker is off every list, and its group is there."""
    worker = FX.StartWorkerProcess() | run
    ending.Handles._remove_group = pausing(ending.Handles._remove_group, before=True)
    FX.StopWorkerProcess(process=worker) | run


STEPS = {step.__name__: step for step in (trial, start, stop)}

if __name__ == "__main__":
    if CUT:
        unfinished.finish = lambda: True
    threading.Thread(target=STEPS[sys.argv[1]], daemon=True).start()
    assert in_the_middle.wait(60)
    print("in the middle", flush=True)
