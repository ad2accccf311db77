"""A plugin's SQLite file: opening it safely, holding it open for a worker, and what goes wrong with it in words.

    Store(directory, plugin) --use(pace)--> sqlite3.Connection, for one piece of work at a time

    entries(key, value)      the plugin's data: `sqlite3 notes.sqlite 'select key from entries'` reads it
    usage(only, keys, bytes) what there is in all, kept by triggers

Guarantees: WAL and synchronous=FULL, so that what was committed is on disk; a file, its -wal and its -shm are regular files
with one name in a directory that only the host's user can write; a file whose schema is not exactly ours is left alone. At most
MAX_OPEN files are open in this process: the one that was idle longest is closed for the next, and opened again when needed.
Assumes: nobody in this process opens and closes the file itself, which would drop SQLite's locks on it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from urllib.parse import quote

from fxcell.host.effects.basic import visible
from fxcell.host.effects.context import Pace
from fxcell.host.effects.openat2 import open_beneath
from fxcell.policies.errors import EffectFailed

MAX_OPEN = 64
PAGE_BYTES = 4096
BUSY_S = 0.1
"""How long SQLite itself waits for another's lock before the effect's time is looked at again."""

_APPLICATION_ID = 0x66786B76  # "fxkv", PRAGMA application_id: what file(1) and we know the file by
_VERSION = 1
_MAX_LENGTH_BYTES = 260 * 2**20  # over the largest value that a rule can grant
_SUFFIXES = ("", "-wal", "-shm")
_SCHEMA = (
    "CREATE TABLE entries (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL)",
    ("CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN UPDATE usage SET keys = keys + 1,"
    " bytes = bytes + length(CAST(new.key AS BLOB)) + length(new.value); END"),
    ("CREATE TRIGGER entry_changed AFTER UPDATE ON entries BEGIN UPDATE usage SET"
    " bytes = bytes + length(CAST(new.key AS BLOB)) + length(new.value)"
    " - length(CAST(old.key AS BLOB)) - length(old.value); END"),
    ("CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN UPDATE usage SET keys = keys - 1,"
    " bytes = bytes - length(CAST(old.key AS BLOB)) - length(old.value); END"),
    "CREATE TABLE usage (only INTEGER PRIMARY KEY CHECK (only = 1), keys INTEGER NOT NULL, bytes INTEGER NOT NULL)",
)
_log = logging.getLogger("fxcell.state")

_open: dict[Store, None] = {}
"""The stores that are open or about to be, the longest unused first."""
_table = threading.Lock()
_opening = threading.Lock()
_of_the_parent: list[sqlite3.Connection | None] = []
"""In the child of a fork: SQLite's connections must not be used or closed there (sqlite.org/howtocorrupt.html, 2.6)."""


class Store:
    """One plugin's file, for one worker. Safe from many threads, which take turns."""

    def __init__(self, directory: str, plugin: str, max_pages: int | None) -> None:
        """Nothing is opened yet. max_pages: the size the file may grow to, in pages of PAGE_BYTES; None leaves it."""
        self._directory = directory
        self._name = f"{plugin}.sqlite"
        self._max_pages = max_pages
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def use(self, pace: Pace) -> Iterator[sqlite3.Connection]:
        """The open connection, in no transaction before and after; what was not committed is rolled back.

        Raises: EffectFailed - timeout, cancelled, not_found, permission, not_regular, foreign, unsupported.
                sqlite3.Error, OSError - see `failure`.
        """
        with self._lock:
            if self._connection is not None and self._inode != self._inode_there():
                self._disconnect()  # somebody put another file in its place: what we wrote would be lost
            if self._connection is None:
                self._reserve(pace)
                try:
                    self._connect()
                except BaseException:
                    self._disconnect()
                    raise
            with _table:
                _open[self] = _open.pop(self, None)
            assert self._connection is not None
            try:
                yield self._connection
            except sqlite3.Error as error:
                if not is_busy(error):
                    self._disconnect()  # after corruption or an I/O error its state is unknown
                raise
            finally:
                self._roll_back()

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.rollback()

    def close(self) -> None:
        """Close the file; `use` would open it again."""
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        except sqlite3.Error:
            _log.exception("closing the state file %s", os.path.join(self._directory, self._name))
        finally:
            with _table:
                _open.pop(self, None)

    def _reserve(self, pace: Pace) -> None:
        """Get one of the MAX_OPEN places. Raises EffectFailed(timeout) when all are in use for so long."""
        while True:
            with _table:
                if len(_open) < MAX_OPEN:
                    _open[self] = None
                    return
                idle = next((store for store in _open if store._lock.acquire(blocking=False)), None)
            if idle is None:
                pace.wait(0.01)
                continue
            try:
                idle._disconnect()
            finally:
                idle._lock.release()

    def _inode_there(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            found = os.stat(os.path.join(self._directory, self._name), follow_symlinks=False)
            return found.st_dev, found.st_ino
        return None

    def _connect(self) -> None:
        # One at a time: closing a new file must not drop the locks of a connection that another thread has just made.
        with _opening:
            folder = self._folder()
            try:
                self._inode = self._checked_file(folder)
            finally:
                os.close(folder)
            path = quote(os.path.join(self._directory, self._name))
            connection = sqlite3.connect(
                f"file:{path}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._connection = connection
            _harden(connection)
            _prepare(connection)
            if self._max_pages is not None:
                connection.execute(f"PRAGMA max_page_count = {int(self._max_pages)}")

    def _folder(self) -> int:
        """A descriptor of the directory. Raises EffectFailed for one that others than the host's user could change."""
        top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            path = os.fsencode(self._directory[1:])
            folder = open_beneath(top, path, os.O_RDONLY | os.O_DIRECTORY)
        finally:
            os.close(top)
        found = os.fstat(folder)
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o022:
            os.close(folder)
            _log.error("%s: must belong to uid %d and be writable for nobody else", self._directory, os.geteuid())
            text = "the directory for state must belong to the host's user and be writable for nobody else"
            raise _failed("permission", text)
        return folder

    def _checked_file(self, folder: int) -> tuple[int, int]:
        """(device, inode) of the file, which is made when it is not there."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder))
            os.fsync(folder)
        for suffix in _SUFFIXES:
            try:
                found = os.stat(self._name + suffix, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue  # of -wal and -shm; the main file is there by now
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise _failed("not_regular", "the plugin's file is not a regular file with one name")
        found = os.stat(self._name, dir_fd=folder, follow_symlinks=False)
        return found.st_dev, found.st_ino


def _harden(connection: sqlite3.Connection) -> None:
    """The file may have been damaged or made by somebody else: it must not be able to do more than hold data."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_LENGTH_BYTES)
    for setting in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {setting}")
    defensive = getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE", None)  # since Python 3.12
    if defensive is not None:
        connection.setconfig(defensive, True)  # type: ignore[attr-defined]


def _prepare(connection: sqlite3.Connection) -> None:
    """Check that the file is ours, or empty; make the tables of an empty one."""
    # In one transaction, so that the answers are of one state: another process may be making the tables at this moment.
    connection.execute("BEGIN")
    try:
        blank = _look(connection)
    finally:
        connection.rollback()
    if blank:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise _failed("unsupported", "the file system of the plugin's file has no shared memory, which SQLite's WAL needs")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 4194304")
    if not blank:
        return
    connection.execute("BEGIN IMMEDIATE")
    if _look(connection):  # another process may have been faster
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO usage VALUES (1, 0, 0)")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


def _look(connection: sqlite3.Connection) -> bool:
    """True for an empty file, False for one of ours. Raises EffectFailed(foreign) for anything else."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    statements = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name LIMIT 100").fetchall()
    if (application, version, statements) == (0, 0, []):
        return True
    if (application, version) != (_APPLICATION_ID, _VERSION) or [row[0] for row in statements] != list(_SCHEMA):
        raise _failed("foreign", "the plugin's file was made by something else; it is left as it is")
    return False


def is_busy(error: sqlite3.Error) -> bool:
    """True when another connection held the lock: to be tried again."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


_KINDS = {
    sqlite3.SQLITE_FULL: ("quota", "the plugin's file is as large as it may be, or the disk is full"),
    sqlite3.SQLITE_CORRUPT: ("corrupt", "the plugin's file is damaged"),
    sqlite3.SQLITE_NOTADB: ("foreign", "the plugin's file is no SQLite file; it is left as it is"),
    sqlite3.SQLITE_READONLY: ("permission", "the host may not write the plugin's file"),
    sqlite3.SQLITE_CANTOPEN: ("permission", "the host could not open the plugin's file"),
    sqlite3.SQLITE_PERM: ("permission", "the host may not use the plugin's file"),
    sqlite3.SQLITE_IOERR: ("io", "the disk failed at the plugin's file"),
    sqlite3.SQLITE_TOOBIG: ("corrupt", "the plugin's file holds something larger than was ever stored"),
}


def failure(effect: str, error: sqlite3.Error | OSError) -> EffectFailed:
    """What went wrong with the file, without a path of the host; the host's log has all of it that the text leaves out."""
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return EffectFailed(effect, "not_found", "the directory for state is not there")
    _log.error("FX.%s: %s (%s)", effect, visible(str(error)), getattr(error, "sqlite_errorname", type(error).__name__))
    if isinstance(error, OSError):
        return EffectFailed(effect, "permission", f"the directory for state cannot be used: {os.strerror(error.errno or 0)}")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # without one: text that is no UTF-8
    return EffectFailed(effect, *_KINDS.get(code, ("io", "SQLite could not use the plugin's file; the host's log says why")))


def _failed(kind: str, text: str) -> EffectFailed:
    return EffectFailed("KeyValue", kind, text)


def _forget_after_fork() -> None:
    global _table, _opening
    _of_the_parent.extend(store._connection for store in _open)
    for store in _open:
        store._connection, store._lock = None, threading.Lock()
    _open.clear()
    _table, _opening = threading.Lock(), threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
