"""Tries to reach anybody: by name, IPv4, IPv6, datagrams, raw packets, and sockets of this machine."""

from __future__ import annotations

import os
import socket
from typing import Any


def connect(do: Any, hosts: list[str], port: int, token: str) -> None:
    """Connect to a listener of the host and say something."""

    def act(host: str) -> str:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(token.encode())
        return "connected"

    for host in hosts:
        do(f"TCP {host}", lambda host=host: act(host))


def send(do: Any, port: int, token: str) -> None:
    """Send a datagram: what is left of DNS once names cannot be looked up."""

    def act(family: int, host: str) -> int:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            return sender.sendto(token.encode(), (host, port))

    do("UDP v4", lambda: act(socket.AF_INET, "127.0.0.1"))


def look_up(do: Any, name: str) -> None:
    """Have a name looked up: its labels are the secret. Only an answer counts as done."""
    do(f"look up {name}", lambda: socket.getaddrinfo(name, 80)[0][4][0])


def make_socket(do: Any, family: int, kind: int, protocol: int) -> None:
    """Make a socket of one family."""
    do("socket", lambda: socket.socket(family, kind, protocol).close())


def listen(do: Any) -> None:
    """Wait for others to come."""

    def act() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    do("listen", act)


def unix(do: Any, address: str, kind: int, token: str) -> None:
    """Reach a socket of this machine that has a name; "@" stands for the abstract ones."""
    to = "\0" + address[1:] if address.startswith("@") else address

    def own_socket() -> None:
        with socket.socket(socket.AF_UNIX, kind) as sender:
            sender.connect(to)
            sender.sendall(token.encode())

    def end_of_a_pair() -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with ours, theirs:
            return ours.sendto(token.encode(), to)

    do("connect", own_socket)
    if kind == socket.SOCK_DGRAM:
        do("sendto from a pair", end_of_a_pair)


def over_the_channel(do: Any, address: str, token: str) -> None:
    """Send to a named socket with the one descriptor that is a socket already."""
    to = "\0" + address[1:] if address.startswith("@") else address
    duplicate = os.dup(3)

    def act() -> int:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, duplicate)
        return sender.sendmsg([token.encode()], [], 0, to)

    do("sendmsg", act)
