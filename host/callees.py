"""Which plugins may be called by others through FX.CallPlugin: names that the host gives, each with code and a policy.

    callees.register("resize", "plugins/resize.py", policy="imaging")

A policy grants calls by such a name (effects.CallPlugin.plugins); what is behind the name is decided here, and what the
called plugin may do is decided by the policy given here. Files are read once, at registration.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fxcell.host.gates import Bucket, buckets_for
from fxcell.host.plugins import load_plugin, narrowed
from fxcell.policies.calls import Call, Definition, ZefFunction
from fxcell.policies.errors import PluginNotUsable
from fxcell.policies.loader import load_policy
from fxcell.policies.names import short
from fxcell.policies.plugin_names import check_plugin_name
from fxcell.policies.policy import Policy


@dataclass(frozen=True, slots=True)
class Callee:
    """A plugin that can be called.

    functions: name -> its code; the first is the default.
    rates:     the buckets of its policy's rates, for all its calls: each has a new worker, whose own would be full.
    """

    name: str
    policy: Policy
    functions: Mapping[str, Definition]
    rates: Mapping[str, Bucket]

    def call(self, function: str, arguments: dict[str, Any]) -> Call | None:
        """The call of a function ("" is the first) with these keyword arguments; None when there is no such function."""
        definition = self.functions.get(function or next(iter(self.functions)))
        return None if definition is None else Call(definition, (), arguments)


_callees: dict[str, Callee] = {}
_table = threading.Lock()


def register(
    name: str,
    plugin: str | os.PathLike[str] | ZefFunction,
    *,
    policy: str | os.PathLike[str] | Policy,
    functions: Sequence[str] = (),
) -> None:
    """Make a plugin callable under a name, in this process.

    plugin:    path of a .py file or of a folder with a plugin.toml, or a zef_function.
    policy:    what it may do, whoever calls it; cut down to what its plugin.toml requests.
    functions: those that may be called, the default first; () is the entry alone, `main` in a file.
    Raises: PolicyError; PluginNotUsable - as load_plugin, or the name is taken.
    """
    check_plugin_name("callees.register", name)
    granted = load_policy(policy)
    found: dict[str, Definition] = {}
    if isinstance(plugin, ZefFunction):
        if functions:
            raise PluginNotUsable(f"{short(plugin)} is one function: functions = {short(functions)} is without effect")
        found[plugin.function.__name__] = plugin.definition
    else:
        for function in functions or (None,):
            read = load_plugin(plugin, function)
            found[read.definition.name.rpartition(".")[2]] = read.definition
            granted = narrowed(granted, read)
    callee = Callee(name, granted, found, buckets_for(granted))
    with _table:
        if name in _callees:
            raise PluginNotUsable(f"a plugin is registered as {name!r} already; callees.unregister({name!r}) first")
        _callees[name] = callee


def unregister(name: str) -> None:
    """Let nobody call this plugin any more; calls that run go on. A name that is not registered is no error."""
    with _table:
        _callees.pop(name, None)


def registered() -> tuple[str, ...]:
    """The names that can be called, sorted."""
    return tuple(sorted(_callees))


def find(name: str) -> Callee | None:
    """What is registered under the name."""
    return _callees.get(name)


def _forget_after_fork() -> None:
    global _table
    _table = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
