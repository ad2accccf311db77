"""Values and outcomes for people (`readable`) and for programs (`to_json`)."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import pprint
import uuid
from typing import Any

from fxcell.host.effects.basic import visible
from fxcell.policies.effects import Effect
from fxcell.policies.names import short

HELP = """\b
Values in JSON: null, true, 1, 1.5, "text", [...] and {"key": ...} are themselves.
Others are an object with one key:
  {"$bytes": "<base64>"}  {"$tuple": [...]}  {"$set": [...]}  {"$float": "nan"}
  {"$complex": [re, im]}  {"$decimal": "1.5"}  {"$uuid": "..."}  {"$int": "0x..."}
  {"$datetime": "<ISO 8601>"}  {"$date": ...}  {"$time": ...}  {"$timedelta": <seconds>}
  {"$ndarray": {"dtype": "<f8", "shape": [2], "data": [1.0, 2.0]}}
  {"$fx": {"name": "Print", "fields": {...}}}
  {"$map": [[key, value], ...]} for keys that are not texts or start with "$"
"""

_MAX_BYTES_SHOWN = 1024


def to_json(value: object) -> str:
    """The value as one line of ASCII JSON, in the form that HELP documents."""
    return json.dumps(_plain(value), allow_nan=False)


def readable(value: object) -> str:
    """The value much as Python writes it: no control characters but line ends; long bytes cut, with their size."""
    if type(value) is bytes and len(value) > _MAX_BYTES_SHOWN:
        return f"<{len(value):,} bytes: {value[:32]!r}…; --json gives them all>"
    try:
        text = pprint.pformat(value, width=100, sort_dicts=False)
    except (ValueError, RecursionError):  # an int of over 4300 digits, or deep nesting
        text = short(value)
    return "\n".join(visible(line) for line in text.split("\n"))


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        # Python refuses to write ints of over 4300 digits, and others lose what is over 64 bits.
        return value if -(2**63) <= value < 2**64 else {"$int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is list:
        return [_plain(item) for item in value]
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: _plain(item) for key, item in value.items()}
        return {"$map": [[_plain(key), _plain(item)] for key, item in value.items()]}
    return _tagged(value, kind)


def _tagged(value: Any, kind: type) -> Any:
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is tuple:
        return {"$tuple": [_plain(item) for item in value]}
    if kind in (set, frozenset):
        return {"$set": sorted((_plain(item) for item in value), key=json.dumps)}
    if kind is complex:
        return {"$complex": [_plain(value.real), _plain(value.imag)]}
    for given, tag in ((datetime.datetime, "$datetime"), (datetime.date, "$date"), (datetime.time, "$time")):
        if kind is given:
            return {tag: value.isoformat()}
    if kind is datetime.timedelta:
        return {"$timedelta": value.total_seconds()}
    if kind in (decimal.Decimal, uuid.UUID):
        return {f"${kind.__name__.lower()}": str(value)}
    if isinstance(value, Effect):
        fields = {name: _plain(getattr(value, name)) for name in value.effect_fields}
        return {"$fx": {"name": value.effect_name, "fields": fields}}
    if kind.__name__ == "ndarray":
        return {"$ndarray": {"dtype": value.dtype.str, "shape": list(value.shape), "data": _plain_array(value)}}
    if hasattr(value, "dtype"):  # a numpy scalar
        return _plain_array(value)
    return {"$repr": short(value)}


def _plain_array(array: Any) -> Any:
    if array.dtype.kind in "mM":
        return _plain(array.astype(str).tolist())
    return _plain(array.tolist())
