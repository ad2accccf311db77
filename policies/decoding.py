"""The codec's way in: bytes that may come from an enemy to plain values, or DecodeError.

Nothing is imported, evaluated or called that the data name. What is decoded is bounded by what came: no byte of the body
and no buffer beside it is used twice.
"""

from __future__ import annotations

import datetime
import decimal
import math
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from fxcell.policies import array_keys, decoded_size, hash_flood
from fxcell.policies.errors import DecodeError
from fxcell.policies.hash_flood import Guard
from fxcell.policies.names import short
from fxcell.policies.value_types import EXACT_DTYPE, MAX_DEPTH, PARTS, PLAIN, SCALARS, Ext, is_plain

_REGISTERED_DECODERS: dict[int, Callable[[Any, bool], object]] = {}


def register_decoder(code: Ext, from_parts: Callable[[Any, bool], object]) -> None:
    """Decode an extension by from_parts(parts, allow_calls), which validates and raises what malformed parts raise."""
    _REGISTERED_DECODERS[code] = from_parts


class _Buffers:
    """What came beside the body; each buffer can be taken once, or a few bytes could ask for any amount of memory."""

    def __init__(self, given: Sequence[memoryview], copy: Callable[[memoryview], bytes] = bytes) -> None:
        self.left: list[memoryview | None] = list(given)
        self.copy = copy

    def take(self, data: memoryview) -> memoryview:
        index: int = struct.unpack("<I", data)[0]
        if index >= len(self.left):
            raise DecodeError(f"the value refers to buffer {index}, but only {len(self.left)} came with it")
        buffer, self.left[index] = self.left[index], None
        if buffer is None:
            raise DecodeError(f"the value refers to buffer {index} twice")
        return buffer


def decode_value(
    data: bytes | memoryview,
    *,
    allow_calls: bool,
    buffers: Sequence[memoryview] = (),
    budget_bytes: int = decoded_size.BUDGET_MAX_BYTES,
    copy: Callable[[memoryview], bytes] = bytes,
    depth_max: int = MAX_DEPTH,
) -> Any:
    """Decode bytes that may come from an enemy into plain values.

    allow_calls: False for everything a worker sent; a call in the data is then an error.
    buffers:     what `pack` set aside, in order; bytes are copied out of them, arrays are read-only views.
    budget_bytes: memory that a value which may hold no calls may take, buffers aside.
    copy:         how bytes are made of a buffer.
    depth_max:    levels of containers.
    Raises: DecodeError - malformed data, unknown extension, nesting or memory beyond limits, a value its type refuses.
    """
    guard = None
    if not buffers and 0 < len(data) <= MAX_DEPTH:
        if data[0] in _SCALAR_MARKS:
            return _decode(data, allow_calls, None, None)
        if (own := _plain_own(data, allow_calls)) is not None:
            return own
    if not allow_calls:
        hash_flood.check_depth(data)
        decoded_size.check(data, budget_bytes)
        guard = Guard()
    value = _decode(data, allow_calls, _Buffers(buffers, copy) if buffers else None, guard)
    # A level takes a byte at least. msgspec's own limit is the C stack, far over what Python code can walk.
    if len(data) > MAX_DEPTH and not is_plain(value, PLAIN):
        _check_depth(value, depth_max)
    return value


def _decode(data: bytes | memoryview, allow_calls: bool, buffers: _Buffers | None, guard: Guard | None) -> Any:
    if guard is not None:
        array_keys.check(data)
    try:
        if buffers is None and (guard is None or not _may_hold_extensions(data)):
            return _DECODERS[allow_calls].decode(data)
        value = _decoder(allow_calls, buffers, guard).decode(data)
        return value if guard is None else guard.release(value)
    except DecodeError:
        raise
    except _MALFORMED as error:
        raise DecodeError(f"cannot decode a message value: {type(error).__name__}: {error}") from error


def _decoder(allow_calls: bool, buffers: _Buffers | None, guard: Guard | None) -> msgspec.msgpack.Decoder[Any]:
    def hook(number: int, data: memoryview) -> Any:
        if guard is None:
            return _decode_extension(number, data, allow_calls, buffers, None)
        guard.count(number)
        return guard.hold(number, _decode_extension(number, data, allow_calls, buffers, guard))

    return msgspec.msgpack.Decoder(ext_hook=hook)


_EXTENSION_MARKS = bytes([0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8])


def _may_hold_extensions(data: bytes | memoryview) -> bool:
    """False when none of the bytes that start an extension is there at all."""
    return len(data) > _SMALL_BYTES or len(bytes(data).translate(None, _EXTENSION_MARKS)) != len(data)


_SMALL_BYTES = 4096
_EXT_8, _EXT_8_BYTES = 0xC7, 3


def _plain_own(data: bytes | memoryview, allow_calls: bool) -> Any:
    """A small effect or call that holds nothing but plain values, read the short way; None for anything else.

    It is what travels most. Without a byte that starts an extension there is nothing for a Guard to count or hold.
    """
    if len(data) <= _EXT_8_BYTES or data[0] != _EXT_8 or data[2] not in (_SHORT_WAY if allow_calls else _SHORT_WAY_IN):
        return None
    parts = bytes(data[_EXT_8_BYTES:])
    if data[1] != len(parts) or _may_hold_extensions(parts):
        return None
    try:
        return _REGISTERED_DECODERS[data[2]](_DECODERS[allow_calls].decode(parts), allow_calls)
    except DecodeError:
        raise
    except _MALFORMED as error:
        raise DecodeError(f"cannot decode a message value: {type(error).__name__}: {error}") from error


_SHORT_WAY_IN = frozenset({int(Ext.EFFECT)})
_SHORT_WAY = _SHORT_WAY_IN | {int(Ext.CALL)}
_SCALAR_MARKS = frozenset((*range(0x80), *range(0xA0, 0xC4), *range(0xCA, 0xD4), 0xD9, *range(0xE0, 0x100))) - {0xC1}
"""First bytes of what MessagePack has as None, bool, int, float or text: no container, and nothing of ours."""

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


def _check_depth(value: object, depth_max: int) -> None:
    """Raise DecodeError for containers nested beyond depth_max."""
    level = [value]
    for _ in range(depth_max):
        level = [child for container in level for child in _children(container)]
        if not level:
            return
    raise DecodeError(f"the value is nested deeper than {depth_max} levels")


_SEQUENCES = (list, tuple, set, frozenset)
_LEAVES = SCALARS | {bytes}


def _children(value: Any) -> list[Any]:
    kind = type(value)
    if kind in _LEAVES:
        return []
    if kind is dict:
        return [item for pair in value.items() for item in pair if type(item) not in _LEAVES]
    if kind in _SEQUENCES:
        return [item for item in value if type(item) not in _LEAVES]
    return [parts(value) for base, parts in PARTS.items() if isinstance(value, base)]


def _decode_extension(
    number: int, data: memoryview, allow_calls: bool, buffers: _Buffers | None, guard: Guard | None
) -> Any:
    if number in _FLAT_DECODERS:
        return _FLAT_DECODERS[number](data)
    if number == Ext.BUFFER:
        taken = _taken(data, buffers)
        return bytes(taken) if buffers is None else buffers.copy(taken)
    if number == Ext.CALL and not allow_calls:
        raise DecodeError("a call was sent where only values may come from")
    if number in (Ext.NDARRAY, Ext.NUMPY_SCALAR):
        array_keys.check(data)
        return _decode_array(number, data, buffers)
    parts = _decode(data, allow_calls, buffers, guard)
    if number in _NESTED_DECODERS:
        return _NESTED_DECODERS[number](parts)
    registered = _REGISTERED_DECODERS.get(number)
    if registered is None:
        raise DecodeError(f"unknown MessagePack extension {number}")
    return registered(parts, allow_calls)


_DECODERS = {allow_calls: _decoder(allow_calls, None, None) for allow_calls in (False, True)}


def _taken(data: memoryview, buffers: _Buffers | None) -> memoryview:
    return (buffers or _Buffers(())).take(data)


def _decode_array(number: int, data: memoryview, buffers: _Buffers | None) -> Any:
    def keep_view(code: int, payload: memoryview) -> memoryview:
        if code != Ext.BUFFER:
            raise DecodeError(f"extension {code} inside an array")
        return _taken(payload, buffers)

    try:
        import numpy
    except ImportError as error:
        raise DecodeError("the value holds an ndarray, but numpy is not installed here") from error
    parts = msgspec.msgpack.Decoder(ext_hook=keep_view).decode(data)
    dtype, shape, buffer = parts
    if type(dtype) is not str or not EXACT_DTYPE.fullmatch(dtype):
        raise DecodeError(f"array dtype {short(dtype)} is not one that travels")
    if len(shape) > 32 or any(type(n) is not int or n < 0 for n in shape):
        raise DecodeError(f"array shape {short(shape)} is not a list of lengths")
    kind = numpy.dtype(dtype)
    if kind.itemsize * math.prod(shape) != memoryview(buffer).nbytes:
        raise DecodeError(f"array of shape {short(shape)} and dtype {dtype} does not fit its {len(buffer)} bytes")
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
    Ext.SET: lambda p: set(hash_flood.checked(_exactly(list, p))),
    Ext.FROZENSET: lambda p: frozenset(hash_flood.checked(_exactly(list, p))),
    Ext.TABLE: lambda p: hash_flood.table(_exactly(list, p)),
    Ext.DATETIME: lambda p: _datetime(*_exactly(list, p)),
    Ext.DATE: lambda p: datetime.date(*_exactly(list, p)),
    Ext.TIME: lambda p: _time(*_exactly(list, p)),
    Ext.TIMEDELTA: lambda p: _timedelta(*_exactly(list, p)),
    Ext.DECIMAL: lambda p: decimal.Decimal(_exactly(str, p)),
}
