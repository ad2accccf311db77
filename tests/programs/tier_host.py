"""A host for tests/sandbox/test_tiers.py: does one thing with workers and prints what came of it as a line of JSON.

Inputs:   arguments: what to do, and for most the policy as JSON (changes on top of `compute`).
              start POLICY            {"layers", "tier", "notes", "abi", "answer"}
              attack POLICY SENTINEL  {attack: outcome in words}; one worker for all that it survives, with a neighbour beside
              ends POLICY             {what: [reason, signal, detail]}
              crowd POLICY            how many threads lived when many had started more at the same moment, again and again
              stay POLICY             [host, supervisor, worker, ...], then waits until stdin closes
Outputs:  one line on stdout; {"refused": [layer, cause, fix]} in its place where no worker started; then what is left
          behind: {"left": [...]}.
"""

import json
import os
import sys

from fxcell import FX, IsolationUnavailable, PolicyError, load_policy, run, zef_function
from fxcell.host import registry
from fxcell.policies.limits import Limits
from fxcell.sandbox.kernel.processes import children_of
from tests import leaks
from tests.escapes.calls import NUMBERS, make_call
from tests.escapes.test_host_files import list_folder, read_file, walk_everything
from tests.escapes.test_other_processes import become_root, send_signal, signal_by_thread_limits, signal_thread_of
from tests.escapes.test_sockets import connect, look_up, try_socket
from tests.escapes.test_writing import plant_files, write_to


@zef_function
def add(a, b):
    return a + b


@zef_function
def abort():
    import os

    os.abort()


@zef_function
def segfault():
    import ctypes

    ctypes.string_at(0)


@zef_function
def fill_memory():
    blocks = []
    while True:
        blocks.append(bytearray(16 * 2**20))


@zef_function
def spin():
    while True:
        pass


@zef_function
def fork():
    import os

    return os.fork()


@zef_function
def parent_of_worker():
    """Look at the worker's own parent by every name of it; answer what worked."""
    import os

    worked = []
    for path in ("/proc/self/mem", "/proc/self/environ", "/proc/thread-self/root", "/proc/1/environ"):
        try:
            with open(path, "rb") as file:
                file.read(1)
            worked.append(path)
        except OSError:
            pass
    for call in (lambda: os.chdir("/"), lambda: os.listdir("/proc")):
        try:
            call()
            worked.append(repr(call))
        except OSError:
            pass
    return worked


@zef_function
def exists(path):
    import os

    return os.path.exists(path)


@zef_function
def start_crowd(starters):
    """Have many threads start more at the same moment, by calls that wait for no lock of Python's; answer how many live."""
    import ctypes
    import os
    import threading

    libc = ctypes.CDLL(None)
    sleep = ctypes.cast(libc.sleep, ctypes.c_void_p)
    counts = []
    begin = threading.Barrier(starters)
    end = threading.Barrier(starters, action=lambda: counts.append(os.stat("/proc/self/task").st_nlink - 2))

    def start():
        begin.wait()
        libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, sleep, ctypes.c_void_p(60))
        libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, sleep, ctypes.c_void_p(60))
        end.wait()

    threads = [threading.Thread(target=start) for _ in range(starters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts[0]


def policy_from(text):
    changes = json.loads(text)
    base = load_policy("compute")
    limits = base.limits.to_data() | changes.pop("limits", {})
    if "allow" in changes:
        changes["allow"] = frozenset(changes["allow"])
    return base.replaced(limits=Limits(**limits), name="tier test", **changes)


def start(policy):
    worker = FX.StartWorkerProcess(policy=policy) | run
    session = registry.session_of(worker)
    answer = FX.SendCommandToWorkerProcess(process=worker, command=add(2, 3)) | run
    told = {
        "layers": list(session.layers), "tier": session.plan.tier, "notes": list(session.plan.notes),
        "abi": session.plan.landlock_abi, "answer": answer, "enforced": sorted(session.enforced),
    }  # fmt: skip
    FX.StopWorkerProcess(process=worker) | run
    return told


def pids_of(worker):
    supervisor = registry.session_of(worker).pid
    return [supervisor, *children_of(supervisor)]


def attack(policy, sentinel):
    neighbour = FX.StartWorkerProcess(policy=policy) | run
    host, (sibling, _) = os.getpid(), pids_of(neighbour)
    folder = os.path.dirname(sentinel)
    attacks = {
        "read the sentinel": read_file(sentinel),
        "read /etc/shadow": read_file("/etc/shadow"),
        "read /etc/passwd": read_file("/etc/passwd"),
        "read by /proc": read_file(f"/proc/{host}/root{sentinel}"),
        "read the host's environment": read_file(f"/proc/{host}/environ"),
        "read the sibling's memory": read_file(f"/proc/{sibling}/mem"),
        "list the sentinel's folder": list_folder(folder),
        "list /": list_folder("/"),
        "list /proc": list_folder("/proc"),
        "look for the sentinel": walk_everything(os.path.basename(sentinel)),
        "see that the sentinel exists": exists(sentinel),
        "look at the parent": parent_of_worker(),
        "write beside the sentinel": write_to(folder + "/planted"),
        "write to the sentinel": write_to(sentinel),
        "write to /tmp": write_to("/tmp/fxcell-planted"),
        "write to /dev/shm": write_to("/dev/shm/fxcell-planted"),
        "plant files": plant_files(),
        "kill the host": send_signal(host, 9),
        "see the host": send_signal(host, 0),
        "kill the sibling": send_signal(sibling, 9),
        "kill everybody": send_signal(-1, 9),
        "kill the group": send_signal(0, 9),
        "signal a thread of the host": signal_thread_of(host, 15),
        "limits of the host": signal_by_thread_limits(host),
        "become root": become_root(),
        "fork": fork(),
        "socket": try_socket(2, 1, 0),
        "unix socket": try_socket(1, 2, 0),
        "netlink": try_socket(16, 3, 0),
        "connect": connect("127.0.0.1", 22),
        "look up a name": look_up("localhost"),
        "ptrace the host": make_call(NUMBERS["ptrace"], 16, host, 0, 0),
        "read the host's memory": make_call(NUMBERS["process_vm_readv"], host, 0, 0, 0, 0, 0),
        "pidfd of the host": make_call(NUMBERS["pidfd_open"], host, 0),
        "run a program": make_call(NUMBERS["execve"], 0, 0, 0),
        "new user namespace": make_call(NUMBERS["unshare"], 0x10000000),
        "mount": make_call(NUMBERS["mount"], 0, 0, 0, 0, 0),
        "bpf": make_call(NUMBERS["bpf"], 0, 0, 0),
        "keyctl": make_call(NUMBERS["keyctl"], 0, 0, 0, 0, 0),
    }
    told = {}
    for name, call in attacks.items():
        worker = FX.StartWorkerProcess(policy=policy) | run
        outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=call, deadline_s=20.0))
        told[name] = f"{type(outcome).__name__}: {outcome}" if isinstance(outcome, Exception) else repr(outcome)
        FX.StopWorkerProcess(process=worker) | run
    told["the neighbour answers"] = repr(FX.SendCommandToWorkerProcess(process=neighbour, command=add(2, 3)) | run)
    told["the neighbour is the same"] = repr(pids_of(neighbour)[0] == sibling)
    return told


def ends(policy):
    told = {}
    for name, command, deadline_s in (
        ("abort", abort(), 20.0), ("segfault", segfault(), 20.0), ("memory", fill_memory(), 20.0), ("deadline", spin(), 0.5),
        ("denied", make_call(NUMBERS["ptrace"], 0, 0, 0, 0), 20.0),
    ):  # fmt: skip
        worker = FX.StartWorkerProcess(policy=policy) | run
        crash = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command, deadline_s=deadline_s))
        told[name] = [crash.reason, crash.evidence.signal, crash.detail, list(crash.evidence.layers)]
        FX.StopWorkerProcess(process=worker) | run
    return told


def crowd(policy):
    counts = []
    for _ in range(20):
        worker = FX.StartWorkerProcess(policy=policy) | run
        counts.append(FX.SendCommandToWorkerProcess(process=worker, command=start_crowd(12)) | run)
        FX.StopWorkerProcess(process=worker) | run
    return counts


def stay(policy):
    workers = [FX.StartWorkerProcess(policy=policy) | run for _ in range(2)]
    future = run.submit(FX.SendCommandToWorkerProcess(process=workers[0], command=spin()))
    print(json.dumps([os.getpid(), *(pid for worker in workers for pid in pids_of(worker))]), flush=True)
    sys.stdin.readline()
    for worker in workers:
        FX.StopWorkerProcess(process=worker) | run
    crash = future.exception()
    return [crash.reason, crash.detail]


def main():
    leaks.adopt_orphans()
    before = leaks.snapshot()
    what, policy, *rest = sys.argv[1:]
    try:
        acts = {"start": start, "attack": attack, "ends": ends, "crowd": crowd, "stay": stay}
        told = acts[what](policy_from(policy), *rest)
    except IsolationUnavailable as refusal:
        told = {"refused": [refusal.layer, refusal.cause, refusal.fix]}
    except PolicyError as error:
        told = {"policy": str(error)}
    print(json.dumps(told), flush=True)
    registry.shutdown()
    print(json.dumps({"left": leaks.wait_until_gone(before, patience_s=5.0)}), flush=True)


if __name__ == "__main__":
    main()
