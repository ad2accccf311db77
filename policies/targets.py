"""What a URL names, read so strictly that two programs cannot read it differently, and which addresses are private.

A parser that is kinder than the one of the HTTP library is a way around a rule. Everything here is exact: one spelling
per host and address, no user name, no blanks, no letters outside ASCII.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from fxcell.policies.names import short

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL_CHARACTERS = 8192

_PLAIN_CHARACTERS = re.compile(r"[!-\[\]-~]+", re.ASCII)  # visible ASCII without the backslash
_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa")  # RFC 6761, 6762, 8375; .internal: ICANN, 2024


class HTTPTarget(NamedTuple):
    """Where a request goes.

    host: in lower case; an IPv6 address without its brackets.      path: with the query, "/" at least.
    """

    scheme: str
    host: str
    port: int
    path: str


def http_target(url: object) -> HTTPTarget:
    """Read an http or https URL. Raises ValueError, which says in words what is wrong with it."""
    if type(url) is not str:
        raise ValueError(f"the url must be a plain str, not {type(url).__name__}")
    if len(url) > MAX_URL_CHARACTERS:
        raise ValueError(f"the url is longer than {MAX_URL_CHARACTERS} characters")
    if not _PLAIN_CHARACTERS.fullmatch(url):
        raise ValueError(
            "the url holds a blank, a control character, a backslash or a letter outside ASCII; percent-encode it"
        )
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("the url must begin with exactly 'http://' or 'https://'")
    scheme, authority, path = match.groups()
    if "@" in authority:
        raise ValueError("the url holds a user name or password before its host")
    host, port = split_port(authority)
    host = host_name(host.lower())
    path = path if path.startswith("/") else f"/{path}"
    return HTTPTarget(scheme, host, DEFAULT_PORTS[scheme] if port is None else port, path)


def split_port(authority: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[v6]` or `[v6]:port` in two. Raises ValueError unless the port is plain, 1 to 65535."""
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        host += bracket
    else:
        host, colon, rest = authority.partition(":")
        rest = colon + rest
    if not rest:
        return host, None
    digits = rest[1:]
    if rest[0] != ":" or not _PORT.fullmatch(digits) or int(digits) > 65535:
        raise ValueError(f"{short(rest[1:])} is not a port from 1 to 65535 in plain digits")
    return host, int(digits)


def host_name(text: str) -> str:
    """A host as it stands in a URL, already in lower case, with the brackets of an IPv6 address removed.

    Raises: ValueError - not a DNS name, or an address in another spelling than the usual one (127.1, 0x7f.0.0.1, …).
    """
    if text.startswith("["):
        return _ipv6(text)
    if len(text) > 253 or not _NAME.fullmatch(text):
        raise ValueError(f"{short(text)} is not a host name of plain ASCII letters, digits and '-'")
    if _NUMBER_LABEL.fullmatch(text.rpartition(".")[2]):
        # Resolvers read a last label of digits as part of a number: 2130706433 and 127.1 are both 127.0.0.1.
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError(
                f"{short(text)} is not an IPv4 address in its usual spelling, four plain numbers"
            ) from None
    return text


def _ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text[1:-1] if text.endswith("]") else "")
    except ValueError:
        raise ValueError(f"{short(text)} is not an IPv6 address in brackets") from None
    if address.scope_id is not None or address.ipv4_mapped is not None:
        raise ValueError(f"{short(text)} has a zone or holds an IPv4 address; write the IPv4 address itself")
    if str(address) != text[1:-1]:
        raise ValueError(f"{short(text)} is not in the shortest spelling; write [{address}]")
    return str(address)


def literal_address(host: str) -> Address | None:
    """The address that a host from `http_target` is, or None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_private_address(address: Address | str) -> bool:
    """True unless packets to the address leave for the public internet: loopback, private, link-local, reserved …

    IPv6 addresses that carry an IPv4 address (mapped, NAT64, 6to4) are judged by that one.
    """
    address = ipaddress.ip_address(address)
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is not None:
            return is_private_address(embedded)
        if address.teredo is not None or address.is_site_local:
            return True
    return not address.is_global or address.is_multicast or address.is_reserved


def is_private_name(host: str) -> bool:
    """True for names and literal addresses that are private whatever a resolver says."""
    address = literal_address(host)
    if address is not None:
        return is_private_address(address)
    # A name of one label is looked up in the host's own search domain.
    return "." not in host or host.endswith(_PRIVATE_SUFFIXES)


class HostEntry(NamedTuple):
    """One entry of a rule's `hosts`. pattern: a host, "*.suffix", or "*"; port: the one it names, or None."""

    pattern: str
    port: int | None

    def covers(self, host: str) -> bool:
        """True when the host is this one, or has one label or more below the suffix; "*" covers every host."""
        if self.pattern == "*":
            return True
        if self.pattern.startswith("*."):
            return (
                literal_address(host) is None and host.endswith(self.pattern[1:]) and len(host) > len(self.pattern) - 1
            )
        return host == self.pattern

    @property
    def private(self) -> bool:
        """True when every host that it covers is private by its name."""
        return self.pattern != "*" and is_private_name(self.pattern.replace("*.", "any.", 1))

    @property
    def public(self) -> bool:
        """True when it covers one literal public address, and so nothing private."""
        return literal_address(self.pattern) is not None and not self.private


def host_entry(text: object) -> HostEntry:
    """Read one entry of `hosts`. Raises ValueError with what to write instead."""
    if type(text) is not str or not text.isascii() or text != text.lower():
        raise ValueError(
            f"{short(text)} must be written in lower-case ASCII letters (a punycode name begins with xn--)"
        )
    if "://" in text or "/" in text:
        raise ValueError(f"{short(text)} must be a host alone, without scheme and path")
    host, port = split_port(text)
    if host == "*":
        return HostEntry("*", port)
    if host.startswith("*."):
        suffix = host_name(host[2:])
        if literal_address(suffix) is not None:
            raise ValueError(f"{short(text)}: there are no hosts below an address")
        return HostEntry(f"*.{suffix}", port)
    if "*" in host:
        raise ValueError(f"{short(text)}: '*' may only stand alone or as '*.' at the start")
    return HostEntry(host_name(host), port)
