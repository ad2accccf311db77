"""A host of its own that writes below a granted directory; the tests start, race and kill it.

arguments: directory, job, named or unnamed (drafts)
jobs:      replace   writes the file `a` over and over, all "A" or all "B"; one line per acknowledged write
           append    appends 8-byte lines to `a`; one line per acknowledged write
           many N B  waits for a line on stdin, creates N files of B bytes named after its pid, prints how many were written
"""

import os
import sys
import threading
import time

from fxcell.host.broker import Broker, Context
from fxcell.host.effects import drafts
from fxcell.policies.builtin import WriteFile
from fxcell.policies.errors import EffectFailed
from fxcell.policies.policy import Policy

SIZE = 300_000
RULE = {"max_bytes": 400_000, "quota_bytes": 1_000_000, "max_files": 10}


def main(root, job, drafts_are, *numbers):
    if drafts_are == "named":
        drafts._unnamed = lambda _directory: None
    policy = Policy(name="files", effects={"WriteFile": {"under": [root], **RULE}})
    broker = Broker(policy, "w1")

    def write(name, content, mode):
        context = Context("w1", policy, time.monotonic() + 60, threading.Event().wait, print)
        broker.perform(WriteFile(path=f"{root}/{name}", content=content, mode=mode), context)

    print("ready", flush=True)
    if job == "many":
        sys.stdin.readline()
        written = 0
        for number in range(int(numbers[0])):
            try:
                write(f"{os.getpid()}-{number}", b"x" * int(numbers[1]), "create")
                written += 1
            except EffectFailed as failed:
                if failed.kind != "quota":
                    raise
        print(written, flush=True)
        return
    number = 0
    while True:
        if job == "replace":
            write("a", b"AB"[number % 2 : number % 2 + 1] * SIZE, "replace")
        else:
            write("a", f"{number:07}\n".encode(), "append")
        number += 1
        print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
