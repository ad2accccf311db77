"""Plugins: a .py file, or a folder with a plugin.toml, as values that a worker can run.

    plugin = load_plugin("thumbnails/")
    worker = FX.StartWorkerProcess(policy=narrowed(policy, plugin)) | run
    FX.SendCommandToWorkerProcess(process=worker, command=plugin.call(size=200)) | run

The host reads bytes and nothing else: it never imports, compiles or evaluates a plugin. A worker does, after its lockdown
(sandbox/code.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fxcell.host import manifest, plugin_files
from fxcell.policies import calls
from fxcell.policies.calls import Call, Definition
from fxcell.policies.errors import EffectError, PluginNotUsable, PolicyError
from fxcell.policies.names import short
from fxcell.policies.policy import Policy
from fxcell.sandbox.code import PLUGIN_MAGIC

DEFAULT_FUNCTION = "main"
"""What is called in a plugin file when nobody says otherwise."""

_RESERVED = sys.stdlib_module_names | {"fxcell", "__main__"}
"""Modules that a worker has loaded for itself, or that a plugin itself will want: no entry can have their names."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that was read, and not run.

    digest:            SHA-256, in hex, of its files and its entry.
    requested_effects: what its plugin.toml asks for, sorted; None for a plain file, which asks for what the policy grants.
    """

    name: str
    version: str
    digest: str
    requested_effects: tuple[str, ...] | None
    definition: Definition = field(repr=False, compare=False)

    def call(self, /, **arguments: Any) -> Call:
        """The call of its entry with these arguments, as a value for FX.SendCommandToWorkerProcess."""
        for name in arguments:
            if not name.isidentifier():
                raise EffectError(f"{short(name)} cannot be the name of an argument")
        return Call(self.definition, (), arguments)


def load_plugin(path: str | os.PathLike[str], function: str | None = None) -> Plugin:
    """Read a plugin.

    path:     a .py file, or a folder with a plugin.toml; names in it that start with a dot, and __pycache__, are skipped.
    function: what to call instead of the entry's function, or of `main` in a file.
    Raises: PluginNotUsable - not there, not readable, over a cap, holds a link or device, entry without a file.
            PolicyError - the plugin.toml, with file and line.
    """
    path = os.fspath(path)
    if function is not None and not (function.isidentifier() and function.isascii()):
        raise PluginNotUsable(f"{short(function)} cannot be the name of a function: write PATH:FUNCTION")
    if plugin_files.is_folder(path):
        return _load_folder(path, function)
    return _load_file(path, function or DEFAULT_FUNCTION)


def narrowed(policy: Policy, plugin: Plugin) -> Policy:
    """The policy without the effects that the plugin does not request: what a worker for this plugin gets."""
    requested = plugin.requested_effects
    if requested is None or policy.effects.keys() <= set(requested):
        return policy
    kept = {name: rule for name, rule in policy.effects.items() if name in requested}
    return policy.replaced(name=f"{policy.name}, narrowed to what {plugin.name} requests", effects=kept)


def _load_file(path: str, function: str) -> Plugin:
    stem, extension = os.path.splitext(os.path.basename(path))
    if extension != ".py":
        raise PluginNotUsable(f"{path!r} is not a .py file; a plugin is one, or a folder with a plugin.toml")
    module = re.sub(r"\W", "_", stem, flags=re.ASCII)
    if not module.isidentifier() or module in _RESERVED:
        module = f"plugin_{module}"
    definition = _packed(stem, f"{module}:{function}", {f"{module}.py": plugin_files.read_file(path)})
    return Plugin(stem, "", definition.digest, None, definition)


def _load_folder(path: str, function: str | None) -> Plugin:
    files = plugin_files.read_folder(path)
    place = os.path.join(path, manifest.FILE_NAME)
    if manifest.FILE_NAME not in files:
        raise PluginNotUsable(
            f"the folder {path!r} has no {manifest.FILE_NAME}: write one with name, version, entry and effects, "
            "or give the path of a .py file"
        )
    read = manifest.parse_manifest(files[manifest.FILE_NAME], place)
    _check_entry(read, files)
    definition = _packed(read.name, f"{read.module}:{function or read.function}", files)
    return Plugin(read.name, read.version, definition.digest, read.effects, definition)


def _check_entry(read: manifest.Manifest, files: dict[str, bytes]) -> None:
    top = read.module.partition(".")[0]
    if top in _RESERVED:
        text = f"entry: {top!r} is the name of a module that every worker has already; rename the plugin's own"
        raise PolicyError(text, read.file, read.entry_line, at=("entry",))
    base = read.module.replace(".", "/")
    if f"{base}.py" not in files and f"{base}/__init__.py" not in files:
        there = ", ".join(name for name in files if name.endswith(".py"))[:300] or "none"
        text = f"entry: the plugin has no file {base}.py for the module {read.module!r}. Its .py files: {there}"
        raise PolicyError(text, read.file, read.entry_line, at=("entry",))


def _packed(name: str, entry: str, files: dict[str, bytes]) -> Definition:
    code = PLUGIN_MAGIC + msgspec.msgpack.encode({"entry": entry, "files": files})
    definition = Definition(hashlib.sha256(code).hexdigest(), f"{name}.{entry.partition(':')[2]}", code)
    calls.remember(definition)
    return definition
