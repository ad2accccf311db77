"""Hostile: opens a connection of its own."""

from __future__ import annotations

import socket


def main(host: str, port: int) -> str:
    """What a server says, if the sandbox leaks."""
    with socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.recv(100).decode()
