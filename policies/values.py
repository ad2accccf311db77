"""The value codec: Python values to MessagePack bytes and back, without pickle.

encode_value(value) -> bytes            everything inline (files, digests, remote transports)
pack(value)         -> Packed           large buffers set aside, for sealed memory (sandbox/wire.py)
decode_value(data)  -> value

Plain types map to MessagePack itself; everything else is an extension whose number is in `Ext`. Decoding builds values
only: it never imports, evaluates or calls anything named in the data. Types outside the table are an `EncodeError` that
names the place, never a silent conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fxcell.policies.decoding import decode_value, register_decoder
from fxcell.policies.encoding import encode_value, pack, pack_inline, register_encoder
from fxcell.policies.value_types import MAX_DEPTH, OUT_OF_BAND_BYTES, PARTS, Ext, Packed

__all__ = [
    "MAX_DEPTH", "OUT_OF_BAND_BYTES", "Ext", "Packed", "decode_value", "encode_value", "pack", "pack_inline", "register",
]  # fmt: skip


def register(
    code: Ext, kind: type, to_parts: Callable[[Any], object], from_parts: Callable[[Any, bool], object]
) -> None:
    """Teach the codec one of our own value types (effects, worker handles, policies, calls).

    to_parts(value) gives plain parts; from_parts(parts, allow_calls) rebuilds and validates, or raises.
    """
    register_encoder(code, kind, to_parts)
    register_decoder(code, from_parts)
    PARTS[kind] = to_parts
