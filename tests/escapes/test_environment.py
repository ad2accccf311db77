"""What a worker inherits: no environment of the host, no descriptor, no argument, no working folder."""

import os
import socket

from fxcell import FX, load_policy, run, zef_function
from tests.escapes.conftest import compute


@zef_function
def environment():
    import os

    return dict(os.environ)


@zef_function
def environment_in_memory(needle_reversed):
    """Look for a text in everything Python can reach of its own start."""
    import gc
    import sys

    needle = needle_reversed[::-1]
    found = [
        type(thing).__name__
        for thing in gc.get_objects()
        if isinstance(thing, dict) and any(isinstance(v, str) and needle in v for v in list(thing.values()))
    ]
    return found, sys.argv, sys.orig_argv


@zef_function
def descriptors():
    import os
    import stat

    found = {}
    for number in range(1024):
        try:
            found[number] = stat.S_IFMT(os.fstat(number).st_mode)
        except OSError:
            continue
    return found


@zef_function
def read_every_descriptor():
    import os

    found = []
    for number in range(3, 64):
        os_read = os.pread
        try:
            found.append(os_read(number, 100, 0))
        except OSError:
            continue
    return found


@zef_function
def identity():
    import os
    import threading

    return os.getuid(), os.getgid(), os.getpid(), os.uname().nodename, threading.get_native_id()


@zef_function
def cwd():
    import os

    return os.getcwd()


def test_secret_in_the_hosts_environment_is_not_in_the_workers(arena):
    policy = compute(name="started after the secret was set", limits={"wall_s": 59})  # so its template is new as well
    found = arena.attack(environment(), policy)
    assert arena.secret in os.environ.values()
    assert arena.secret not in str(found)
    assert set(found) <= {
        "LANG", "LC_ALL", "LC_CTYPE", "PATH", "HOME", "TMPDIR", "TZ", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE",
    }  # fmt: skip
    dicts, argv, orig_argv = arena.attack(environment_in_memory(arena.secret[::-1]), policy)
    assert dicts == []
    assert argv == ["worker"]
    assert arena.secret not in str(orig_argv)


def test_descriptors_of_the_host_are_not_there(arena):
    with socket.create_server(("127.0.0.1", 0)) as server, open(arena.sentinel) as file:
        os.set_inheritable(server.fileno(), True)
        os.set_inheritable(file.fileno(), True)
        policy = compute(name="started with inheritable descriptors", limits={"wall_s": 58})
        found = arena.attack(descriptors(), policy)
        assert sorted(found) == [0, 1, 2, 3, 5]
        assert arena.attack(read_every_descriptor(), policy) == []
    for profile in ("strict", "compute", "trusted"):
        assert sorted(arena.attack(descriptors(), profile)) == [0, 1, 2, 3, 5]


def test_identity_says_nothing_about_the_host(arena):
    uid, gid, pid, name, thread = arena.attack(identity())
    assert (uid, gid, pid, thread) == (65534, 65534, 2, 2)
    assert name == "worker"
    assert os.uname().nodename != "worker"


def test_working_folder_is_the_root(arena):
    assert arena.attack(cwd()) == "/"


def test_modules_of_the_host_are_not_in_the_worker(arena):
    assert arena.attack(imported("fxcell.host")) == []


@zef_function
def imported(prefix):
    import sys

    return [name for name in sys.modules if name.startswith(prefix)]


def test_policy_digest_is_what_the_worker_was_started_with(arena):
    worker = FX.StartWorkerProcess(policy="compute") | run
    listed = next(entry for entry in FX.ListWorkerProcesses() | run if entry["process"] == worker)
    assert listed["policy"] == load_policy("compute").name
    FX.StopWorkerProcess(process=worker) | run
