"""Policies from TOML files, and the shipped profiles.

Every error is a PolicyError with file and line. A file starts from nothing, or from the policy it `extends`: its limits
and effects then replace the inherited ones one by one, its other keys replace the inherited ones as a whole.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import TOML_KEYS, Limits, limit_from_toml
from fxcell.policies.names import nearest, short
from fxcell.policies.policy import Policy
from fxcell.policies.rule import Rule
from fxcell.policies.rules import effect_class, rule_for
from fxcell.policies.toml_lines import key_lines

MAX_FILE_BYTES = 2**20
MAX_EXTENDS = 16
"""Length of a chain of `extends`."""

_PROFILES = Path(__file__).with_name("profiles")
_KEYS = ("description", "extends", "isolation", "allow", "visible", "preload", "limits", "effects")
_LINE = re.compile(r" \(at line (\d+), column \d+\)$")


class _Source(NamedTuple):
    """One parsed file: its path, its table, the lines of its keys, the files that led here by `extends`."""

    file: str
    table: dict[str, Any]
    lines: Mapping[tuple[str, ...], int]
    seen: tuple[str, ...]

    def line(self, *path: str) -> int | None:
        """The line of this key, or of the nearest table around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def fail(self, message: str, *path: str) -> NoReturn:
        raise PolicyError(message, self.file, self.line(*path), at=path)


def load_policy(spec: str | os.PathLike[str] | Policy) -> Policy:
    """The policy that a name or path stands for; a Policy is itself.

    spec: a text without "/" that does not end in ".toml" is the name of a shipped profile, anything else a file.
    Raises: PolicyError - with file and line.
    """
    if isinstance(spec, Policy):
        return spec
    if isinstance(spec, str) and _is_profile_name(spec):
        return load_profile(spec)
    if not isinstance(spec, str | os.PathLike):
        raise PolicyError(f"a policy is a profile's name, a path or a Policy, got {type(spec).__name__}")
    return _load(Path(spec), ())


@functools.cache
def load_profile(name: str) -> Policy:
    """The shipped profile of this name. Raises PolicyError naming the nearest one."""
    return _load(_profile_file(name), ())


def profile_names() -> tuple[str, ...]:
    """The names of the shipped profiles, sorted."""
    return tuple(sorted(path.stem for path in _PROFILES.glob("*.toml")))


def _profile_file(name: str) -> Path:
    # Looked up in the list, never joined unseen: the name may come from a request.
    if name not in profile_names():
        raise PolicyError(
            f"there is no profile {short(name)}{nearest(name, profile_names())} "
            "A file's path has a '/' or ends in '.toml'."
        )
    return _PROFILES / f"{name}.toml"


def _is_profile_name(spec: str) -> bool:
    return "/" not in spec and not spec.endswith(".toml")


def _load(path: Path, seen: tuple[str, ...]) -> Policy:
    source = _read(path, seen)
    for key in source.table:
        if key not in _KEYS:
            source.fail(f"there is no key {short(key)}{nearest(key, _KEYS)}", key)
    base = _base(source)
    parts: dict[str, Any] = {"name": path.stem, "description": ""}
    for key in ("description", "isolation", "allow", "visible", "preload"):
        if key in source.table:
            parts[key] = source.table[key]
    try:
        parts["limits"] = _limits(source, base)
        parts["effects"] = _effects(source, base)
        return base.replaced(**parts)
    except PolicyError as error:
        if error.file is not None:
            raise
        raise PolicyError(
            error.message, source.file, source.line(*error.at) or source.line("extends"), at=error.at
        ) from error


def _base(source: _Source) -> Policy:
    if "extends" not in source.table:
        return Policy()
    spec = source.table["extends"]
    if type(spec) is not str or not spec:
        source.fail(f"extends must be a profile's name or a path, got {short(spec)}", "extends")
    try:
        path = _profile_file(spec) if _is_profile_name(spec) else Path(source.file).parent / spec
    except PolicyError as error:
        source.fail(error.message, "extends")
    chain = (*source.seen, _identity(Path(source.file)))
    try:
        identity, exists = _identity(path), path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, a name that is too long, a loop of links, a closed folder
        source.fail(f"extends = {short(spec)} cannot be looked at: {error!s:.200}", "extends")
    if identity in chain:
        source.fail(f"extends = {spec!r} leads back to a file that extends this one", "extends")
    if len(chain) >= MAX_EXTENDS:
        source.fail(f"extends = {spec!r} is the end of a chain of over {MAX_EXTENDS} files", "extends")
    if not exists:
        source.fail(f"extends = {spec!r}, but there is no file {path}", "extends")
    return _load(path, chain)


def _limits(source: _Source, base: Policy) -> Limits:
    table = source.table.get("limits", {})
    if not isinstance(table, dict):
        source.fail(f'limits must be a table such as {{ memory = "256 MiB" }}, got {short(table)}', "limits")
    values = base.limits.to_data()
    for key, value in table.items():
        try:
            values[TOML_KEYS.get(key, key)] = limit_from_toml(key, value)
        except PolicyError as error:
            source.fail(error.message, "limits", key)
    return Limits(**values)


def _effects(source: _Source, base: Policy) -> dict[str, Rule]:
    table = source.table.get("effects", {})
    if not isinstance(table, dict):
        source.fail(f"effects must be a table such as {{ Print = true }}, got {short(table)}", "effects")
    effects = dict(base.effects)
    for name, given in table.items():
        if given is not False:
            effects[name] = rule_for(name, given)
            continue
        effect_class(name)
        if name not in base.effects:
            source.fail(f"effects.{name} = false is without effect: it is not inherited", "effects", name)
        del effects[name]
    return effects


def _read(path: Path, seen: tuple[str, ...]) -> _Source:
    file = str(path)
    data = _bytes(path)
    try:
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise PolicyError("the file is not valid UTF-8", file, data.count(b"\n", 0, error.start) + 1) from error
    try:
        table = tomllib.loads(text)
        return _Source(file, table, key_lines(text), seen)
    except RecursionError as error:
        raise PolicyError("values are nested too deeply", file) from error
    except ValueError as error:  # tomllib.TOMLDecodeError, or an integer of over 4300 digits
        place = _LINE.search(str(error))
        message = f"not valid TOML: {_LINE.sub('', str(error))}"
        raise PolicyError(message, file, int(place[1]) if place else _last_line(error, text)) from error


def _last_line(error: ValueError, text: str) -> int | None:
    return text.count("\n") + 1 if "end of document" in str(error) else None


def _bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise PolicyError("not a regular file", str(path))
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise PolicyError(f"cannot be read: {error}", str(path)) from error
    if len(data) > MAX_FILE_BYTES:
        raise PolicyError(f"the file is larger than {MAX_FILE_BYTES:,} bytes", str(path))
    return data


def _identity(path: Path) -> str:
    return str(path.resolve())
