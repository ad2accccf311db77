"""Lines 62, 63, 65, 66: IPv6, datagrams, many messages in one call, listeners, shells' own sockets, proxy variables."""

import contextlib
import errno
import os
import socket

import pytest

from fxcell import PluginError, WorkerCrash, zef_function
from tests.escapes.calls import make_call

SOCKET, CONNECT, SENDTO, SENDMMSG, BIND, LISTEN, ACCEPT = 41, 42, 44, 307, 49, 50, 43


@zef_function
def connect(family, host, port, data):
    import socket

    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(3)
        connection.connect((host, port))
        connection.sendall(data)
    return "sent"


@zef_function
def send_datagram(family, host, port, data):
    import socket

    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        return sender.sendto(data, (host, port))


@zef_function
def ask_dns(server, port, name):
    """A question as a resolver would send it, the secret in its labels."""
    import socket
    import struct

    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    question = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 16, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        return sender.sendto(question, (server, port))


@zef_function
def wait_for_others(host):
    import socket

    with socket.create_server((host, 0)) as server:
        return server.getsockname()[1]


@zef_function
def shell(command):
    import subprocess

    return subprocess.run(["/bin/bash", "-c", command], capture_output=True, check=False).stdout


@zef_function
def fetch_without_proxy(url):
    import os
    import urllib.request

    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(url, timeout=3).read()


@zef_function
def send_many(path):
    """sendmmsg(2) over an end of a pair, each message with an address."""
    import ctypes
    import errno
    import socket
    import struct

    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        return -1, error.errno
    name = ctypes.create_string_buffer(struct.pack("=H", 1) + path)
    data = ctypes.create_string_buffer(b"out")
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(data), 3))
    header = struct.pack(
        "=QIxxxxQQQQixxxxIxxxx", ctypes.addressof(name), 2 + len(path), ctypes.addressof(vector), 1, 0, 0, 0, 0
    )
    messages = ctypes.create_string_buffer(header * 4)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.sendmmsg(ours.fileno(), messages, 4, 0)
    theirs.close()
    return result, ctypes.get_errno() or errno.EPERM


@contextlib.contextmanager
def listener(family, kind, host):
    with socket.socket(family, kind) as server:
        server.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            server.listen()
        server.setblocking(False)
        yield server, server.getsockname()[1]


HOSTS = [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    (socket.AF_INET6, "::1", "::1"),
    (socket.AF_INET6, "::ffff:127.0.0.1", "::ffff:127.0.0.1"),
]


def require_ipv6(family):
    if family == socket.AF_INET6:
        try:
            with socket.create_server(("::1", 0), family=family):
                pass
        except OSError as error:
            pytest.skip(f"this machine has no IPv6: {error}")


@pytest.mark.parametrize(("family", "bound", "asked"), HOSTS, ids=["v4", "v6", "v4 mapped"])
def test_tcp_reaches_nobody(arena, family, bound, asked):
    require_ipv6(family)
    with listener(family, socket.SOCK_STREAM, bound) as (server, port):
        assert isinstance(arena.attack(connect(int(family), asked, port, b"x")), PluginError)
        with pytest.raises(BlockingIOError):
            server.accept()
        assert arena.control(connect(int(family), asked, port, b"x")) == "sent"
        server.accept()[0].close()


@pytest.mark.parametrize(("family", "bound", "asked"), HOSTS, ids=["v4", "v6", "v4 mapped"])
def test_udp_reaches_nobody(arena, family, bound, asked):
    require_ipv6(family)
    with listener(family, socket.SOCK_DGRAM, bound) as (server, port):
        assert isinstance(arena.attack(send_datagram(int(family), asked, port, b"x")), PluginError)
        with pytest.raises(BlockingIOError):
            server.recv(10)
        assert arena.control(send_datagram(int(family), asked, port, b"x")) == 1
        assert server.recv(10) == b"x"


def test_question_to_a_name_server_reaches_nobody(arena):
    with listener(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1") as (server, port):
        name = f"{'a' * 60}.example.com"
        assert isinstance(arena.attack(ask_dns("127.0.0.1", port, name)), PluginError)
        with pytest.raises(BlockingIOError):
            server.recv(500)
        assert arena.control(ask_dns("127.0.0.1", port, name)) > 60
        assert b"a" * 60 in server.recv(500)


def test_listening_is_refused(arena):
    assert isinstance(arena.attack(wait_for_others("127.0.0.1")), PluginError)
    assert arena.control(wait_for_others("127.0.0.1")) > 0


@pytest.mark.parametrize("number", [SOCKET, CONNECT, SENDMMSG, BIND, LISTEN, ACCEPT])
def test_calls_on_sockets_are_refused_by_number(arena, number):
    assert arena.attack(make_call(number, 3, 0, 0, 0, 0)) == (-1, errno.EPERM)


def test_send_with_an_address_of_any_length_is_refused(arena):
    for length in (0, 16, 128, 2**31 - 1):
        result, error = arena.attack(make_call(SENDTO, 3, 0, 0, 0, 1, length))
        assert (result, error) == (-1, errno.EPERM)


@pytest.mark.parametrize(
    "command", ["echo x > /dev/tcp/127.0.0.1/{}", "curl --noproxy '*' http://127.0.0.1:{}/", "nc 127.0.0.1 {}"]
)
def test_programs_that_connect_are_not_started(arena, command):
    with listener(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1") as (server, port):
        assert isinstance(arena.attack(shell(command.format(port))), PluginError | WorkerCrash)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_where_nothing_stops_it_a_shell_connects(arena):
    if not os.path.exists("/bin/bash"):
        pytest.skip("needs /bin/bash for the control")
    with listener(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1") as (server, port):
        arena.control(shell(f"echo x > /dev/tcp/127.0.0.1/{port}"))
        server.accept()[0].close()


def test_request_without_proxy_variables_reaches_nobody(arena, monkeypatch):
    with listener(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1") as (server, port):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        assert isinstance(arena.attack(fetch_without_proxy(f"http://127.0.0.1:{port}/")), PluginError)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_many_messages_with_addresses_in_one_call_reach_nobody(arena):
    path = str(arena.folder / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        os.chmod(path, 0o777)
        server.setblocking(False)
        assert arena.attack(send_many(path.encode()))[0] == -1
        with pytest.raises(BlockingIOError):
            server.recv(10)
