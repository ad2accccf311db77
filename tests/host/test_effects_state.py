"""KeyValue effects: what a plugin keeps, lists and loses, whose it is, and its quota."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import pytest

from fxcell import *
from fxcell.host.broker import perform_locally
from fxcell.host.effects.context import Context
from fxcell.policies.builtin import KeyValueGet, KeyValueList, KeyValueSet
from tests.host.state_plugin import EFFECTS, Plugin


@pytest.fixture
def folder(tmp_path):
    made = tmp_path.resolve() / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def plugin(folder):
    made = Plugin(folder)
    yield made
    made.caller.close()


# --- what it does


def test_value_that_was_set_is_answered_exactly(plugin):
    for value in (b"", b"text", bytes(range(256)), os.urandom(1024 * 1024)):
        assert plugin.set("key", value) is None
        assert plugin.get("key") == value


def test_directory_that_is_not_there_is_said_once_and_is_no_line_of_the_log(tmp_path, caplog):
    plugin = Plugin(tmp_path.resolve() / "nothing")
    with pytest.raises(EffectFailed, match="the directory for state is not there") as failed:
        plugin.get("key")
    assert failed.value.kind == "not_found"
    assert not caplog.records


def test_key_that_is_not_there_is_none_and_deletes_nothing(plugin):
    assert plugin.get("none") is None
    assert plugin.delete("none") is False


def test_deleted_key_is_gone(plugin):
    plugin.set("key", b"1")
    assert plugin.delete("key") is True
    assert plugin.get("key") is None


@pytest.mark.parametrize("key", ["'; DROP TABLE entries; --", "../../etc/passwd", "%", "\n\x1b[31m", "ключ", "🔑", "k" * 512])
def test_any_text_is_a_key_and_nothing_but_a_key(plugin, key):
    plugin.set(key, b"1")
    assert plugin.get(key) == b"1"
    assert plugin.list(prefix=key)["keys"] == [key]


def test_keys_that_differ_in_case_or_unicode_form_are_different_keys(plugin):
    for value, key in enumerate(["e\u0301", "\u00e9", "E\u0301", "\u00c9"]):
        plugin.set(key, bytes([value]))
    assert [plugin.get(key) for key in ["e\u0301", "\u00e9", "E\u0301", "\u00c9"]] == [b"\0", b"\1", b"\2", b"\3"]


def test_listing_page_by_page_gives_every_key_once_in_order(plugin):
    keys = sorted([f"user/{number:03}" for number in range(25)] + ["user/é", "user/\U0001f511", "user/%"])
    for key in [*reversed(keys), "user", "users", "a", "v"]:
        plugin.set(key, b"")
    found, after = [], ""
    while after is not None:
        page = plugin.list(prefix="user/", after=after, limit=7)
        assert len(page["keys"]) <= 7
        found += page["keys"]
        after = page["next"]
    assert found == keys
    assert plugin.list(prefix="nobody") == {"keys": [], "next": None}
    assert plugin.list(limit=1) == {"keys": ["a"], "next": "a"}


@pytest.mark.parametrize("limit", [0, -1, 1001, 2**70])
def test_page_without_a_sensible_limit_is_bad_request(plugin, limit):
    assert plugin.kind(KeyValueList(limit=limit)) == "bad_request"


def test_plugins_do_not_see_each_other_and_workers_of_one_plugin_do(folder):
    one, same, other = Plugin(folder), Plugin(folder), Plugin(folder, "other")
    one.set("key", b"mine")
    assert same.get("key") == b"mine"
    assert other.get("key") is None
    other.set("key", b"theirs")
    assert one.get("key") == b"mine"
    for each in (one, same, other):
        each.caller.close()
    assert sorted(os.listdir(folder)) == ["notes.sqlite", "other.sqlite"]


def test_state_is_there_for_the_next_worker_and_for_sqlite3(folder):
    first = Plugin(folder)
    first.set("key", b"value")
    first.caller.close()
    second = Plugin(folder)
    assert second.get("key") == b"value"
    second.caller.close()
    with sqlite3.connect(folder / "notes.sqlite") as connection:
        assert connection.execute("SELECT key, value FROM entries").fetchall() == [("key", b"value")]
        assert connection.execute("SELECT keys, bytes FROM usage").fetchall() == [(1, 8)]
    connection.close()


def test_file_is_the_host_users_alone_and_synchronous(plugin, folder):
    plugin.set("key", b"1")
    for name in os.listdir(folder):
        assert stat.S_IMODE(os.stat(folder / name).st_mode) == 0o600
    connection = plugin.caller.kept["store"]._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- who may


def test_worker_without_a_plugin_has_no_state(folder):
    nobody = Plugin(folder, name="")
    assert nobody.kind(KeyValueGet(key="k")) == "no_plugin"
    assert os.listdir(folder) == []


def test_host_for_itself_has_no_state():
    asked = Context("host", None, time.monotonic() + 30, threading.Event().wait, print)
    with pytest.raises(EffectFailed) as failed:
        perform_locally(KeyValueGet(key="k"), asked)
    assert failed.value.kind == "no_plugin"


# --- quota


def test_quota_in_bytes_counts_keys_and_values_and_what_was_freed(folder):
    plugin = Plugin(folder, max_bytes=100, max_value_bytes=100)
    plugin.set("k" * 10, bytes(40))
    plugin.set("l" * 10, bytes(40))
    assert plugin.kind(KeyValueSet(key="m", value=b"")) == "quota"
    assert plugin.kind(KeyValueSet(key="k" * 10, value=bytes(41))) == "quota"
    assert plugin.get("k" * 10) == bytes(40)
    plugin.set("k" * 10, bytes(39))
    plugin.set("m", b"")
    plugin.delete("l" * 10)
    plugin.set("ü", bytes(47))  # 49 + 1 + 2 + 47, and one is left
    plugin.set("n", b"")
    assert plugin.kind(KeyValueSet(key="o", value=b"")) == "quota"
    plugin.caller.close()


def test_quota_in_keys_counts_keys_and_lets_them_be_replaced(folder):
    plugin = Plugin(folder, max_keys=3)
    for key in "abc":
        plugin.set(key, b"1")
    assert plugin.kind(KeyValueSet(key="d", value=b"")) == "quota"
    plugin.set("a", b"22")
    plugin.delete("b")
    plugin.set("d", b"")
    plugin.caller.close()


def test_plugin_over_a_quota_that_was_lowered_may_shrink(folder):
    before = Plugin(folder)
    before.set("a", bytes(1000))
    before.set("b", bytes(1000))
    before.caller.close()
    after = Plugin(folder, max_bytes=500, max_value_bytes=500)
    assert after.kind(KeyValueSet(key="c", value=b"")) == "quota"
    after.set("a", bytes(500))
    assert after.delete("b") is True
    assert after.kind(KeyValueSet(key="c", value=b"")) == "quota"
    after.caller.close()


def test_file_itself_cannot_outgrow_its_pages(folder, monkeypatch):
    plugin = Plugin(folder, max_bytes=2**20, max_value_bytes=2**20)
    plugin.set("a", b"1")
    connection = plugin.caller.kept["store"]._connection
    assert connection.execute("PRAGMA max_page_count").fetchone()[0] == 64 + (4 * 2**20 + 256 * 10_000) // 4096
    connection.execute("PRAGMA max_page_count = 20")
    assert plugin.kind(KeyValueSet(key="b", value=bytes(200_000))) == "quota"
    assert plugin.get("a") == b"1"
    plugin.caller.close()


@pytest.mark.slow
@pytest.mark.parametrize(("key_bytes", "value_bytes"), [(8, 4100), (512, 0), (8, 0), (200, 900)])
def test_quota_is_reached_before_the_pages_are_whatever_the_sizes(folder, key_bytes, value_bytes):
    plugin = Plugin(folder, max_bytes=2**18, max_value_bytes=2**18, max_keys=800)
    with pytest.raises(EffectFailed, match="keys") as failed:
        for number in range(10_001):
            plugin.set(f"{number * 7919 % 10_007:0{key_bytes}}", bytes(value_bytes))
            plugin.broker.begin_command()
    assert failed.value.kind == "quota"
    assert os.stat(folder / "notes.sqlite").st_size < 5 * 2**18
    plugin.caller.close()


# --- with workers


def state_policy(folder, **changes):
    rule = {"directory": str(folder)}
    return load_policy("compute").replaced(name="state", effects=dict.fromkeys(EFFECTS, rule), **changes)


@zef_function
def count_up():
    before = FX.KeyValueGet(key="count") | run
    FX.KeyValueSet(key="count", value=b"%d" % (int(before or b"0") + 1)) | run
    return before


def send(worker, command):
    return FX.SendCommandToWorkerProcess(process=worker, command=command) | run


def test_plugin_in_a_worker_finds_what_the_worker_before_it_kept(folder):
    answers = []
    for _ in range(3):
        worker = FX.StartWorkerProcess(policy=state_policy(folder), plugin="counter") | run
        answers.append(send(worker, count_up()))
        FX.StopWorkerProcess(process=worker) | run
        assert os.listdir(folder) == ["counter.sqlite"], "the connection was not closed with the worker"
    assert answers == [None, b"1", b"2"]


def test_worker_that_crashes_leaves_no_connection(folder):
    @zef_function
    def keep_and_die():
        import os

        FX.KeyValueSet(key="k", value=b"kept") | run
        os.abort()

    worker = FX.StartWorkerProcess(policy=state_policy(folder), plugin="counter") | run
    with pytest.raises(WorkerCrash):
        send(worker, keep_and_die())
    assert os.listdir(folder) == ["counter.sqlite"]
    worker = FX.StartWorkerProcess(policy=state_policy(folder), plugin="counter") | run
    assert send(worker, FX.KeyValueGet(key="k")) == b"kept"
    FX.StopWorkerProcess(process=worker) | run


@pytest.mark.parametrize("name", ["../other", "Notes", "", "a/b", "a" * 65, "nul\0"])
def test_worker_for_a_plugin_with_an_impossible_name_is_not_started(name):
    with pytest.raises(PolicyError, match="plugin's name"):
        FX.StartWorkerProcess(plugin=name) | run


def test_command_line_keeps_state_under_the_plugins_name(folder, tmp_path):
    rule = f'{{ directory = "{folder}" }}'
    policy = tmp_path / "p.toml"
    policy.write_text(f'extends = "compute"\n[effects]\nKeyValueGet = {rule}\nKeyValueSet = {rule}\n')
    plugin = tmp_path / "visits.py"
    plugin.write_text(
        "from fxcell import *\n\ndef main():\n    before = FX.KeyValueGet(key='n') | run\n"
        "    FX.KeyValueSet(key='n', value=(before or b'') + b'x') | run\n    return len(before or b'')\n"
    )
    command = [sys.executable, "-m", "fxcell", "run", str(plugin), "--policy", str(policy)]
    answers = [subprocess.run(command, capture_output=True, text=True, timeout=60).stdout for _ in range(2)]
    assert answers == ["0\n", "1\n"]
    assert os.listdir(folder) == ["visits.sqlite"]
