"""Which addresses the host's network effects may connect to: look a name up once, judge every address it has.

The tables are our own, not ipaddress.is_global: its answer for a special-purpose block depends on the Python version.
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable

from fxcell.host.effects.context import Pace
from fxcell.policies.errors import EffectFailed

Resolver = Callable[[str, int], list[str]]
"""(host, port) -> numeric addresses, best first. Raises OSError for a name that has none."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_ADDRESSES = 64
_MAX_LOOKUPS = 32  # threads; one that waits for a dead name server cannot be ended
_LOOK_S = 0.05  # how soon a death of the worker is noticed during a lookup

_MAX_LEFT = 4
"""Look-ups of one worker that go on although it no longer waits for them: more, and it could keep all to itself."""

_lookups = threading.BoundedSemaphore(_MAX_LOOKUPS)
_left: Counter[str] = Counter()
_counting = threading.Lock()

# IANA special-purpose registries for IPv4 and IPv6, as of 2025.
_REFUSED_V4 = {
    ipaddress.IPv4Network(block): what
    for block, what in {
        "0.0.0.0/8": "unspecified",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared by a carrier (CGNAT)",
        "127.0.0.0/8": "loopback",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved",
        "192.0.2.0/24": "documentation",
        "192.88.99.0/24": "a 6to4 relay",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "benchmarking",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
    }.items()
}
_REFUSED_V6 = {
    ipaddress.IPv6Network(block): what
    for block, what in {
        "2001::/23": "a protocol assignment (Teredo and others)",
        "2001:db8::/32": "documentation",
        "3fff::/20": "documentation",
    }.items()
}
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
# Blocks that carry an IPv4 address, and how many bits stand to the right of it. An operator's own NAT64 prefix lies in
# global space and cannot be told from a real address; on such a network the resolver's answers are what is judged.
_EMBEDDING = {
    ipaddress.IPv6Network("::ffff:0:0/96"): 0,
    ipaddress.IPv6Network("64:ff9b::/96"): 0,
    ipaddress.IPv6Network("2002::/16"): 80,
}


def why_refused(address: Address) -> str | None:
    """What makes an address not public, in words, or None for a public one."""
    if isinstance(address, ipaddress.IPv4Address):
        return next((what for block, what in _REFUSED_V4.items() if address in block), None)
    for block, shift in _EMBEDDING.items():
        if address in block:
            inner = ipaddress.IPv4Address((int(address) >> shift) & 0xFFFF_FFFF)
            reason = why_refused(inner)
            return reason and f"{reason} (IPv4 {inner} inside an IPv6 address)"
    if address not in _GLOBAL_V6:
        if address.is_loopback:
            return "loopback"
        return "link-local" if address.is_link_local else "private, multicast or reserved"
    return next((what for block, what in _REFUSED_V6.items() if address in block), None)


def public_addresses(host: str, port: int, resolve: Resolver, pace: Pace, *, allow_private: bool) -> list[str]:
    """Look a host up once and answer the addresses to connect to, all of them judged.

    host: a name of at most 253 characters, or a numeric address without brackets. Told whole: a secret that a server has
          copied into it is found by who takes it out, and would not be where it is cut.
    Raises: EffectFailed - name_not_found; refused_address, when any one of the addresses is not public: a name with
            mixed answers is an attempt to get past this check; timeout or cancelled; busy, when too many look-ups that
            the worker did not wait for are still going on.
    """
    try:
        addresses = [str(ipaddress.ip_address(host))]
    except ValueError:
        addresses = _look_up(host, port, resolve, pace)
    for text in addresses if not allow_private else ():
        reason = why_refused(ipaddress.ip_address(text))
        if reason:
            raise EffectFailed(
                pace.effect,
                "refused_address",
                f"{host!r} has the address {text}, which is {reason}; only a rule with private_hosts opens it",
            )
    return addresses


def _look_up(host: str, port: int, resolve: Resolver, pace: Pace) -> list[str]:
    if pace.worker and _left[pace.worker] >= _MAX_LEFT:
        text = f"{_MAX_LEFT} look-ups that this worker did not wait for are still going on"
        raise EffectFailed(pace.effect, "busy", text)
    while not _lookups.acquire(timeout=min(pace.remaining(), _LOOK_S)):
        pace.check()
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()
    ended = left = False

    def ask() -> None:
        nonlocal ended
        try:
            answers.put(resolve(host, port))
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits
            answers.put(error)
        finally:
            _lookups.release()
            with _counting:
                ended = True
                if left:
                    _left.subtract([pace.worker])
                    if not _left[pace.worker]:
                        del _left[pace.worker]

    # getaddrinfo(3) takes no timeout, hence a thread that can be left behind.
    try:
        threading.Thread(target=ask, name="fxcell-lookup", daemon=True).start()
    except RuntimeError:
        _lookups.release()
        raise
    answer: list[str] | Exception | None = None
    try:
        while answer is None:
            with contextlib.suppress(queue.Empty):
                answer = answers.get(timeout=min(pace.remaining(), _LOOK_S))
            pace.check()
    except BaseException:
        with _counting:
            if not ended:
                left = True
                _left[pace.worker] += 1
        raise
    if isinstance(answer, OSError | UnicodeError):
        raise EffectFailed(pace.effect, "name_not_found", f"the name {host!r} has no address") from answer
    if isinstance(answer, Exception):
        raise answer
    addresses = list(dict.fromkeys(answer))
    if not 0 < len(addresses) <= MAX_ADDRESSES:
        raise EffectFailed(pace.effect, "name_not_found", f"the name {host!r} has {len(addresses)} addresses")
    return addresses


def system_resolver(host: str, port: int) -> list[str]:
    """getaddrinfo(3): /etc/hosts and the machine's name servers."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
