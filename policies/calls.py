"""Calls as values: `@zef_function` turns a function into one whose call is data.

    f(x)          describes the call                      Call(definition, args, kwargs)
    f(x) | run    performs it here
    FX.SendCommandToWorkerProcess(process=w, command=f(x)) | run      performs it there

A definition is the function's code as bytes, named by their SHA-256. It is shipped to a worker once; calls refer to the
digest. Only workers ever turn such bytes back into a function, after their lockdown. This module writes them and never
reads them.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from fxcell.policies import values
from fxcell.policies.errors import DecodeError, EffectError, EncodeError
from fxcell.policies.names import short

_PORTABLE_FORMAT = "fxcell-value/1"
_known: weakref.WeakValueDictionary[str, Definition] = weakref.WeakValueDictionary()
_pickling = threading.Lock()


@dataclass(slots=True, eq=False, weakref_slot=True)
class Definition:
    """A function's code under its digest; `function` is there only where it was defined or loaded by a worker."""

    digest: str
    name: str
    code: bytes = b""
    function: Callable[..., Any] | None = None


class Call:
    """One call of a zef_function, as an immutable value: what `f(x)` gives."""

    __slots__ = ("args", "definition", "kwargs")
    definition: Definition
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        object.__setattr__(self, "definition", definition)
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", kwargs)

    def perform(self) -> Any:
        """Call the function in this process.

        Raises: EffectError when this process never defined or loaded it (a Call read back from bytes).
        """
        function = self.definition.function
        if function is None:
            raise EffectError(
                f"the code of {self.definition.name} (sha256 {self.definition.digest[:12]}…) is not loaded here; "
                "only a worker loads code from bytes: send the call to one"
            )
        return function(*self.args, **self.kwargs)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"calls are immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"calls are immutable: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Call):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        from fxcell.policies.effects import frozen

        return (self.definition.digest, frozen(self.args), frozen(self.kwargs))

    def __repr__(self) -> str:
        shown = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"{self.definition.name}({', '.join(shown)})"

    def _shown(self) -> tuple[str, list[tuple[str, Any]], str]:
        parts = [("", a) for a in self.args] + [(f"{k}=", v) for k, v in self.kwargs.items()]
        return f"{self.definition.name[:200]}(", parts, ")"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Call, (self.definition, self.args, self.kwargs))

    def to_bytes(self) -> bytes:
        """The call, with its function's code, as bytes that `FX.from_bytes` reads back."""
        return to_portable_bytes(self)


class ZefFunction:
    """A function whose call is a value. `.function` is the plain one."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._signature = inspect.signature(function)
        self._positional = _positional_counts(self._signature)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Call:
        if kwargs or len(args) not in self._positional:
            self._signature.bind(*args, **kwargs)  # a third of what it takes to describe a call and encode it
        return Call(self.definition, args, kwargs)

    @functools.cached_property
    def definition(self) -> Definition:
        """The function's code and digest, taken at the first call: later changes of captured globals are not seen."""
        code = _code_bytes(self.function)
        digest = hashlib.sha256(code).hexdigest()
        definition = Definition(digest, self.function.__name__, code, self.function)
        _known[digest] = definition
        return definition

    def __repr__(self) -> str:
        return f"<zef_function {self.function.__module__}.{self.function.__qualname__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (ZefFunction, (self.function,))


def _positional_counts(signature: inspect.Signature) -> range:
    """How many positional arguments alone make a call that is right."""
    parameters = signature.parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return range(0)
    return range(sum(p.default is p.empty for p in places), len(places) + 1)


def zef_function(function: Callable[..., Any]) -> ZefFunction:
    """Make calls of `function` values that run here, in a worker, or later.

    The function travels by value with what it captures; modules it imports must be importable in the worker. Modules of
    the standard library and of site-packages go by name, your own modules go by value.
    Raises: EncodeError at the first call, when it captures what cannot be copied (a lock, an open file …).
    """
    if inspect.isclass(function) or not hasattr(function, "__qualname__"):
        raise EffectError(f"@zef_function takes a function, got {type(function).__name__}")
    return ZefFunction(function)


def as_call(function: Callable[..., Any]) -> ZefFunction:
    """A zef_function as it is; a function, or anything else that can be called and sent by value, as one."""
    if isinstance(function, ZefFunction):
        return function
    if inspect.isfunction(function):
        return ZefFunction(function)
    if not callable(function):
        raise EffectError(f"{type(function).__name__} cannot be called")

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    call.__name__ = getattr(function, "__name__", type(function).__name__)
    call.__module__ = _home(function)
    return ZefFunction(call)


def _home(function: Any) -> str:
    """The module whose package goes along by value when it is the user's own."""
    if isinstance(function, functools.partial):
        return _home(function.func)
    return getattr(function, "__module__", None) or type(function).__module__


def known_definition(digest: str, name: str) -> Definition:
    """The definition under this digest, or an empty one that can be sent on but not performed here."""
    return _known.get(digest) or Definition(digest, name)


def remember(definition: Definition) -> None:
    """Make a definition findable by its digest, for as long as somebody holds it."""
    _known[definition.digest] = definition


def _code_bytes(function: Callable[..., Any]) -> bytes:
    import cloudpickle

    by_value = _own_package(function)
    # register_pickle_by_value is global state of cloudpickle: one at a time.
    with _pickling:
        registered = by_value is not None and by_value.__name__ not in cloudpickle.list_registry_pickle_by_value()
        if registered:
            cloudpickle.register_pickle_by_value(by_value)
        try:
            stream = io.BytesIO()
            _pickler()(stream, protocol=5).dump(function)
            return stream.getvalue()
        except Exception as error:
            raise EncodeError(
                f"cannot ship {function.__qualname__} to a worker: {type(error).__name__}: {error}. "
                "It captures something that cannot be copied; create that inside the function instead."
            ) from error
        finally:
            if registered:
                cloudpickle.unregister_pickle_by_value(by_value)


@functools.cache
def _pickler() -> type[Any]:
    """cloudpickle's, but an effect class goes by its name: the worker has been told of it, and has a class of its own."""
    import cloudpickle

    from fxcell.policies.effects import FX, Effect

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, thing: Any) -> Any:
            if isinstance(thing, type) and issubclass(thing, Effect) and thing is not Effect:
                return getattr, (FX, thing.effect_name)
            return super().reducer_override(thing)

    return Pickler


def _own_package(function: Callable[..., Any]) -> Any:
    """The user's top-level package that the worker could not import, or None."""
    name = (function.__module__ or "__main__").partition(".")[0]
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if module is None or name == "__main__" or origin is None or name == "fxcell":
        return None
    shared_with_worker = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return None if any(origin.startswith(f"{path}/") for path in shared_with_worker) else module


def to_portable_bytes(value: object) -> bytes:
    """Any value of the codec as bytes, with the code of the calls in it."""
    packed = values.pack_inline(value)
    definitions = {}
    for digest, definition in packed.definitions.items():
        if not definition.code:
            raise EncodeError(f"the code of {definition.name} is not in this process, so the call cannot be stored")
        definitions[digest] = [definition.name, definition.code]
    return msgspec.msgpack.encode([_PORTABLE_FORMAT, packed.body, definitions])


def from_portable_bytes(data: bytes) -> Any:
    """Read back `to_portable_bytes`. Code stays bytes: calls in the value can be sent to a worker.

    Raises: DecodeError - not such bytes, or code that does not match its digest.
    """
    try:
        stored = msgspec.msgpack.decode(data)
        form, body, definitions = stored
        if form != _PORTABLE_FORMAT:
            raise DecodeError(f"the bytes are of format {short(form)}, this version reads {_PORTABLE_FORMAT!r}")
        if type(body) is not bytes:
            raise DecodeError("not the bytes of an FX value: its body is no bytes")
        kept = [_checked(digest, name, code) for digest, (name, code) in definitions.items()]
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError) as error:
        raise DecodeError(f"not the bytes of an FX value: {error}") from error
    value = values.decode_value(body, allow_calls=True)
    del kept
    return value


def _checked(digest: object, name: object, code: object) -> Definition:
    if type(digest) is not str or type(name) is not str or type(code) is not bytes:
        raise DecodeError("a definition must hold a digest, a name and code")
    if hashlib.sha256(code).hexdigest() != digest:
        raise DecodeError(f"the code of {short(name)} does not match its digest")
    definition = _known.get(digest)
    if definition is None or not definition.code:
        definition = Definition(digest, name, code, definition.function if definition else None)
        _known[digest] = definition
    return definition


def _call_from_parts(parts: Any, _allow_calls: bool) -> Call:
    digest, name, args, kwargs = parts
    if type(digest) is not str or type(name) is not str or type(args) is not list or type(kwargs) is not dict:
        raise DecodeError("a call must hold a digest, a name, a list and a table")
    if kwargs and any(type(key) is not str for key in kwargs):
        raise DecodeError("the keyword arguments of a call must be named by texts")
    return Call(known_definition(digest, name), tuple(args), kwargs)


values.register(values.Ext.CALL, Call, lambda call: [list(call.args), call.kwargs], _call_from_parts)
