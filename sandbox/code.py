"""Turning the bytes of a definition into a function: the first moment at which plugin code runs. Only ever in a worker.

Two kinds of bytes: what cloudpickle made of a function (`@zef_function`), and a packed plugin: the magic below, then a
MessagePack table {"entry": "module:function", "files": {relative path: bytes}} of a plugin file or folder.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import linecache
import sys
import types
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from typing import Any

import msgspec

from fxcell.policies.calls import Definition, ZefFunction
from fxcell.policies.errors import PluginNotUsable

PLUGIN_MAGIC = b"FXPLUGIN1\n"


def load(definition: Definition) -> Callable[..., Any]:
    """The function behind a definition.

    Raises: PluginNotUsable - its code never came, or names no such entry; and whatever the plugin's own code raises.
    """
    if not definition.code:
        raise PluginNotUsable(f"the code of {definition.name} was not sent to this worker")
    if definition.code.startswith(PLUGIN_MAGIC):
        return _load_plugin(definition.code[len(PLUGIN_MAGIC) :])
    import cloudpickle

    return _plain(cloudpickle.loads(definition.code))


def _plain(loaded: Any) -> Callable[..., Any]:
    function = loaded.function if isinstance(loaded, ZefFunction) else loaded
    if not callable(function):
        raise PluginNotUsable(f"the entry is a {type(function).__name__}, not a function")
    return function


def _load_plugin(packed: bytes) -> Callable[..., Any]:
    table = msgspec.msgpack.decode(packed, type=dict[str, Any])
    module_name, _, function_name = table["entry"].partition(":")
    finder = _Files(table["files"])
    _forget_namesakes(finder)
    sys.meta_path.insert(0, finder)
    module = importlib.import_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        own = (name for name, value in vars(module).items() if _module_of(value) == module_name)
        has = f"no function of that name but {type(function).__name__!r}" if hasattr(module, function_name) else "none"
        raise PluginNotUsable(
            f"the entry is {module_name}:{function_name}, but {finder.place(module_name)} has {has}. "
            f"Functions it has: {', '.join(sorted(name for name in own if not name.startswith('_'))) or 'none'}"
        )
    return _plain(function)


def _module_of(value: object) -> object:
    function = value.function if isinstance(value, ZefFunction) else value
    return getattr(function, "__module__", None) if callable(function) else None


def _forget_namesakes(finder: _Files) -> None:
    """Drop loaded modules that this plugin has its own files for: another plugin's in this worker, or a library's.

    The standard library and fxcell stay: the worker itself stands on them.
    """
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("fxcell", "__main__") and finder.place(name):
            del sys.modules[name]


class _Files(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports from files that are only in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        place = self.place(fullname)
        if place is None:
            # A folder without __init__.py is a package as well.
            base = fullname.replace(".", "/") + "/"
            is_folder = any(file.startswith(base) and file.endswith(".py") for file in self.files)
            return ModuleSpec(fullname, None, is_package=True) if is_folder else None
        return importlib.util.spec_from_loader(fullname, self, origin=place, is_package=place.endswith("/__init__.py"))

    def place(self, fullname: str) -> str | None:
        """The path of a module's file inside the plugin, or None."""
        base = fullname.replace(".", "/")
        return next((place for place in (f"{base}.py", f"{base}/__init__.py") if place in self.files), None)

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.files[self.place(fullname) or ""])

    def exec_module(self, module: types.ModuleType) -> None:
        place = self.place(module.__name__) or ""
        source = self.get_source(module.__name__)
        # So that tracebacks can show the plugin's lines.
        linecache.cache[place] = (len(source), None, source.splitlines(keepends=True), place)
        module.__file__ = place
        exec(compile(source, place, "exec"), module.__dict__)  # noqa: S102 - inside the lockdown: this is what a worker is for

    def get_data(self, path: str) -> bytes:
        """For importlib.resources and pkgutil: a file of the plugin."""
        if path not in self.files:
            raise OSError(f"the plugin has no file {path}")
        return self.files[path]
