"""The value codec: Python values to MessagePack bytes and back, without pickle.

encode_value(value) -> bytes            everything inline (files, digests, remote transports)
pack(value)         -> Packed           large buffers set aside, for sealed memory (sandbox/wire.py)
decode_value(data)  -> value

Plain types map to MessagePack itself; everything else is an extension whose number is in `Ext`. Decoding builds values
only: it never imports, evaluates or calls anything named in the data. Types outside the table are an `EncodeError` that
names the place, never a silent conversion.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import gc
import math
import re
import struct
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from fxcell.policies.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from fxcell.policies.calls import Definition

OUT_OF_BAND_BYTES = 64 * 1024
"""Buffers of at least this size leave the MessagePack body when the caller can carry them separately (`pack`)."""

MAX_DEPTH = 200
"""Nesting of containers, both ways. CPython's own recursion limit is 1000 and each level costs up to four frames."""


class Ext(IntEnum):
    """MessagePack extension numbers; a number is never reused for another meaning."""

    EFFECT = 1
    CALL = 2
    TUPLE = 3
    SET = 4
    FROZENSET = 5
    COMPLEX = 6
    DATETIME = 7
    DATE = 8
    TIME = 9
    TIMEDELTA = 10
    DECIMAL = 11
    UUID = 12
    NDARRAY = 13
    NUMPY_SCALAR = 14
    BIG_INTEGER = 15
    SURROGATE_TEXT = 16
    BUFFER = 17
    WORKER_PROCESS = 18
    POLICY = 19


@dataclass(slots=True)
class Packed:
    """An encoded value: the MessagePack body, the buffers set aside from it, the definitions its calls refer to."""

    body: bytes
    buffers: list[memoryview] = field(default_factory=list)
    definitions: dict[str, Definition] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        """Size of body and buffers together."""
        return len(self.body) + sum(buffer.nbytes for buffer in self.buffers)


_PLAIN: frozenset[type] = frozenset({int, float, str, bool, type(None)})
_PLAIN_IN_LINE = _PLAIN | {list, dict}
_PLAIN_ALL = _PLAIN_IN_LINE | {bytes}
_NEVER_REPLACED = frozenset({float, bool, type(None)})
_encode = msgspec.msgpack.Encoder().encode
_EXACT_DTYPE = re.compile(r"[<>|](?:b1|i[1248]|u[1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SU]\d{1,9}|[mM]8(?:\[\w{1,12}\])?)")


def encode_value(value: object) -> bytes:
    """Encode with every buffer inline.

    Raises: EncodeError(path, type) - a type outside the table, nesting beyond MAX_DEPTH, or a reference cycle.
    """
    return _pack(value, set_aside=False).body


def pack(value: object) -> Packed:
    """Encode, setting aside buffers of OUT_OF_BAND_BYTES or more.

    After:  Packed.buffers must travel beside Packed.body, in order; they are views of the caller's memory.
    Raises: EncodeError, as encode_value.
    """
    return _pack(value, set_aside=True)


def pack_inline(value: object) -> Packed:
    """Encode with every buffer inline, and keep the definitions of its calls."""
    return _pack(value, set_aside=False)


def _pack(value: object, *, set_aside: bool) -> Packed:
    packed = Packed(b"")
    if _is_plain(value, _PLAIN_IN_LINE if set_aside else _PLAIN_ALL):
        try:
            packed.body = _encode(value)
            return packed
        except (OverflowError, UnicodeEncodeError):
            pass  # an integer or a text that needs an extension
    walker = _Walker(packed if set_aside else None, packed.definitions)
    try:
        packed.body = _encode(walker.walk(value, 0))
    except (OverflowError, UnicodeEncodeError, RecursionError, TypeError, ValueError) as error:
        raise EncodeError(f"cannot encode a value of type {type(value).__name__}: {error}") from error
    return packed


def _is_plain(value: object, plain: frozenset[type]) -> bool:
    """True when the value and all in it are of these types, which MessagePack has, and at most MAX_DEPTH levels deep.

    Asks the garbage collector what containers hold: it looks at a value in C, some twenty times as fast as a walk.
    """
    kind = type(value)
    if kind in _PLAIN or kind not in plain:
        return kind in plain
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = gc.get_referents(*level)  # of a scalar: nothing
        if not level:
            return True
        if not plain.issuperset(map(type, level)):
            return False
    return False


class _Walker:
    """Replaces what MessagePack lacks by extensions; returns the same object where nothing needs replacing."""

    def __init__(self, aside: Packed | None, definitions: dict[str, Definition]) -> None:
        self.aside = aside
        self.definitions = definitions
        self.path: list[tuple[str, object]] = []

    def walk(self, value: object, depth: int) -> object:
        kind = type(value)
        if kind in _PLAIN:
            if kind is int and not -(2**63) <= value < 2**64:  # type: ignore[operator]
                return _extension(Ext.BIG_INTEGER, _big_integer_bytes(value))  # type: ignore[arg-type]
            if kind is str and not value.isascii():  # type: ignore[attr-defined]
                return _text(value)  # type: ignore[arg-type]
            return value
        if kind is bytes or kind is bytearray or kind is memoryview:
            return self.buffer(value)
        if depth >= MAX_DEPTH:
            self.fail(value, f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
        if kind is list:
            return [self.step("[{!r:.40}]", i, item, depth) for i, item in enumerate(value)]  # type: ignore[arg-type, var-annotated]
        if kind is dict:
            return self.table(value, depth)  # type: ignore[arg-type]
        encoder = _EXTENSION_ENCODERS.get(kind)
        if encoder is None:
            encoder = _encoder_by_base(value)
        if encoder is None:
            self.fail(value, "is not a type that travels between processes")
        return encoder(self, value, depth + 1)

    def table(self, value: dict[object, object], depth: int) -> object:
        keys = [self.step(" key {!r:.40}", key, key, depth) for key in value]
        items = [self.step("[{!r:.40}]", key, item, depth) for key, item in value.items()]
        if not any(type(key) is msgspec.msgpack.Ext for key in keys):
            return dict(zip(keys, items, strict=True))
        # msgspec's extensions are not hashable, so a table with such keys is written by hand.
        pairs = (_encode(part) for pair in zip(keys, items, strict=True) for part in pair)
        return msgspec.Raw(b"\xdf" + struct.pack(">I", len(keys)) + b"".join(pairs))

    def step(self, form: str, key: object, value: object, depth: int) -> object:
        kind = type(value)
        if kind in _NEVER_REPLACED or (kind is str and value.isascii()):  # type: ignore[attr-defined]
            return value
        self.path.append((form, key))
        result = self.walk(value, depth + 1)
        self.path.pop()
        return result

    def buffer(self, value: Any) -> object:
        view = memoryview(value)
        if self.aside is None or view.nbytes < OUT_OF_BAND_BYTES:
            return value if type(value) is bytes else view.tobytes()
        self.aside.buffers.append(view if view.contiguous and view.format == "B" else memoryview(view.tobytes()))
        return _extension(Ext.BUFFER, struct.pack("<I", len(self.aside.buffers) - 1))

    def nested(self, code: Ext, value: object, depth: int) -> msgspec.msgpack.Ext:
        return _extension(code, _encode(self.walk(value, depth)))

    def fail(self, value: object, why: str) -> NoReturn:
        place = "".join(form.format(key) for form, key in self.path) or "the value itself"
        raise EncodeError(
            f"cannot encode {type(value).__module__}.{type(value).__qualname__} at {place}: it {why}. "
            "Send None, bool, int, float, str, bytes, list, dict, tuple, set, complex, datetime, Decimal, UUID, "
            "ndarray, FX values and calls of zef_functions."
        )


def _extension(code: Ext, data: bytes) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(int(code), data)


def _text(value: str) -> object:
    try:
        value.encode()
    except UnicodeEncodeError:
        return _extension(Ext.SURROGATE_TEXT, value.encode("utf-8", "surrogatepass"))
    return value


def _big_integer_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _encode_call(walker: _Walker, call: Any, depth: int) -> object:
    definition = call.definition
    walker.definitions[definition.digest] = definition
    parts = [definition.digest, definition.name, list(call.args), dict(call.kwargs)]
    return walker.nested(Ext.CALL, parts, depth)


def _encode_array(walker: _Walker, array: Any, depth: int) -> object:
    dtype = array.dtype.str
    if not _EXACT_DTYPE.fullmatch(dtype):
        walker.fail(array, f"has dtype {array.dtype}, which holds Python objects or structures")
    import numpy

    data: Any = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8) if array.size else b""
    return walker.nested(Ext.NDARRAY, [dtype, list(array.shape), memoryview(data)], depth)


def _encode_numpy_scalar(walker: _Walker, scalar: Any, depth: int) -> object:
    if not _EXACT_DTYPE.fullmatch(scalar.dtype.str):
        walker.fail(scalar, f"has dtype {scalar.dtype}, which holds Python objects or structures")
    return walker.nested(Ext.NUMPY_SCALAR, [scalar.dtype.str, [], scalar.tobytes()], depth)


def _encode_set(code: Ext) -> Callable[[_Walker, Any, int], object]:
    def encode(walker: _Walker, value: Any, depth: int) -> object:
        # Sorted by encoded bytes: equal sets give equal bytes, which digests rely on.
        items = sorted(_encode(walker.walk(item, depth)) for item in value)
        header = b"\xdd" + struct.pack(">I", len(items))
        return _extension(code, header + b"".join(items))

    return encode


def _simple(code: Ext, parts: Callable[[Any], object]) -> Callable[[_Walker, Any, int], object]:
    return lambda walker, value, depth: walker.nested(code, parts(value), depth)


_EXTENSION_ENCODERS: dict[type, Callable[[_Walker, Any, int], object]] = {
    tuple: _simple(Ext.TUPLE, list),
    set: _encode_set(Ext.SET),
    frozenset: _encode_set(Ext.FROZENSET),
    complex: lambda _w, value, _d: _extension(Ext.COMPLEX, struct.pack("<dd", value.real, value.imag)),
    datetime.datetime: _simple(Ext.DATETIME, lambda v: [*v.timetuple()[:6], v.microsecond, v.fold, _offset_s(v)]),
    datetime.date: _simple(Ext.DATE, lambda v: [v.year, v.month, v.day]),
    datetime.time: _simple(Ext.TIME, lambda v: [v.hour, v.minute, v.second, v.microsecond, v.fold, _offset_s(v)]),
    datetime.timedelta: _simple(Ext.TIMEDELTA, lambda v: [v.days, v.seconds, v.microseconds]),
    decimal.Decimal: _simple(Ext.DECIMAL, str),
    uuid.UUID: lambda _w, value, _d: _extension(Ext.UUID, value.bytes),
}


def _offset_s(value: datetime.datetime | datetime.time) -> float | None:
    offset = value.utcoffset()
    return None if offset is None else offset.total_seconds()


def _encoder_by_base(value: object) -> Callable[[_Walker, Any, int], object] | None:
    encoder = _REGISTERED_ENCODERS.get(type(value))
    if encoder is not None:
        return encoder
    for base, registered in _REGISTERED_ENCODERS.items():
        if isinstance(value, base):
            return registered
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if type(value) is numpy.ndarray:
            return _encode_array
        if isinstance(value, numpy.generic):
            return _encode_numpy_scalar
    return None


_REGISTERED_ENCODERS: dict[type, Callable[[_Walker, Any, int], object]] = {}
_REGISTERED_DECODERS: dict[Ext, Callable[[Any, bool], object]] = {}
_PARTS: dict[type, Callable[[Any], object]] = {}
"""Type -> the plain parts of a value, for those that can hold further values."""


def register(
    code: Ext, kind: type, to_parts: Callable[[Any], object], from_parts: Callable[[Any, bool], object]
) -> None:
    """Teach the codec one of our own value types (effects, worker handles, policies, calls).

    to_parts(value) gives plain parts; from_parts(parts, allow_calls) rebuilds and validates, or raises.
    """
    _REGISTERED_ENCODERS[kind] = _encode_call if code is Ext.CALL else _simple(code, to_parts)
    _REGISTERED_DECODERS[code] = from_parts
    _PARTS[kind] = to_parts


def decode_value(data: bytes | memoryview, *, allow_calls: bool, buffers: Sequence[memoryview] = ()) -> Any:
    """Decode bytes that may come from an enemy into plain values.

    allow_calls: False for everything a worker sent; a call in the data is then an error.
    buffers:     what `pack` set aside, in order; bytes are copied out of them, arrays are read-only views.
    Raises: DecodeError - malformed data, unknown extension, nesting beyond limits, a value its type refuses.
    """
    value = _decode(data, allow_calls, buffers)
    # A level takes a byte at least. msgspec's own limit is the C stack, far over what Python code can walk.
    if len(data) > MAX_DEPTH and not _is_plain(value, _PLAIN_ALL):
        _check_depth(value)
    return value


def _decode(data: bytes | memoryview, allow_calls: bool, buffers: Sequence[memoryview]) -> Any:
    try:
        return (_decoder(allow_calls, buffers) if buffers else _DECODERS[allow_calls]).decode(data)
    except DecodeError:
        raise
    except _MALFORMED as error:
        raise DecodeError(f"cannot decode a message value: {type(error).__name__}: {error}") from error


def _decoder(allow_calls: bool, buffers: Sequence[memoryview]) -> msgspec.msgpack.Decoder[Any]:
    hook = functools.partial(_decode_extension, allow_calls=allow_calls, buffers=buffers)
    return msgspec.msgpack.Decoder(ext_hook=hook)


_MALFORMED = (
    msgspec.MsgspecError,
    RecursionError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    struct.error,
    MemoryError,
)
"""What wrong bytes make msgspec and the constructors of our types raise."""


def _check_depth(value: object) -> None:
    """Raise DecodeError for containers nested beyond MAX_DEPTH."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for container in level for child in _children(container)]
        if not level:
            return
    raise DecodeError(f"the value is nested deeper than {MAX_DEPTH} levels")


_SEQUENCES = (list, tuple, set, frozenset)
_LEAVES = frozenset({int, float, str, bool, type(None), bytes})


def _children(value: Any) -> list[Any]:
    kind = type(value)
    if kind in _LEAVES:
        return []
    if kind is dict:
        return [item for pair in value.items() for item in pair if type(item) not in _LEAVES]
    if kind in _SEQUENCES:
        return [item for item in value if type(item) not in _LEAVES]
    return [parts(value) for base, parts in _PARTS.items() if isinstance(value, base)]


def _decode_extension(number: int, data: memoryview, *, allow_calls: bool, buffers: Sequence[memoryview]) -> Any:
    if number in _FLAT_DECODERS:
        return _FLAT_DECODERS[number](data)
    if number == Ext.BUFFER:
        return bytes(_buffer(data, buffers))
    if number == Ext.CALL and not allow_calls:
        raise DecodeError("a call was sent where only values may come from")
    if number in (Ext.NDARRAY, Ext.NUMPY_SCALAR):
        return _decode_array(number, data, buffers)
    parts = _decode(data, allow_calls, buffers)
    if number in _NESTED_DECODERS:
        return _NESTED_DECODERS[number](parts)
    registered = _REGISTERED_DECODERS.get(Ext(number))
    if registered is None:
        raise DecodeError(f"unknown MessagePack extension {number}")
    return registered(parts, allow_calls)


_DECODERS = {allow_calls: _decoder(allow_calls, ()) for allow_calls in (False, True)}


def _buffer(data: memoryview, buffers: Sequence[memoryview]) -> memoryview:
    index: int = struct.unpack("<I", data)[0]
    if index >= len(buffers):
        raise DecodeError(f"the value refers to buffer {index}, but only {len(buffers)} came with it")
    return buffers[index]


def _decode_array(number: int, data: memoryview, buffers: Sequence[memoryview]) -> Any:
    def keep_view(code: int, payload: memoryview) -> memoryview:
        if code != Ext.BUFFER:
            raise DecodeError(f"extension {code} inside an array")
        return _buffer(payload, buffers)

    try:
        import numpy
    except ImportError as error:
        raise DecodeError("the value holds an ndarray, but numpy is not installed here") from error
    parts = msgspec.msgpack.Decoder(ext_hook=keep_view).decode(data)
    dtype, shape, buffer = parts
    if type(dtype) is not str or not _EXACT_DTYPE.fullmatch(dtype):
        raise DecodeError(f"array dtype {dtype!r:.40} is not one that travels")
    if len(shape) > 32 or any(type(n) is not int or n < 0 for n in shape):
        raise DecodeError(f"array shape {shape!r:.80} is not a list of lengths")
    kind = numpy.dtype(dtype)
    if kind.itemsize * math.prod(shape) != memoryview(buffer).nbytes:
        raise DecodeError(f"array of shape {shape} and dtype {dtype} does not fit its {len(buffer)} bytes")
    array = numpy.frombuffer(buffer, dtype=kind).reshape(shape) if len(buffer) else numpy.empty(shape, dtype=kind)
    return array[()] if number == Ext.NUMPY_SCALAR else array


def _zone(offset_s: float | None) -> datetime.timezone | None:
    return None if offset_s is None else datetime.timezone(datetime.timedelta(seconds=offset_s))


def _exactly(kind: type, parts: Any) -> Any:
    if type(parts) is not kind:
        raise DecodeError(f"an extension holds {type(parts).__name__} where {kind.__name__} belongs")
    return parts


def _datetime(*parts: Any) -> datetime.datetime:
    *numbers, fold, offset_s = parts
    return datetime.datetime(*numbers).replace(tzinfo=_zone(offset_s), fold=fold)


def _time(*parts: Any) -> datetime.time:
    *numbers, fold, offset_s = parts
    return datetime.time(*numbers).replace(tzinfo=_zone(offset_s), fold=fold)


def _timedelta(days: int, seconds: int, microseconds: int) -> datetime.timedelta:
    return datetime.timedelta(days=days, seconds=seconds, microseconds=microseconds)


_FLAT_DECODERS: dict[int, Callable[[memoryview], object]] = {
    Ext.COMPLEX: lambda data: complex(*struct.unpack("<dd", data)),
    Ext.UUID: lambda data: uuid.UUID(bytes=bytes(data)),
    Ext.BIG_INTEGER: lambda data: int.from_bytes(data, "little", signed=True),
    Ext.SURROGATE_TEXT: lambda data: bytes(data).decode("utf-8", "surrogatepass"),
}
_NESTED_DECODERS: dict[int, Callable[[Any], object]] = {
    Ext.TUPLE: lambda p: tuple(_exactly(list, p)),
    Ext.SET: lambda p: set(_exactly(list, p)),
    Ext.FROZENSET: lambda p: frozenset(_exactly(list, p)),
    Ext.DATETIME: lambda p: _datetime(*_exactly(list, p)),
    Ext.DATE: lambda p: datetime.date(*_exactly(list, p)),
    Ext.TIME: lambda p: _time(*_exactly(list, p)),
    Ext.TIMEDELTA: lambda p: _timedelta(*_exactly(list, p)),
    Ext.DECIMAL: lambda p: decimal.Decimal(_exactly(str, p)),
}
