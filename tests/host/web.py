"""Servers on 127.0.0.1 that say what a test wants, and a request as a worker makes it.

Names under .example are given the server's address by an injected resolver; nothing leaves the machine.
"""

import contextlib
import socket
import threading
import time

import pytest

from fxcell.host import effects
from fxcell.host.broker import Broker, Context, perform_locally
from fxcell.host.effects.http import HTTPClient
from fxcell.policies.builtin import HTTPRequest
from fxcell.policies.errors import EffectFailed
from fxcell.policies.policy import Policy

MAX_BODY = 100_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Accepts connections one after the other; `answer(connection, request)` writes to the socket and returns."""

    def __init__(self, answer, tls=None):
        self.answer = answer
        self.tls = tls
        self.requests = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            connection, _ = self.listener.accept()
            with connection:
                if self.closing.is_set():
                    return
                with contextlib.suppress(OSError):
                    self.talk(connection)

    def talk(self, connection):
        if self.tls:
            connection = self.tls.wrap_socket(connection, server_side=True)
        with connection:
            request = self.read(connection)
            if request is not None:
                self.requests.append(request)
                self.answer(connection, request)

    def read(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += connection.recv(65536)
        method, target, _ = first.split(" ")
        return {"method": method, "target": target, "headers": headers, "body": body}

    def close(self):
        self.closing.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.thread.join()
        self.listener.close()


@pytest.fixture
def serve():
    """Starts servers and ends them after the test."""
    with contextlib.ExitStack() as stack:

        def start(answer=OK, tls=None):
            say = answer if callable(answer) else lambda connection, _request: connection.sendall(answer)
            server = Server(say, tls)
            stack.callback(server.close)
            return server

        yield start


class Resolver:
    """Gives every name these addresses, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers) or [["127.0.0.1"]]
        self.asked = []

    def __call__(self, host, port):
        self.asked.append((host, port))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def policy(*hosts, private=True, **rule):
    return Policy(
        name="web",
        effects={"HTTPRequest": {"hosts": list(hosts), "private_hosts": private, "max_body_bytes": MAX_BODY, **rule}},
    )


def ask(granted, url, *, client=None, seconds=30.0, cancelled=None, **fields):
    """Through the broker, as a worker does."""
    asked = Context("w3", granted, time.monotonic() + seconds, cancelled or threading.Event().wait, print)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(effects.HANDLERS, "HTTPRequest", (client or HTTPClient(resolve=Resolver())).perform)
        return Broker(granted, "w3").perform(HTTPRequest(url=url, **fields), asked)


def kind_of(*args, **kwargs):
    with pytest.raises(EffectFailed) as failed:
        ask(*args, **kwargs)
    return failed.value.kind


def answer(status, *headers, body=b""):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def redirect(location, status="302 Found"):
    return answer(status, f"Location: {location}")


def wait_for_end(connection, _request=None):
    connection.recv(1)


def ask_locally(url, **fields):
    """As the host does for itself: no rules."""
    asked = Context("host", None, time.monotonic() + 30, threading.Event().wait, print)
    return perform_locally(HTTPRequest(url=url, **fields), asked)


def local_kind_of(url, **fields):
    with pytest.raises(EffectFailed) as failed:
        ask_locally(url, **fields)
    return failed.value.kind
