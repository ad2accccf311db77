"""KeyValue effects and SIGKILL: a host killed at any moment has lost no write that it had acknowledged, and holds no half one.

A real host process (programs/state_writer.py) keeps state through hardened workers and tells each write over a pipe once `run`
has returned; it is killed at a random moment, again and again over one file. Ten times in the ordinary run;
FXCELL_STATE_KILLS=200 makes it as many.
"""

import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.dead_hosts import groups_of_the_dead, sweep_until_gone
from tests.programs.state_writer import digest

KILLS = int(os.environ.get("FXCELL_STATE_KILLS", "10"))
SEED = int(os.environ.get("FXCELL_STATE_SEED", "0")) or random.SystemRandom().getrandbits(32)
MOMENT_S = 0.3
"""From its first write on a host may live for so long: several workers and, with these values, several checkpoints."""
PROGRAM = Path(__file__).parents[1] / "programs" / "state_writer.py"


def killed_at_a_random_moment(folder, seed, chance, *words):
    """The lines that a host told before it was killed."""
    host = subprocess.Popen([sys.executable, str(PROGRAM), str(folder), seed, *words], stdout=subprocess.PIPE)
    pipe = host.stdout.fileno()
    told = os.read(pipe, 65536)  # blocks until it is about to make its first write
    end = time.monotonic() + chance.random() * MOMENT_S
    while (left := end - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            told += os.read(pipe, 65536)
    host.send_signal(signal.SIGKILL)
    while piece := os.read(pipe, 65536):
        told += piece
    host.stdout.close()
    assert host.wait(10) == -signal.SIGKILL, "it ended before it was killed"
    return told.decode().splitlines()


def apply(lines, kept):
    """Do to `kept` (key -> digest) what was acknowledged; answer (number of these, the write that was under way or None)."""
    asked, done = None, 0
    for line in lines:
        mark, number, *what = line.split()
        if mark == "?":
            asked = (number, *what)
        else:
            assert asked is not None
            assert asked[0] == number
            kept[asked[1]] = asked[2]
            asked, done = None, done + 1
    return done, asked


def found(folder):
    connection = sqlite3.connect(folder / "notes.sqlite")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not connection.execute("SELECT name FROM sqlite_master").fetchall():
            return {}  # killed before anything was made
        rows = connection.execute("SELECT key, value FROM entries").fetchall()
        usage = connection.execute("SELECT keys, bytes FROM usage").fetchone()
        assert usage == (len(rows), sum(len(key) + len(value) for key, value in rows))
        return {key: digest(value) for key, value in rows}
    finally:
        connection.close()


def told_by_the_next_host(folder):
    command = [sys.executable, str(PROGRAM), str(folder), "", "last"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


def sweep():
    sweep_until_gone(groups_of_the_dead, patience_s=10)


def settle(kept, under_way, there):
    """The write that was under way happened or did not: whichever it was is what is kept from now on."""
    if under_way is not None:
        _, key, named = under_way
        if there.get(key, "-") == named:
            kept[key] = named


@pytest.mark.slow
@pytest.mark.timeout(max(180, KILLS * 10))
def test_host_killed_at_random_moments_loses_no_acknowledged_write(tmp_path, request):
    folder = tmp_path.resolve() / "state"
    folder.mkdir(mode=0o700)
    chance, kept, acknowledged, interrupted = random.Random(SEED), {}, 0, 0
    request.addfinalizer(sweep)
    for number in range(KILLS):
        done, under_way = apply(killed_at_a_random_moment(folder, f"{SEED}/{number}", chance), kept)
        told = told_by_the_next_host(folder) if number % 5 == 0 else None  # which recovers what was left; else we do
        there = found(folder)
        assert told is None or told == there
        settle(kept, under_way, there)
        assert there == {key: named for key, named in kept.items() if named != "-"}, f"kill {number}, seed {SEED}"
        acknowledged += done
        interrupted += under_way is not None
    assert told_by_the_next_host(folder) == found(folder)
    print(f"{KILLS} kills, {interrupted} of them in a write; {acknowledged} acknowledged writes, none lost; seed {SEED}")
    assert acknowledged > KILLS
    assert interrupted


@pytest.mark.slow
def test_control_host_that_acknowledges_too_early_is_found_out(tmp_path, request):
    request.addfinalizer(sweep)
    folder = tmp_path.resolve() / "state"
    folder.mkdir(mode=0o700)
    chance = random.Random(SEED)
    for number in range(40):
        kept = found(folder) if number else {}
        _, under_way = apply(killed_at_a_random_moment(folder, f"{SEED}/{number}", chance, "early"), kept)
        there = found(folder)
        settle(kept, under_way, there)
        if there != {key: named for key, named in kept.items() if named != "-"}:
            break
    else:
        pytest.fail("no write was lost in 40 kills, so the test above would not see one")
