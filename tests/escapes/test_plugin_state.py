"""A plugin after the state of another, and after more than its own; plugins that call each other without end."""

import os
import sqlite3

import pytest

from fxcell import FX, EffectDenied, EffectFailed, WorkerCrash, load_policy, run, zef_function
from fxcell.host import callees
from tests.escapes.conftest import compute

EFFECTS = ("KeyValueGet", "KeyValueSet", "KeyValueDelete", "KeyValueList")
TRICKS = ("secret", "../victim/secret", "../victim.sqlite", "victim/secret", "victim.sqlite", "' OR '1'='1", "%", "_ecret", "*")


@pytest.fixture
def folder(arena):
    """A directory for state in which `victim` keeps the arena's secret."""
    made = arena.folder.resolve() / "state"
    made.mkdir(mode=0o700)
    command = FX.KeyValueSet(key="secret", value=arena.secret.encode())
    assert outcome_of(command, granted(made), "victim") is None
    yield made
    for name in callees.registered():
        callees.unregister(name)


def granted(folder, **quota):
    rule = {"directory": str(folder)}
    effects = {name: {**rule, **quota} if name == "KeyValueSet" else rule for name in EFFECTS}
    return compute(effects={**load_policy("compute").effects, **effects})


def outcome_of(command, policy, plugin):
    worker = FX.StartWorkerProcess(policy=policy, plugin=plugin) | run
    try:
        return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command))
    finally:
        FX.StopWorkerProcess(process=worker) | run


@zef_function
def look_everywhere(tricks):
    return [
        *((FX.KeyValueGet(key=trick) | run) for trick in tricks),
        *((FX.KeyValueList(prefix=trick) | run)["keys"] for trick in ("", *tricks)),
        *((FX.KeyValueDelete(key=trick) | run) for trick in tricks),
    ]


def test_state_of_another_plugin_is_not_reached_by_any_key(arena, folder):
    arena.outcomes.append(outcome_of(look_everywhere(TRICKS), granted(folder), "thief"))
    assert arena.outcomes[-1] == [None] * len(TRICKS) + [[]] * (len(TRICKS) + 1) + [False] * len(TRICKS)
    assert outcome_of(FX.KeyValueGet(key="secret"), granted(folder), "victim") == arena.secret.encode()


def test_control_the_same_look_by_the_plugin_itself_finds_it(arena, folder):
    found = outcome_of(look_everywhere(TRICKS), granted(folder), "victim")
    assert found[0] == arena.secret.encode()
    assert True in found


@zef_function
def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def test_file_of_the_state_is_not_opened_by_a_worker(arena, folder):
    path = str(folder / "victim.sqlite")
    arena.attack(read_file(path), granted(folder))
    assert "FileNotFoundError" in str(arena.outcomes[-1]) or "PermissionError" in str(arena.outcomes[-1])
    if os.geteuid() != 0:  # the trusted worker of root has a user of its own, and the file is its owner's alone
        assert arena.secret.encode() in arena.control(read_file(path))


@zef_function
def fill(value_bytes):
    count = 0
    while True:
        FX.KeyValueSet(key=f"{count:0500}", value=bytes(value_bytes)) | run
        count += 1


@pytest.mark.parametrize("value_bytes", [0, 10_000])
def test_filling_the_disk_ends_at_the_quota(arena, folder, value_bytes):
    quota = {"max_bytes": 2**20, "max_value_bytes": 2**16, "max_keys": 1000}
    ended = outcome_of(fill(value_bytes), granted(folder, **quota), "glutton")
    arena.outcomes.append(ended)
    assert isinstance(ended, EffectFailed)
    assert ended.kind == "quota"
    assert os.stat(folder / "glutton.sqlite").st_size < 5 * 2**20
    assert outcome_of(FX.KeyValueGet(key="secret"), granted(folder), "victim") == arena.secret.encode()


@zef_function
def rewrite():
    while True:
        FX.KeyValueSet(key="k", value=bytes(2**16)) | run


def test_writing_the_same_key_without_end_ends_at_the_budget_and_the_file_stays_small(arena, folder):
    limits = {"effects": 300}
    policy = compute(effects=granted(folder).effects, limits=limits)
    ended = outcome_of(rewrite(), policy, "scribbler")
    arena.outcomes.append(ended)
    assert isinstance(ended, EffectDenied)
    assert sum(os.stat(folder / name).st_size for name in os.listdir(folder) if name.startswith("scrib")) < 2**20


def test_killed_in_the_middle_of_writing_the_file_is_whole(arena, folder):
    @zef_function
    def write_and_die():
        import os

        for number in range(50):
            FX.KeyValueSet(key=f"k{number}", value=bytes(1000)) | run
        os.abort()

    ended = outcome_of(write_and_die(), granted(folder), "victim")
    assert isinstance(ended, WorkerCrash)
    connection = sqlite3.connect(folder / "victim.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM entries").fetchone() == (51,)
    connection.close()


@zef_function
def call_all(names, depth=0):
    """Call every plugin there is, and have each do the same; count what was refused."""
    refused = 0
    for name in names:
        try:
            refused += FX.CallPlugin(plugin=name, arguments={"names": names, "depth": depth + 1}) | run
        except EffectFailed as failed:
            refused += failed.kind in ("cycle", "depth")
    return refused


def test_plugins_that_call_each_other_in_every_way_end(arena, folder):
    names = ["a", "b", "c"]
    policy = compute(effects={"CallPlugin": {"plugins": names}})
    before = FX.ListWorkerProcesses() | run
    for name in names:
        callees.register(name, call_all, policy=policy)
    # 3 below nobody, 2 below each, 1 below each of these; every other call comes back: 3 + 3*2 + 3*2*1 = 15 workers
    assert outcome_of(call_all(names), policy, None) == 3 * (1 + 2 * (2 + 1 * 3))
    assert [worker["pid"] for worker in FX.ListWorkerProcesses() | run] == [worker["pid"] for worker in before]


def test_callee_that_dies_every_time_costs_its_caller_nothing_but_the_answer(arena, folder):
    @zef_function
    def die():
        import ctypes

        ctypes.string_at(0)

    @zef_function
    def insist():
        kinds = set()
        for _ in range(10):
            try:
                FX.CallPlugin(plugin="die") | run
            except EffectFailed as failed:
                kinds.add((failed.kind, failed.message))
        return kinds

    callees.register("die", die, policy="compute")
    policy = compute(effects={"CallPlugin": {"plugins": ["die"]}})
    assert outcome_of(insist(), policy, None) == {("crashed", "the plugin 'die' crashed: signal")}
