"""The codec's way out: Python values to MessagePack, buffers set aside."""

from __future__ import annotations

import datetime
import decimal
import struct
import sys
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from fxcell.policies import hash_flood
from fxcell.policies.errors import DecodeError, EncodeError
from fxcell.policies.value_types import (
    EXACT_DTYPE,
    MAX_DEPTH,
    OUT_OF_BAND_BYTES,
    PLAIN,
    PLAIN_IN_LINE,
    SCALARS,
    Ext,
    Packed,
    is_plain,
)

if TYPE_CHECKING:
    from fxcell.policies.calls import Definition

_NEVER_REPLACED = frozenset({float, bool, type(None)})
_encode = msgspec.msgpack.Encoder().encode


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
    plain = PLAIN_IN_LINE if set_aside else PLAIN
    try:
        if is_plain(value, plain):
            packed.body = _encode(value)
            return packed
        if (own := _own_parts(value)) is not None and is_plain(own[1], plain):
            packed.body = _encode(_extension(own[0], _encode(own[1])))
            if own[0] is Ext.CALL:
                packed.definitions[value.definition.digest] = value.definition  # type: ignore[attr-defined]
            return packed
    except (OverflowError, UnicodeEncodeError):
        pass  # an integer or a text that needs an extension
    walker = _Walker(packed if set_aside else None, packed.definitions)
    try:
        packed.body = _encode(walker.walk(value, 0))
    except (OverflowError, UnicodeEncodeError, RecursionError, TypeError, ValueError) as error:
        raise EncodeError(f"cannot encode a value of type {type(value).__name__}: {error}") from error
    return packed


class _Walker:
    """Replaces what MessagePack lacks by extensions; returns the same object where nothing needs replacing."""

    def __init__(self, aside: Packed | None, definitions: dict[str, Definition]) -> None:
        self.aside = aside
        self.definitions = definitions
        self.path: list[tuple[str, object]] = []
        self.extensions = 0

    def walk(self, value: object, depth: int) -> object:
        kind = type(value)
        if kind in SCALARS:
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
            self.fail(value, "is not a type that travels between processes" + _hint(value))
        self.extensions += 1
        if self.extensions > hash_flood.EXTENSIONS_MAX:
            self.fail(
                value, f"is one of more than {hash_flood.EXTENSIONS_MAX} such values; send an ndarray, lists or bytes"
            )
        return encoder(self, value, depth + 1)

    def table(self, value: dict[object, object], depth: int) -> object:
        keys = [self.step(" key {!r:.40}", key, key, depth) for key in value]
        items = [self.step("[{!r:.40}]", key, item, depth) for key, item in value.items()]
        if not any(type(key) is msgspec.msgpack.Ext for key in keys):
            return dict(zip(keys, items, strict=True))
        self.check_keys(list(value))
        # As a list of pairs, whose keys the other side can look at before it builds a table (hash_flood.py).
        pairs = [_encode(part) for pair in zip(keys, items, strict=True) for part in pair]
        return _extension(Ext.TABLE, b"\xdd" + struct.pack(">I", len(pairs)) + b"".join(pairs))

    def check_keys(self, keys: list[Any]) -> None:
        """Refuse what the other side would refuse, with the place."""
        try:
            hash_flood.checked(keys)
        except DecodeError as error:
            self.fail(keys, f"cannot be sent: {error}")

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
        # In one dimension: who sends it cuts off bytes, not rows.
        flat = view.cast("B") if view.c_contiguous and view.format == "B" else memoryview(view.tobytes())
        self.aside.buffers.append(flat)
        return _extension(Ext.BUFFER, struct.pack("<I", len(self.aside.buffers) - 1))

    def nested(self, code: Ext, value: object, depth: int) -> msgspec.msgpack.Ext:
        return _extension(code, _encode(self.walk(value, depth)))

    def fail(self, value: object, why: str) -> NoReturn:
        place = "".join(form.format(key) for form, key in self.path) or "the value itself"
        place = place if len(place) <= 120 else f"{place[:100]}…"
        raise EncodeError(
            f"cannot encode {type(value).__module__}.{type(value).__qualname__} at {place}: it {why}. "
            "Send None, bool, int, float, str, bytes, list, dict, tuple, set, complex, datetime, Decimal, UUID, "
            "ndarray, FX values and calls of zef_functions."
        )


def _hint(value: object) -> str:
    if type(value).__name__ == "ZefFunction":
        return "; call it to describe a call: name(arguments)"
    return "; @zef_function makes its calls values" if callable(value) else ""


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
    walker.definitions[call.definition.digest] = call.definition
    return walker.nested(Ext.CALL, _call_parts(call), depth)


def _call_parts(call: Any) -> list[Any]:
    definition = call.definition
    return [definition.digest, definition.name, list(call.args), call.kwargs]


def _encode_array(walker: _Walker, array: Any, depth: int) -> object:
    dtype = array.dtype.str
    if not EXACT_DTYPE.fullmatch(dtype):
        walker.fail(array, f"has dtype {array.dtype}, which holds Python objects or structures")
    import numpy

    data: Any = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8) if array.size else b""
    return walker.nested(Ext.NDARRAY, [dtype, list(array.shape), memoryview(data)], depth)


def _encode_numpy_scalar(walker: _Walker, scalar: Any, depth: int) -> object:
    if not EXACT_DTYPE.fullmatch(scalar.dtype.str):
        walker.fail(scalar, f"has dtype {scalar.dtype}, which holds Python objects or structures")
    return walker.nested(Ext.NUMPY_SCALAR, [scalar.dtype.str, [], scalar.tobytes()], depth)


def _encode_set(code: Ext) -> Callable[[_Walker, Any, int], object]:
    def encode(walker: _Walker, value: Any, depth: int) -> object:
        # Sorted by encoded bytes: equal sets give equal bytes, which digests rely on.
        walker.check_keys(list(value))
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
_OWN: dict[type, tuple[Ext, Callable[[Any], object]] | None] = {}
"""Type -> how its values become parts, or None where they do not; filled as types are met."""


def _own_parts(value: object) -> tuple[Ext, object] | None:
    """The extension and the parts of one of our own values: the short way for effects, whose parts are mostly plain."""
    kind = type(value)
    if kind not in _OWN:
        _OWN[kind] = next((own for base, own in _OWN.items() if own is not None and issubclass(kind, base)), None)
    own = _OWN[kind]
    return None if own is None else (own[0], own[1](value))


def register_encoder(code: Ext, kind: type, to_parts: Callable[[Any], object]) -> None:
    """Encode values of this type, subclasses included, as an extension that holds their parts."""
    _OWN[kind] = code, _call_parts if code is Ext.CALL else to_parts
    _REGISTERED_ENCODERS[kind] = _encode_call if code is Ext.CALL else _simple(code, to_parts)
