"""plugin.toml: what a plugin folder says of itself. Every error has file and line.

name = "thumbnails"
version = "1.2"
entry = "thumbnails.batch:main"        # module:function, inside the folder
effects = ["ReadFile", "Log"]          # what it asks for; the policy decides what it gets
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from fxcell.policies.errors import PolicyError
from fxcell.policies.names import nearest, short
from fxcell.policies.rules import effect_class
from fxcell.policies.toml_lines import key_lines

FILE_NAME = "plugin.toml"
MAX_BYTES = 64 * 1024

_KEYS = ("name", "version", "entry", "effects")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,63}", re.ASCII)
_ENTRY = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)
_LINE = re.compile(r" \(at line (\d+), column \d+\)$")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A plugin.toml that was checked. effects are names that exist and that a policy could grant, sorted."""

    name: str
    version: str
    module: str
    function: str
    effects: tuple[str, ...]
    file: str
    entry_line: int | None


def parse_manifest(data: bytes, file: str) -> Manifest:
    """Read a manifest; `file` is what errors call it.

    Raises: PolicyError - not TOML, an unknown or missing key, a value of the wrong kind, an effect that does not exist.
    """
    table, lines = _parse(data, file)

    def fail(message: str, *key: str) -> NoReturn:
        raise PolicyError(message, file, lines.get(key), at=key)

    for key in table:
        if key not in _KEYS:
            fail(f"there is no key {short(key)}{nearest(key, _KEYS)}", key)
    for key, form, example in (
        ("name", _NAME, "thumbnails"),
        ("version", _VERSION, "1.0"),
        ("entry", _ENTRY, "main:main"),
    ):
        if key not in table:
            fail(f'the key {key!r} is missing; write, for example, {key} = "{example}"')
        if type(table[key]) is not str or not form.fullmatch(table[key]):
            fail(f'{key} must be a text such as "{example}", got {short(table[key])}', key)
    entry = _ENTRY.fullmatch(table["entry"])
    assert entry is not None
    effects = table.get("effects", [])
    if not isinstance(effects, list) or any(type(name) is not str for name in effects):
        fail(f'effects must be a list of names such as ["ReadFile"], got {short(effects)}', "effects")
    for name in effects:
        try:
            effect_class(name)
        except PolicyError as error:
            fail(error.message, "effects")
        if effects.count(name) > 1:
            fail(f"effects names {name!r} twice; the second is without effect", "effects")
    return Manifest(
        table["name"], table["version"], entry[1], entry[2], tuple(sorted(effects)), file, lines.get(("entry",))
    )


def _parse(data: bytes, file: str) -> tuple[dict[str, Any], Mapping[tuple[str, ...], int]]:
    if len(data) > MAX_BYTES:
        raise PolicyError(f"the file is larger than {MAX_BYTES:,} bytes", file)
    try:
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise PolicyError("the file is not valid UTF-8", file, data.count(b"\n", 0, error.start) + 1) from error
    try:
        return tomllib.loads(text), key_lines(text)
    except RecursionError as error:
        raise PolicyError("values are nested too deeply", file) from error
    except ValueError as error:  # tomllib.TOMLDecodeError, or an integer of over 4300 digits
        place = _LINE.search(str(error))
        line = int(place[1]) if place else text.count("\n") + 1 if "end of document" in str(error) else None
        raise PolicyError(f"not valid TOML: {_LINE.sub('', str(error))}", file, line) from error
