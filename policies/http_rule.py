"""The rule of HTTPRequest: hosts, methods, ports, sizes.

A policy grants a name; the broker resolves it and must ask `is_private_address` for each address, and `check` again for
each redirect. What a host does with a request that is granted is not stopped here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fxcell.policies.effects import Effect
from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import MiB
from fxcell.policies.names import nearest, short
from fxcell.policies.plain_rule import toml_text
from fxcell.policies.rule import Refusal, Rule, byte_count, texts
from fxcell.policies.secret_refs import checked_secrets
from fxcell.policies.targets import DEFAULT_PORTS, HostEntry, HTTPTarget, host_entry, http_target, is_private_name

_METHOD = re.compile(r"[A-Z]{1,20}", re.ASCII)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)  # token of RFC 9110, 5.6.2
_HEADER_VALUE = re.compile(r"[\t -~]{0,8192}", re.ASCII)
_MAX_HEADERS = 100
_NEVER_METHODS = {"CONNECT": "it opens a tunnel", "TRACE": "it echoes the host's own headers"}
_HOST_SETS = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
    "proxy-authorization", "proxy-connection", "proxy-authenticate", "accept-encoding",
})  # fmt: skip
"""Headers that decide where a request goes or where it ends."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HTTPRule(Rule):
    """Requests to these hosts, with these methods.

    hosts:          "api.example.com" (that name alone), "*.example.com" (one label or more below, not the name itself),
                    "*" (any public host), or one of them with ":port"; addresses in their usual spelling only.
    methods:        exact, in capitals.
    ports:          for entries without a port of their own: exactly these; empty means 80 for http and 443 for https.
    max_body_bytes: body of the request, and of the answer.
    private_hosts:  True also opens addresses that are loopback, private or link-local, as far as `hosts` covers them;
                    with "*" that is the whole network of the host.
    secrets:        header -> where the host takes its value from (fxcell.policies.secret_refs). The header is sent to the host
                    that was asked, over https or to private hosts, and not along a redirect to another; a plugin cannot set it.
                    Does not stop a host that was told the secret from handing it on, or answering it in another form.
    secret_hosts:   the entries of `hosts` that are sent the secrets; needed where there are several.
    """

    required: ClassVar[str] = "hosts"
    example: ClassVar[str] = '{ hosts = ["api.example.com"] }'
    unwritten: ClassVar[frozenset[str]] = Rule.unwritten | {"secrets", "secret_hosts"}

    hosts: Sequence[str] = ()
    methods: Sequence[str] = ("GET", "HEAD")
    ports: Sequence[int] = ()
    max_body_bytes: int = 16 * MiB
    private_hosts: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict)
    secret_hosts: Sequence[str] = ()

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        object.__setattr__(self, "hosts", texts("hosts", self.hosts, '["api.example.com"]'))
        object.__setattr__(self, "methods", _methods(self.methods))
        object.__setattr__(self, "ports", _ports(self.ports))
        byte_count("max_body_bytes", self.max_body_bytes)
        if type(self.private_hosts) is not bool:
            raise PolicyError(
                f"private_hosts must be true or false, got {short(self.private_hosts)}", at=("private_hosts",)
            )
        if not self.hosts:
            raise PolicyError(f"hosts = [] grants no request; write {self.example}", at=("hosts",))
        object.__setattr__(self, "secrets", checked_secrets(self.secrets, _HOST_SETS))
        object.__setattr__(self, "secret_hosts", self._hosts_told())
        self._refuse_without_effect()

    def _hosts_told(self) -> tuple[str, ...]:
        """The entries of `hosts` that are sent the secrets; sending one to a host that nobody meant cannot be taken back."""
        told = texts("secret_hosts", self.secret_hosts, '["api.example.com"]')
        for text in told:
            if text not in self.hosts:
                raise PolicyError(f"secret_hosts: {text!r} is no entry of hosts{nearest(text, self.hosts)}", at=("secret_hosts",))
        if not self.secrets:
            if told:
                raise PolicyError("secret_hosts is without effect: there are no secrets", at=("secret_hosts",))
            return ()
        if not told and len(self.hosts) > 1:
            raise PolicyError(
                f"secrets beside {len(self.hosts)} hosts: say which of them are sent the secrets, "
                f"secret_hosts = [{toml_text(self.hosts[0])}]", at=("secrets",),
            )  # fmt: skip
        told = told or tuple(self.hosts)
        if any(host_entry(text).pattern == "*" for text in told):
            raise PolicyError('secrets would go to every host that "*" covers; name those that are meant', at=("secrets",))
        return told

    def sends_secrets_to(self, target: HTTPTarget) -> bool:
        """True when the target is one that `secret_hosts` names."""
        entries = [host_entry(text) for text in self.secret_hosts]
        return any(entry.covers(target.host) and self._port_granted(entry, target) for entry in entries)

    def _entries(self) -> list[HostEntry]:
        try:
            return [host_entry(text) for text in self.hosts]
        except ValueError as error:
            raise PolicyError(f"hosts: {error}", at=("hosts",)) from error

    def _refuse_without_effect(self) -> None:
        entries = self._entries()
        if not self.private_hosts:
            for text, entry in zip(self.hosts, entries, strict=True):
                if entry.private:
                    raise PolicyError(
                        f"hosts: {text!r} is private, so the entry is without effect; add private_hosts = true",
                        at=("hosts",),
                    )
        elif all(entry.public for entry in entries):
            raise PolicyError(
                "private_hosts = true is without effect: every entry of hosts is a public address",
                at=("private_hosts",),
            )
        if self.ports and all(entry.port is not None for entry in entries):
            raise PolicyError("ports is without effect: every entry of hosts names its own port", at=("ports",))

    def judge(self, effect: Effect) -> Refusal | None:
        asked: Any = effect
        return (
            self._judge_url(asked.url)
            or self._judge_method(asked.method)
            or judge_headers(asked.headers)
            or (self._judge_secrets(asked.url, asked.headers) if self.secrets else None)
            or self._judge_body(asked.body)
            or _judge_timeout(asked.timeout_s)
        )

    def _judge_url(self, url: object) -> Refusal | None:
        try:
            target = http_target(url)
        except ValueError as error:
            return Refusal("url", str(error), "")
        matching = [entry for entry in self._entries() if entry.covers(target.host)]
        if not matching:
            usual = self.ports or (DEFAULT_PORTS[target.scheme],)
            entry = in_url(target.host) + ("" if target.port in usual else f":{target.port}")
            wider = ", ".join(toml_text(text) for text in [*self.hosts, entry])
            rule = f"the host {target.host!r:.260} is not exactly one of {', '.join(self.hosts)}"
            if is_private_name(target.host) and not self.private_hosts:  # the entry alone would be without effect
                return Refusal("url", rule, f"effects.HTTPRequest = {{ hosts = [{wider}], private_hosts = true }}")
            return Refusal("url", rule, f"effects.HTTPRequest.hosts = [{wider}]")
        if not self.private_hosts and is_private_name(target.host):
            rule = f"the host {target.host!r:.260} is private"
            return Refusal("url", rule, "effects.HTTPRequest.private_hosts = true")
        if not any(self._port_granted(entry, target) for entry in matching):
            return self._refuse_port(target)
        return None

    def _port_granted(self, entry: HostEntry, target: HTTPTarget) -> bool:
        if entry.port is not None:
            return target.port == entry.port
        if self.ports:
            return target.port in self.ports
        return target.port == DEFAULT_PORTS[target.scheme]

    def _refuse_port(self, target: HTTPTarget) -> Refusal:
        wider = ", ".join(toml_text(text) for text in [*self.hosts, f"{in_url(target.host)}:{target.port}"])
        rule = f"the port {target.port} of {target.host!r:.260} is not granted for {target.scheme}"
        return Refusal("url", rule, f"effects.HTTPRequest.hosts = [{wider}]")

    def _judge_method(self, method: object) -> Refusal | None:
        if type(method) is str and method in self.methods:
            return None
        rule = f"the method {short(method)} is not exactly one of {', '.join(self.methods)}"
        grantable = type(method) is str and bool(_METHOD.fullmatch(method)) and method not in _NEVER_METHODS
        wider = ", ".join(f'"{m}"' for m in [*self.methods, method])
        return Refusal("method", rule, f"effects.HTTPRequest.methods = [{wider}]" if grantable else "")

    def _judge_secrets(self, url: str, headers: Mapping[str, str]) -> Refusal | None:
        secret = {name.lower() for name in self.secrets}
        for name in headers:
            if name.lower() in secret:
                return Refusal("headers", f"the header {name!r} is set by the host, from a secret", "")
        target = http_target(url)
        if target.scheme != "https" and not is_private_name(target.host) and self.sends_secrets_to(target):
            return Refusal("url", "the rule's secrets are sent over https alone", "")
        return None

    def _judge_body(self, body: object) -> Refusal | None:
        if type(body) is not bytes:
            return Refusal("body", f"the body must be plain bytes, not {type(body).__name__}", "")
        if len(body) > self.max_body_bytes:
            rule = f"the body has {len(body):,} bytes, over the maximum of {self.max_body_bytes:,}"
            return Refusal("body", rule, f"effects.HTTPRequest.max_body_bytes = {len(body)}")
        return None

    @classmethod
    def narrowest(cls, effect: Effect) -> str:
        asked: Any = effect
        try:
            target = http_target(asked.url)
        except ValueError:
            return cls.example
        host = in_url(target.host)
        entry = host if target.port == DEFAULT_PORTS[target.scheme] else f"{host}:{target.port}"
        more = ', methods = ["' + asked.method + '"]' if _METHOD.fullmatch(str(asked.method)) else ""
        more = "" if asked.method in ("GET", "HEAD") else more
        private = ", private_hosts = true" if is_private_name(target.host) else ""
        return f"{{ hosts = [{toml_text(entry)}]{more}{private} }}"


def judge_headers(headers: Mapping[Any, Any]) -> Refusal | None:
    """Refuse header names and values that could end the header, change the target, or smuggle a second request."""
    if len(headers) > _MAX_HEADERS:
        return Refusal("headers", f"there are more than {_MAX_HEADERS} headers", "")
    for name, value in headers.items():
        if type(name) is not str or not _HEADER_NAME.fullmatch(name):
            return Refusal("headers", f"the header name {short(name)} holds characters that names cannot have", "")
        if name.lower() in _HOST_SETS:
            return Refusal("headers", f"the header {name!r} is set by the host alone", "")
        if type(value) is not str or not _HEADER_VALUE.fullmatch(value):
            rule = f"the value of the header {name!r} is no text of printable ASCII of at most 8192 characters"
            return Refusal("headers", rule, "")
    return None


def in_url(host: str) -> str:
    """The host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _judge_timeout(timeout_s: object) -> Refusal | None:
    if type(timeout_s) is float and math.isfinite(timeout_s) and timeout_s > 0:
        return None
    return Refusal("timeout_s", f"{short(timeout_s)} is not a positive, finite number of seconds", "")


def _methods(given: object) -> tuple[str, ...]:
    methods = texts("methods", given, '["GET", "HEAD"]')
    if not methods:
        raise PolicyError(
            'methods = [] grants no request; write methods = ["GET"] or leave the effect out', at=("methods",)
        )
    for method in methods:
        if method in _NEVER_METHODS:
            raise PolicyError(f"methods: {method} can never be granted: {_NEVER_METHODS[method]}", at=("methods",))
        if not _METHOD.fullmatch(method):
            raise PolicyError(f"methods: {short(method)} must be a method in capitals, such as GET", at=("methods",))
    return methods


def _ports(given: object) -> tuple[int, ...]:
    if not isinstance(given, list | tuple) or any(type(port) is not int or not 1 <= port <= 65535 for port in given):
        raise PolicyError(f"ports must be a list of numbers from 1 to 65535, got {short(given)}", at=("ports",))
    if len(set(given)) != len(given):
        raise PolicyError("ports holds a number twice; the second is without effect", at=("ports",))
    return tuple(sorted(given))
