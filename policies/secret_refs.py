"""`secrets` of a rule: which header, or field, the host fills, and where it takes the value from. Never the value itself.

    secrets = { Authorization = "Bearer env:API_TOKEN", X-Key = "file:/run/keys/weather", X-Other = "host:weather" }
    secrets = { api_key = "env:API_KEY" }           of an effect of one's own: a field

A policy holds references only, so its digest, its TOML and its errors cannot hold a secret. An error about a reference
does not quote it: somebody may have written the secret itself there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fxcell.policies.errors import PolicyError
from fxcell.policies.names import short
from fxcell.policies.paths import path_fault

MAX_SECRETS = 16
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_REFERENCE = re.compile(r"(?:([A-Za-z][A-Za-z0-9_-]{0,31}) )?(env|file|host):([!-~]{1,4096})", re.ASCII)
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.ASCII)


class SecretRef(NamedTuple):
    """Where one secret comes from.

    scheme: word before it in the header, such as "Bearer", or "".
    kind:   env (a variable of the host's environment), file (its first line), host (fxcell.host.secrets.provide).
    name:   of the variable, path, or name.
    """

    scheme: str
    kind: str
    name: str


def parse_reference(text: str) -> SecretRef:
    """Read one reference of a rule that was checked before."""
    match = _REFERENCE.fullmatch(text)
    assert match is not None
    return SecretRef(match[1] or "", match[2], match[3])


def checked_secrets(given: object, taken: frozenset[str]) -> Mapping[str, str]:
    """The table of a rule, read-only. taken: lower-case names of headers that nobody can set.

    Raises: PolicyError, at ("secrets", header) - never quoting a value.
    """
    table = _table(given, "header")
    seen: set[str] = set()
    for header, reference in table.items():
        if type(header) is not str or not _HEADER_NAME.fullmatch(header):
            raise PolicyError(f"secrets: {short(header)} is not the name of a header", at=("secrets",))
        lower = header.lower()
        if lower in taken or lower.startswith("proxy-"):
            raise PolicyError(f"secrets: the header {header!r} decides where a request goes or ends", at=("secrets", header))
        if lower in seen:
            raise PolicyError(f"secrets names the header {header!r} twice, in another case", at=("secrets", header))
        seen.add(lower)
        _check_reference(header, reference)
    return MappingProxyType({str(header): str(table[header]) for header in sorted(table)})


def checked_field_secrets(given: object) -> Mapping[str, str]:
    """The table of a rule of an effect of one's own, read-only; whether there are such fields is the rule's to say.

    Raises: PolicyError, at ("secrets", field) - never quoting a value.
    """
    table = _table(given, "field")
    for name, reference in table.items():
        if type(name) is not str or not name.isidentifier():
            raise PolicyError(f"secrets: {short(name)} is not the name of a field", at=("secrets",))
        _check_reference(name, reference)
    return MappingProxyType({name: str(table[name]) for name in sorted(table)})


def _table(given: object, what: str) -> Mapping[Any, object]:
    if not isinstance(given, Mapping):
        raise PolicyError(f"secrets must be a table of {what} = reference, got {type(given).__name__}", at=("secrets",))
    if len(given) > MAX_SECRETS:
        raise PolicyError(f"secrets names {len(given)} {what}s, at most {MAX_SECRETS} are kept", at=("secrets",))
    return given


def _check_reference(header: str, reference: object) -> None:
    match = _REFERENCE.fullmatch(reference) if type(reference) is str else None
    place = ("secrets", header)
    if match is None:
        raise PolicyError(
            f'secrets.{header} must say where the value is: "env:NAME", "file:/path" or "host:name", with a word such as '
            '"Bearer " before it where the header needs one; the value itself never stands in a policy', at=place,
        )  # fmt: skip
    if match[2] == "env" and not _ENVIRONMENT_NAME.fullmatch(match[3]):
        raise PolicyError(f"secrets.{header}: env: takes the name of one variable", at=place)
    if match[2] == "file" and path_fault(match[3]):
        raise PolicyError(f"secrets.{header}: file: takes an absolute path without '.', '..' and doubled '/'", at=place)
