"""Secrets of rules: from a reference in a policy to the header or field, and out of everything that comes back.

    rule.secrets --resolve--> Injected --values--> the request's headers, on its first origin alone; fields for own handlers
                                  └----clean------ answers, error texts, log texts: the value is cut out

A worker never has the value: it is put into the request after the effect was judged, and copies of it in the answer are
replaced, in any case of letters and as the host itself writes it in URLs and errors. A server that answers it in another
form (encoded, reversed, in two parts) is not noticed: it was trusted with it.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Callable, Mapping
from typing import Any

from fxcell.host.audit.redaction import hide, spellings
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectFailed
from fxcell.policies.secret_refs import SecretRef, parse_reference

MIN_CHARACTERS, MAX_CHARACTERS = 8, 8000
"""A shorter one could be guessed by watching what is cut out of answers."""

SHOWN = "[secret]"
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)
_provided: dict[str, Callable[[], str]] = {}
_log = logging.getLogger("fxcell.secrets")


def provide(name: str, value: Callable[[], str]) -> None:
    """Say what answers `host:NAME` in this process. It is called for each request, in the thread of the command."""
    _provided[name] = value


class Injected:
    """The secrets of one request. Its repr and str show none of them."""

    def __init__(self, values: Mapping[str, tuple[str, str]]) -> None:
        """values: header or field -> (word before it or "", secret)."""
        self.values = {name: f"{scheme} {secret}".strip() for name, (scheme, secret) in values.items()}
        forms = {form for _, secret in values.values() for form in spellings(secret)}
        # The longest first: one may be a part of another. In any case of letters: a host's name is compared, and told, in
        # small ones.
        pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)) or "(?!)"
        self._text = re.compile(pattern, re.IGNORECASE)
        self._raw = re.compile(pattern.encode(), re.IGNORECASE)

    def __bool__(self) -> bool:
        return bool(self.values)

    def __repr__(self) -> str:
        return f"<{len(self.values)} secrets>"

    def __reduce__(self) -> str:
        raise TypeError("secrets are not copied out of the host")

    def clean(self, value: Any) -> Any:
        """The value with every copy of a secret in its texts and bytes, in any case of letters, replaced by SHOWN.

        Looked into: containers and effects, however deep.
        """
        if isinstance(value, str):
            return self._text.sub(SHOWN, value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._raw.sub(SHOWN.encode(), bytes(value))
        if isinstance(value, dict):
            return {self.clean(key): self.clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
            return kind(self.clean(item) for item in value)
        if isinstance(value, Effect):
            return type(value)(**{name: self.clean(getattr(value, name)) for name in value.effect_fields})
        return value


NONE = Injected({})


def resolve(effect: str, references: Mapping[str, str], place: str = "header") -> Injected:
    """Look the secrets up, now: one that was changed is used from the next effect on.

    place: what the names of the references are of: "header" or "field".
    Raises: EffectFailed(no_secret) - one is missing or cannot stand in a header. Why is in the host's log alone.
    """
    return Injected({name: _resolved(effect, f"{place} {name!r}", parse_reference(text)) for name, text in references.items()})


def _resolved(effect: str, place: str, ref: SecretRef) -> tuple[str, str]:
    try:
        value = _SOURCES[ref.kind](ref.name)
    except Exception as error:  # noqa: BLE001 - `provide` takes any function
        # An exception's text could hold what was read; its type does not.
        _log.error("no secret for the %s: %s:%s (%s)", place, ref.kind, ref.name, type(error).__name__)
        raise _missing(effect, place) from None
    wrong = _fault(value)
    if wrong:
        _log.error("the secret for the %s, from %s:%s, %s", place, ref.kind, ref.name, wrong)
        raise _missing(effect, place)
    hide(value, f"{ref.kind}:{ref.name}")  # the plugin may have put a guess of it into an argument that is recorded
    return ref.scheme, value


def _fault(value: object) -> str:
    if type(value) is not str:
        return f"is a {type(value).__name__}, not a str"
    if not MIN_CHARACTERS <= len(value) <= MAX_CHARACTERS:
        return f"has not between {MIN_CHARACTERS} and {MAX_CHARACTERS} characters"
    return "" if _VALUE.fullmatch(value) else "holds characters that a header cannot have"


def _missing(effect: str, place: str) -> EffectFailed:
    text = f"the host has no usable secret for the {place}; the host's log says why"
    return EffectFailed(effect, "no_secret", text)


def _from_file(path: str) -> str:
    """The first line of a regular file; a FIFO would wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        return file.read(2 * MAX_CHARACTERS).split(b"\n", 1)[0].decode().strip()


_SOURCES: Mapping[str, Callable[[str], Any]] = {
    "env": lambda name: os.environ[name],
    "file": _from_file,
    "host": lambda name: _provided[name](),
}
