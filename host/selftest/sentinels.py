"""What an attack is about: a file, a process, sockets and a variable of the host's user, made for it and watched.

Nothing but the sandbox protects them: they are as open as their kind can be.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import secrets
import select
import shutil
import socket
import subprocess
import sys
from typing import Any

VARIABLE = "FXCELL_SELFTEST_SECRET"
_MARK = "fxcell-selftest-"
_PROGRAM = """
import ctypes, os, sys
secret = ctypes.create_string_buffer(os.environ["FXCELL_SELFTEST_SECRET"].encode())
print(ctypes.addressof(secret), flush=True)
sys.stdin.read()
"""


class Sentinels:
    """One attack's sentinels; each is made when it is first asked for.

    secret: a text that is nowhere but in these sentinels.
    """

    def __init__(self, parent: str) -> None:
        self.secret = _MARK + secrets.token_hex(12)
        self.name = "fxcell-selftest-" + secrets.token_hex(6)  # of what attacks may make
        self.folder = os.path.join(parent, secrets.token_hex(6))
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o777)  # noqa: S103 - nothing but the sandbox protects it
        self.open_folder = os.path.join(self.folder, "open")
        os.mkdir(self.open_folder)
        os.chmod(self.open_folder, 0o777)  # noqa: S103 - nothing but the sandbox protects it
        self.file = os.path.join(self.folder, self.name)
        with open(self.file, "w", encoding="ascii") as file:
            file.write(self.secret)
        os.chmod(self.file, 0o666)  # noqa: S103 - nothing but the sandbox protects it
        os.symlink(self.file, self.link)
        self._before = self._look()
        self._listeners: list[socket.socket] = []
        self._process: subprocess.Popen[str] | None = None

    @property
    def link(self) -> str:
        """A symbolic link to the file, in a folder where everybody may write."""
        return os.path.join(self.open_folder, "link")

    @functools.cached_property
    def tcp_port(self) -> int:
        """A listener on 127.0.0.1."""
        return int(self._watch(socket.create_server(("127.0.0.1", 0))).getsockname()[1])

    @functools.cached_property
    def tcp6_port(self) -> int:
        """A listener on ::1; 0 where there is no IPv6."""
        try:
            server = socket.create_server(("::1", 0), family=socket.AF_INET6)
        except OSError:
            return 0
        return int(self._watch(server).getsockname()[1])

    @functools.cached_property
    def udp_port(self) -> int:
        """A datagram socket on 127.0.0.1."""
        return int(self._bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)).getsockname()[1])

    @functools.cached_property
    def unix_path(self) -> str:
        """A named stream socket that everybody may connect to."""
        path = os.path.join(self.open_folder, "socket")
        server = self._bound(socket.AF_UNIX, socket.SOCK_STREAM, path)
        server.listen()
        os.chmod(path, 0o777)  # noqa: S103 - nothing but the sandbox protects it
        return path

    @functools.cached_property
    def abstract_stream(self) -> str:
        """An abstract stream socket, "@" for its first byte."""
        self._bound(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{self.name}-stream").listen()
        return f"@{self.name}-stream"

    @functools.cached_property
    def abstract_datagram(self) -> str:
        """An abstract datagram socket, "@" for its first byte."""
        self._bound(socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{self.name}-datagram")
        return f"@{self.name}-datagram"

    @functools.cached_property
    def process(self) -> tuple[int, int]:
        """A process of this user that holds the secret: its id, and the address of the secret in its memory."""
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            env={VARIABLE: self.secret}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._process = process
        assert process.stdout is not None
        address = int(process.stdout.readline())
        self._share = (resource.prlimit(process.pid, resource.RLIMIT_NOFILE), _priority(process.pid))
        return process.pid, address

    def seen(self, outcome: Any) -> bool:
        """True when the secret, or this host's variable, is anywhere in an outcome."""
        told = repr(outcome)
        if isinstance(outcome, BaseException):
            told += repr(getattr(outcome, "to_dict", dict)())
        return self.secret in told or os.environ.get(VARIABLE, self.secret) in told

    def touched(self) -> list[str]:
        """One line for each sentinel that is not as it was."""
        found = [f"the {what} changed" for what, before in self._before.items() if self._look()[what] != before]
        readable, _, _ = select.select(self._listeners, [], [], 0)
        found += [f"{_named(listener)} was reached" for listener in readable]
        if self._process is not None:
            if self._process.poll() is not None:
                found.append("the process was ended")
            elif (
                resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE),
                _priority(self._process.pid),
            ) != self._share:
                found.append("the limits of the process were changed")
        return found

    def close(self) -> None:
        """Take everything away."""
        for listener in self._listeners:
            listener.close()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _look(self) -> dict[str, Any]:
        with contextlib.suppress(OSError):
            status = os.stat(self.file)
            with open(self.file, encoding="utf-8", errors="replace") as file:
                content = file.read()
            names = sorted(name for name in os.listdir(self.open_folder) if name != "socket")
            state = (
                content,
                status.st_ino,
                status.st_mode,
                status.st_mtime_ns,
                status.st_nlink,
                os.listxattr(self.file),
            )
            return {"file": state, "folder": (sorted(os.listdir(self.folder)), names)}
        return {"file": None, "folder": None}

    def _watch(self, listener: socket.socket) -> socket.socket:
        listener.setblocking(False)
        self._listeners.append(listener)
        return listener

    def _bound(self, family: int, kind: int, address: Any) -> socket.socket:
        made = self._watch(socket.socket(family, kind))
        made.bind(address)
        return made


def _priority(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def _named(listener: socket.socket) -> str:
    return f"the {listener.family.name} {listener.type.name} listener"
