"""Header fields of HTTPRequest: what a plugin may send, what is reported of an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fxcell.policies.builtin import HTTPRequest
from fxcell.policies.errors import EffectFailed
from fxcell.policies.names import short
from fxcell.policies.targets import DEFAULT_PORTS, HTTPTarget

MAX_COUNT = 256
MAX_BYTES = 64 * 1024
"""Names and values together, in either direction."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?")
# What decides where a request goes and where it ends is the host's business: with it a plugin could smuggle a second
# request past the rules.
_HOSTS_OWN = frozenset({
    "connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
_CREDENTIALS = frozenset({"authorization", "cookie"})
_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_DEFAULTS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "fxcell"}


def to_send(effect: HTTPRequest, target: HTTPTarget, secrets: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The complete header of a request, the host's secrets in it.

    Raises: EffectFailed(bad_request) - naming the field that cannot be sent.
    """
    host = f"[{target.host}]" if ":" in target.host else target.host
    if target.port != DEFAULT_PORTS[target.scheme]:
        host = f"{host}:{target.port}"
    own = {"host": host, "connection": "close"}
    if effect.body or effect.method in _METHODS_WITH_BODY:
        own["content-length"] = str(len(effect.body))
    given: dict[str, str] = {}
    for name, value in effect.headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            raise _bad_request(f"{short(name)} is not a header name")
        if lower in _HOSTS_OWN or lower.startswith("proxy-"):
            raise _bad_request(f"the header {name:.80} is set by the host alone")
        if lower in given:
            raise _bad_request(f"the header {name:.80} is given twice")
        if not _VALUE.fullmatch(value):
            raise _bad_request(f"the value of {name:.80} holds a line end, a control character or a blank at an end")
        given[lower] = value
    given |= {name.lower(): value for name, value in secrets.items()}
    if len(given) > MAX_COUNT or sum(len(name) + len(value) for name, value in given.items()) > MAX_BYTES:
        raise _bad_request(f"the headers are more than {MAX_COUNT}, or {MAX_BYTES} bytes")
    return [(name.encode(), value.encode("latin-1")) for name, value in (own | _DEFAULTS | given).items()]


def received(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The header of an answer: lower-case names, repeated fields joined. Raises EffectFailed(too_large)."""
    if len(headers) > MAX_COUNT or sum(len(name) + len(value) for name, value in headers) > MAX_BYTES:
        raise too_large(f"more than {MAX_COUNT} fields or {MAX_BYTES} bytes")
    result: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        result[name] = f"{result[name]}, {value}" if name in result else value
    return result


def without_credentials(headers: dict[str, str]) -> dict[str, str]:
    """The fields that may follow a redirect to another origin."""
    return {name: value for name, value in headers.items() if name.lower() not in _CREDENTIALS}


def without_content(headers: dict[str, str]) -> dict[str, str]:
    """The fields that are left when a redirect drops the body."""
    return {name: value for name, value in headers.items() if not name.lower().startswith("content-")}


def too_large(what: str) -> EffectFailed:
    """The failure of an answer whose header is over a cap."""
    return EffectFailed("HTTPRequest", "too_large", f"the header of the answer is over its cap: {what}")


def _bad_request(message: str) -> EffectFailed:
    return EffectFailed("HTTPRequest", "bad_request", message)
