"""KeyValueGet, KeyValueSet, KeyValueDelete, KeyValueList: a plugin's own data, in a SQLite file of its own (store.py).

Whose file it is follows from context.caller, which the host made when it started the worker. A write is answered after its
transaction was committed; a host that is killed before may have written it or not, never half of it.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from fxcell.host.effects import store
from fxcell.host.effects.context import Context, pace_of
from fxcell.host.effects.store import PAGE_BYTES, Store
from fxcell.policies.builtin import KeyValueDelete, KeyValueGet, KeyValueList, KeyValueSet
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectFailed
from fxcell.policies.policy import Policy
from fxcell.policies.state_rule import StateRule, StateSetRule

MAX_PAGE_KEYS = 1000
"""Keys in one answer of KeyValueList."""

_Result = TypeVar("_Result")
_UPSERT = "INSERT INTO entries VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_USAGE = "SELECT keys, bytes FROM usage"
_PAGE = "SELECT key FROM entries WHERE key >= ? AND key > ? ORDER BY key LIMIT ?"


def perform_get(effect: KeyValueGet, context: Context) -> bytes | None:
    """The value, or None. Raises EffectFailed, as all here: no_plugin, quota, and what store.py raises."""

    def work(connection: sqlite3.Connection) -> bytes | None:
        row = connection.execute("SELECT value FROM entries WHERE key = ?", (effect.key,)).fetchone()
        if row is not None and type(row[0]) is not bytes:
            raise EffectFailed("KeyValueGet", "corrupt", "the plugin's file is damaged")
        return row[0] if row else None

    return _in_store(effect, context, work)


def perform_set(effect: KeyValueSet, context: Context) -> None:
    """Write one entry; over a quota nothing is changed. A file that is over already may still shrink."""
    rule = _rule(effect, context)
    assert isinstance(rule, StateSetRule)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        keys, size = _usage(connection)
        connection.execute(_UPSERT, (effect.key, effect.value))
        keys_then, size_then = _usage(connection)
        if size_then > max(rule.max_bytes, size):
            text = f"keys and values would be {size_then} bytes, over max_bytes = {rule.max_bytes}"
            raise EffectFailed("KeyValueSet", "quota", text)
        if keys_then > max(rule.max_keys, keys):
            raise EffectFailed("KeyValueSet", "quota", f"there would be {keys_then} keys, over max_keys = {rule.max_keys}")
        connection.execute("COMMIT")

    _in_store(effect, context, work)


def perform_delete(effect: KeyValueDelete, context: Context) -> bool:
    """Remove one entry; True when there was one."""

    def work(connection: sqlite3.Connection) -> bool:
        connection.execute("BEGIN IMMEDIATE")
        removed = connection.execute("DELETE FROM entries WHERE key = ?", (effect.key,)).rowcount
        connection.execute("COMMIT")
        return removed > 0

    return _in_store(effect, context, work)


def perform_list(effect: KeyValueList, context: Context) -> dict[str, Any]:
    """One page of keys: {keys, next}."""
    if not 1 <= effect.limit <= MAX_PAGE_KEYS:
        raise EffectFailed("KeyValueList", "bad_request", f"limit must be 1 to {MAX_PAGE_KEYS}, not {effect.limit}")

    def work(connection: sqlite3.Connection) -> list[Any]:
        return connection.execute(_PAGE, (effect.prefix, effect.after, effect.limit + 1)).fetchall()

    # UTF-8 sorts as code points do, so the keys with a prefix are next to each other.
    found = itertools.takewhile(lambda key: key.startswith(effect.prefix), (row[0] for row in _in_store(effect, context, work)))
    keys = list(found)
    return {"keys": keys[: effect.limit], "next": keys[effect.limit - 1] if len(keys) > effect.limit else None}


def _usage(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many keys, how many bytes there are."""
    row = connection.execute(_USAGE).fetchone()
    if row is None or type(row[0]) is not int or type(row[1]) is not int:
        raise EffectFailed("KeyValueSet", "corrupt", "the plugin's file is damaged")
    return row[0], row[1]


def _rule(effect: Effect, context: Context) -> StateRule:
    rule = context.policy.effects[effect.effect_name] if context.policy is not None else None
    if not isinstance(rule, StateRule) or context.caller is None:
        text = "only a worker's plugin has state; the host reads a plugin's file with sqlite3"
        raise EffectFailed(effect.effect_name, "no_plugin", text)
    return rule


def _in_store(effect: Effect, context: Context, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
    """Do the work in the worker's store, again while others hold the lock and there is time."""
    name, caller, pace = effect.effect_name, context.caller, pace_of(effect, context)
    directory = _rule(effect, context).directory
    assert caller is not None
    assert context.policy is not None
    if not caller.plugin:
        text = "the worker was started for no plugin: FX.StartWorkerProcess(policy=…, plugin='name')"
        raise EffectFailed(name, "no_plugin", text)
    kept = caller.kept.get("store")
    if not isinstance(kept, Store):
        caller.kept["store"] = kept = Store(directory, caller.plugin, _max_pages(context.policy))
    while True:
        pace.check()
        try:
            with kept.use(pace) as connection:
                return work(connection)
        except sqlite3.Error as error:
            if not store.is_busy(error):
                raise store.failure(name, error) from error
        except OSError as error:
            raise store.failure(name, error) from error
        except EffectFailed as failed:
            raise EffectFailed(name, failed.kind, failed.message) from failed


def _max_pages(policy: Policy) -> int | None:
    """A bound for the file that the quota in bytes and keys reaches first: pages are half full, keys are there twice."""
    rule = policy.effects.get("KeyValueSet")
    if not isinstance(rule, StateSetRule):
        return None
    return 64 + (4 * rule.max_bytes + 256 * rule.max_keys) // PAGE_BYTES
