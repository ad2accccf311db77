"""What one rule of HTTPRequest grants that another does not: hosts with their ports, methods, sizes, secrets.

A host that is covered by a pattern of the other rule is no news; a secret that goes to a host to which the other does not
send that very secret is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fxcell.host.difference_changes import Change, Side, sides
from fxcell.policies.http_rule import HTTPRule
from fxcell.policies.targets import DEFAULT_PORTS, HostEntry, host_entry
from fxcell.policies.toml_text import bytes_text

KEYS = frozenset({"hosts", "methods", "ports", "max_body_bytes", "private_hosts", "secrets", "secret_hosts"})
"""The keys of the rule that `requests` judges."""


def requests(at: str, a: HTTPRule, b: HTTPRule) -> Iterator[Change]:
    """Every host, port, method, size and secret that one of the rules has beyond the other."""
    for side, more, less in sides(a, b):
        for text in more.hosts:
            entry = host_entry(text)
            ports = _ports(entry, more) - _ports_granted(entry, less)
            if ports:
                yield Change(side, f"{at}.hosts", f"requests to {_host_words(entry, more)}, {_port_words(ports)}")
        if more.private_hosts and not less.private_hosts:
            text = "addresses that are loopback, private or link-local, as far as its hosts cover them"
            yield Change(side, f"{at}.private_hosts", text)
        methods = sorted(set(more.methods) - set(less.methods))
        if methods:
            yield Change(side, f"{at}.methods", f"the method{'s' * (len(methods) > 1)} {', '.join(methods)}")
        if more.max_body_bytes > less.max_body_bytes:
            high, low = bytes_text(more.max_body_bytes), bytes_text(less.max_body_bytes)
            yield Change(side, f"{at}.max_body_bytes", f"up to {high}; the other up to {low}")
        yield from _secrets(at, side, more, less)


def _secrets(at: str, side: Side, more: HTTPRule, less: HTTPRule) -> Iterator[Change]:
    """Secrets that are sent where the other does not send them; and what a plugin may do where the host sends none."""
    for header, reference in more.secrets.items():
        same = less.secret_hosts if less.secrets.get(header) == reference else ()
        for text in more.secret_hosts:
            entry = host_entry(text)
            if _ports(entry, more) - _ports_granted(entry, less, same):
                yield Change(side, f"{at}.secrets", f"{reference} is sent to {_host_words(entry, more)}, as {header}")
    own = {name.lower() for name in more.secrets}
    for header in less.secrets:
        if header.lower() not in own:
            yield Change(side, f"{at}.secrets", f"the plugin itself may set {header}; the other's host sets it")
    for text in less.secret_hosts:
        entry = host_entry(text)
        plain = {port for port in _ports_granted(entry, more) if port[0] == "http"}
        if not entry.private and plain - _ports_granted(entry, more, more.secret_hosts):
            yield Change(side, f"{at}.secret_hosts", f"{text} over plain http; the other asks it over https, for its secrets")


_Ports = frozenset[tuple[str, int]]
"""(scheme, port) pairs."""


def _ports(entry: HostEntry, rule: HTTPRule) -> _Ports:
    if entry.port is None and not rule.ports:
        return frozenset(DEFAULT_PORTS.items())
    numbers = rule.ports if entry.port is None else [entry.port]
    return frozenset((scheme, number) for scheme in DEFAULT_PORTS for number in numbers)


def _ports_granted(entry: HostEntry, rule: HTTPRule, hosts: Sequence[str] | None = None) -> _Ports:
    """At which ports the rule grants every host that the entry covers; hosts: by these of its entries alone."""
    if entry.private and not rule.private_hosts:
        return frozenset()
    covering = [other for other in map(host_entry, rule.hosts if hosts is None else hosts) if _contains(other.pattern, entry)]
    return frozenset().union(*(_ports(other, rule) for other in covering))


def _contains(pattern: str, entry: HostEntry) -> bool:
    if pattern in ("*", entry.pattern):
        return True
    if entry.pattern.startswith("*"):  # "*" has no other pattern around it; "*.a.b" is in "*.b"
        return pattern.startswith("*.") and entry.pattern.endswith(pattern[1:])
    return HostEntry(pattern, None).covers(entry.pattern)


def _host_words(entry: HostEntry, rule: HTTPRule) -> str:
    if entry.pattern == "*":
        return "every host" if rule.private_hosts else "every public host"
    return f"every host below {entry.pattern[2:]}" if entry.pattern.startswith("*.") else entry.pattern


def _port_words(ports: _Ports) -> str:
    if ports == frozenset(DEFAULT_PORTS.items()):
        return "http at port 80 and https at port 443"
    both = sorted({port for scheme, port in ports if {("http", port), ("https", port)} <= ports})
    words = [f"port {port}" for port in both]
    words += [f"{scheme} at port {port}" for scheme, port in sorted(ports) if port not in both]
    return ", ".join(words)
