"""A policy as the TOML that loads to the same digest: everything written out, nothing inherited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fxcell.policies.limits import TOML_KEYS, GiB, KiB, MiB, TiB
from fxcell.policies.plain_rule import toml_key, toml_text
from fxcell.policies.policy import Policy

_BYTE_KEYS = ("quota_bytes", "max_bytes", "max_total_bytes", "max_body_bytes", "max_value_bytes")
_UNITS = (("TiB", TiB), ("GiB", GiB), ("MiB", MiB), ("KiB", KiB))


def to_toml(policy: Policy) -> str:
    """The effective policy. Its name is not in it: that is the name of the file it is written to."""
    data = policy.to_data()
    lines = [f"# policy {_comment(policy.name)}, digest {policy.digest}"]
    lines += [f"{key} = {_value(data[key])}" for key in ("description", "isolation", "allow", "visible", "preload")]
    lines += ["", "[limits]"]
    lines += [f"{key} = {limit_text(name, data['limits'][name])}" for key, name in TOML_KEYS.items()]
    if data["effects"]:
        lines += ["", "[effects]"]
    lines += [f"{toml_key(name)} = {rule_text(rule)}" for name, rule in data["effects"].items()]
    return "\n".join(lines) + "\n"


def rule_text(rule: Mapping[str, Any]) -> str:
    """The right-hand side of one effect: `true`, or an inline table."""
    if not rule:
        return "true"
    return "{ " + ", ".join(f"{toml_key(key)} = {_rule_value(key, value)}" for key, value in rule.items()) + " }"


def limit_text(name: str, value: float) -> str:
    """The value of one limit with its unit, where it has one."""
    if name.endswith("_bytes"):
        return f'"{bytes_text(int(value))}"'
    return f'"{_number(value)} s"' if name.endswith("_s") else _number(value)


def bytes_text(count: int) -> str:
    """A number of bytes in the largest unit that makes it a whole number."""
    for unit, size in _UNITS:
        if count and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} B"


def _number(value: float) -> str:
    """As short as it can be without another value being meant."""
    whole = int(value)
    return str(whole) if whole == value else repr(value)


def _rule_value(key: str, value: Any) -> str:
    # A field of a user's own effect may have such a name too; only a number of bytes is meant here.
    return f'"{bytes_text(value)}"' if key in _BYTE_KEYS and type(value) is int else _value(value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return toml_text(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    return f"[{', '.join(_value(item) for item in value)}]" if isinstance(value, list | tuple) else repr(value)


def _comment(name: str) -> str:
    return toml_text(name) if not name.isprintable() else name
