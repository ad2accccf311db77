"""The SQLite file behind the KeyValue effects: everything that can be wrong with it, and several that use it at once."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading

import pytest

from fxcell import EffectFailed
from fxcell.host.effects import store
from fxcell.policies.builtin import KeyValueGet, KeyValueList, KeyValueSet
from tests.host.state_plugin import Plugin


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


# --- what can be wrong with the file


def test_directory_that_is_not_there_is_not_found(tmp_path):
    assert Plugin(tmp_path.resolve() / "none").kind(KeyValueGet(key="k")) == "not_found"


def test_directory_that_others_may_write_is_refused(folder):
    folder.chmod(0o770)
    assert Plugin(folder).kind(KeyValueSet(key="k", value=b"")) == "permission"
    folder.chmod(0o707)
    assert Plugin(folder).kind(KeyValueSet(key="k", value=b"")) == "permission"
    assert os.listdir(folder) == []


def test_directory_behind_a_symbolic_link_is_refused(folder):
    (folder.parent / "link").symlink_to(folder)
    assert Plugin(folder.parent / "link").kind(KeyValueSet(key="k", value=b"")) == "permission"
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["notes.sqlite", "notes.sqlite-wal", "notes.sqlite-shm"])
def test_symbolic_link_in_the_files_place_is_refused_and_its_target_untouched(folder, name):
    target = folder.parent / "target"
    target.write_bytes(b"")
    (folder / name).symlink_to(target)
    assert Plugin(folder).kind(KeyValueSet(key="k", value=b"1")) == "not_regular"
    assert target.read_bytes() == b""


@pytest.mark.parametrize("name", ["notes.sqlite", "notes.sqlite-wal"])
def test_fifo_in_the_files_place_is_refused_without_blocking(folder, name):
    os.mkfifo(folder / name)
    assert Plugin(folder).kind(KeyValueSet(key="k", value=b"1")) == "not_regular"


def test_hard_link_in_the_files_place_is_refused(folder):
    (folder.parent / "other").write_bytes(b"")
    os.link(folder.parent / "other", folder / "notes.sqlite")
    assert Plugin(folder).kind(KeyValueSet(key="k", value=b"1")) == "not_regular"


def test_file_that_is_no_database_is_foreign_and_left_alone(folder):
    content = b"these are not the bytes of SQLite" * 300
    (folder / "notes.sqlite").write_bytes(content)
    assert Plugin(folder).kind(KeyValueSet(key="k", value=b"1")) == "foreign"
    assert (folder / "notes.sqlite").read_bytes() == content


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE entries (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL)",
        "PRAGMA application_id = 7",
        "CREATE VIEW entries AS SELECT 1 AS key, 2 AS value",
        "PRAGMA user_version = 9",
    ],
)
def test_database_of_something_else_is_foreign_and_left_alone(folder, script):
    path = folder / "notes.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    before = path.read_bytes()
    assert Plugin(folder).kind(KeyValueSet(key="k", value=b"1")) == "foreign"
    assert path.read_bytes() == before


def test_own_file_with_a_trigger_added_by_somebody_is_foreign(folder):
    first = Plugin(folder)
    first.set("k", b"1")
    first.caller.close()
    connection = sqlite3.connect(folder / "notes.sqlite")
    connection.executescript("CREATE TRIGGER more AFTER INSERT ON entries BEGIN DELETE FROM entries; END")
    connection.close()
    assert Plugin(folder).kind(KeyValueGet(key="k")) == "foreign"


def test_damaged_file_is_corrupt_and_the_host_lives(folder):
    plugin = Plugin(folder)
    for number in range(200):
        plugin.set(f"key{number}", os.urandom(2000))
        plugin.broker.begin_command()
    plugin.caller.close()
    path = folder / "notes.sqlite"
    content = bytearray(path.read_bytes())
    for start in range(8 * 4096, len(content), 4096):
        content[start : start + 100] = os.urandom(100)
    path.write_bytes(content)
    kinds = set()
    for number in range(200):
        try:
            plugin.get(f"key{number}")
        except EffectFailed as failed:
            kinds.add(failed.kind)
        plugin.broker.begin_command()
    assert kinds
    assert kinds <= {"corrupt", "foreign"}
    plugin.caller.close()


@pytest.mark.parametrize(
    "script", ["UPDATE entries SET value = 'text'", "DELETE FROM usage", "UPDATE usage SET bytes = 'many'"]
)
def test_content_of_a_kind_that_was_never_stored_is_corrupt(folder, script):
    plugin = Plugin(folder)
    plugin.set("k", b"1")
    plugin.caller.close()
    connection = sqlite3.connect(folder / "notes.sqlite")
    connection.executescript(script)
    connection.close()
    effect = KeyValueGet(key="k") if "entries" in script else KeyValueSet(key="k", value=b"1")
    assert plugin.kind(effect) == "corrupt"
    plugin.caller.close()


def test_key_that_is_no_text_of_unicode_is_corrupt(folder):
    plugin = Plugin(folder)
    plugin.set("k", b"1")
    plugin.caller.close()
    connection = sqlite3.connect(folder / "notes.sqlite")
    connection.execute("UPDATE entries SET key = CAST(x'ff1b' AS TEXT)")
    connection.commit()
    connection.close()
    assert plugin.kind(KeyValueList()) == "corrupt"
    plugin.caller.close()


def test_file_replaced_under_an_open_connection_is_opened_again(plugin, folder):
    plugin.set("old", b"1")
    for name in os.listdir(folder):
        (folder / name).unlink()
    plugin.set("new", b"1")
    other = Plugin(folder)
    assert other.list()["keys"] == ["new"], "an acknowledged write went into a file that nobody has"
    other.caller.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes what is read-only")
def test_file_that_the_host_may_not_write_is_permission(folder):
    first = Plugin(folder)
    first.set("k", b"1")
    first.caller.close()
    (folder / "notes.sqlite").chmod(0o400)
    assert Plugin(folder).kind(KeyValueSet(key="k", value=b"2")) == "permission"


# --- several at once


def test_lock_held_by_another_process_ends_in_timeout_and_then_works(folder):
    plugin = Plugin(folder)
    plugin.set("k", b"1")
    holder = sqlite3.connect(folder / "notes.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    plugin.seconds = 0.3
    assert plugin.kind(KeyValueSet(key="k", value=b"2")) == "timeout"
    plugin.seconds = 30.0
    assert plugin.get("k") == b"1"
    holder.execute("ROLLBACK")
    holder.close()
    plugin.set("k", b"3")
    assert plugin.get("k") == b"3"
    plugin.caller.close()


def test_worker_that_died_does_not_wait_for_a_lock(folder):
    plugin = Plugin(folder)
    plugin.set("k", b"1")
    holder = sqlite3.connect(folder / "notes.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    plugin.cancelled.set()
    assert plugin.kind(KeyValueSet(key="k", value=b"2")) == "cancelled"
    holder.close()
    plugin.caller.close()


WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from tests.host.state_plugin import Plugin
plugin = Plugin(sys.argv[1])
for number in range(100):
    plugin.set(f"{sys.argv[2]}/{number}", b"x")
plugin.caller.close()
"""


def test_two_host_processes_write_one_file_and_nothing_is_lost(folder):
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(folder), name, top], cwd=top) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    plugin = Plugin(folder)
    for name in "ab":
        assert len(plugin.list(prefix=f"{name}/", limit=1000)["keys"]) == 100
    plugin.caller.close()


def test_threads_of_one_host_write_one_file_and_nothing_is_lost(folder):
    plugins = [Plugin(folder) for _ in range(4)]

    def write(name, plugin):
        for number in range(50):
            plugin.set(f"{name}/{number}", b"x")
        plugin.caller.close()

    threads = [threading.Thread(target=write, args=item) for item in enumerate(plugins)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = Plugin(folder)
    assert len(reader.list(limit=1000)["keys"]) == 200
    reader.caller.close()


def test_more_plugins_than_files_may_be_open_take_turns(folder, monkeypatch):
    monkeypatch.setattr(store, "MAX_OPEN", 3)
    plugins = [Plugin(folder, f"p{number}") for number in range(8)]
    before = len(os.listdir("/proc/self/fd"))
    for turn in range(2):
        for number, plugin in enumerate(plugins):
            plugin.set("turn", bytes([turn, number]))
            assert len(os.listdir("/proc/self/fd")) <= before + 3 * 4
    assert [plugin.get("turn") for plugin in plugins] == [bytes([1, number]) for number in range(8)]
    for plugin in plugins:
        plugin.caller.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_failed_opens_leave_no_descriptor_and_no_place_taken(folder):
    (folder / "notes.sqlite").write_bytes(b"not a database at all" * 300)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert Plugin(folder).kind(KeyValueGet(key="k")) == "foreign"
    assert len(os.listdir("/proc/self/fd")) == before
    assert not store._open


def test_child_of_a_fork_leaves_the_parents_connection_alone(plugin, folder):
    plugin.set("k", b"1")
    child = os.fork()
    if child == 0:
        try:
            plugin.set("from the child", b"2")  # over a connection of its own
            plugin.caller.close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    plugin.set("k", b"3")
    assert plugin.list()["keys"] == ["from the child", "k"]


def test_file_that_another_process_fills_while_it_is_looked_at_is_not_taken_for_a_foreign_one(tmp_path):
    path = str(tmp_path / "a.sqlite")
    other = sqlite3.connect(path, isolation_level=None, timeout=0.05)

    class Interrupted(sqlite3.Connection):
        interrupted = False

        def execute(self, sql, *arguments):
            if sql == "PRAGMA user_version" and not self.interrupted:
                self.interrupted = True
                with contextlib.suppress(sqlite3.OperationalError):  # it may be kept waiting
                    store._prepare(other)
            return super().execute(sql, *arguments)

    mine = sqlite3.connect(path, isolation_level=None, timeout=0.05, factory=Interrupted)
    store._prepare(mine)
    assert mine.interrupted
    assert not store._look(mine)
    other.close()
    mine.close()
