"""A host that keeps state through workers until it is killed: FOLDER SEED [last | early].

    stdout:  one line before each write, "? NUMBER KEY DIGEST", and one, "! NUMBER", once `run` has returned. DIGEST is of the
             value that is set, or "-" for a delete.
With `last` it writes nothing, and prints "KEY DIGEST" of all that a worker finds. With `early` it acknowledges a write before
it makes it: what a store would do that answers too soon.
"""

import hashlib
import os
import random
import sys

from fxcell import *

EFFECTS = ("KeyValueGet", "KeyValueSet", "KeyValueDelete", "KeyValueList")


def say(text):
    os.write(1, f"{text}\n".encode())  # at once, and whole: shorter than PIPE_BUF


def digest(value):
    return hashlib.sha256(value).hexdigest()[:16]


def start(folder):
    rule = {"directory": folder}
    policy = load_policy("compute").replaced(name="state", effects=dict.fromkeys(EFFECTS, rule))
    return FX.StartWorkerProcess(policy=policy, plugin="notes") | run


def send(worker, command):
    return FX.SendCommandToWorkerProcess(process=worker, command=command) | run


def write(folder, seed, *, early):
    chance = random.Random(seed)
    number = 0
    while True:
        worker = start(folder)  # the file is closed and opened again now and then, which a kill must survive too
        for _ in range(chance.randrange(5, 60)):
            number += 1
            key = f"key{chance.randrange(40)}"
            if chance.random() < 0.2:
                command, named = FX.KeyValueDelete(key=key), "-"
            else:
                value = seed.encode() + chance.randbytes(chance.choice((8, 500, 5000, 50_000)))
                command, named = FX.KeyValueSet(key=key, value=value), digest(value)
            say(f"? {number} {key} {named}")
            if early:
                say(f"! {number}")
            send(worker, command)
            if not early:
                say(f"! {number}")
        FX.StopWorkerProcess(process=worker) | run


def tell(folder):
    worker = start(folder)
    for key in send(worker, FX.KeyValueList(limit=1000))["keys"]:
        say(f"{key} {digest(send(worker, FX.KeyValueGet(key=key)))}")
    FX.StopWorkerProcess(process=worker) | run


if __name__ == "__main__":
    tell(sys.argv[1]) if "last" in sys.argv[3:] else write(sys.argv[1], sys.argv[2], early="early" in sys.argv[3:])
