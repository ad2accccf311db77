"""Sockets of every family and type, and the ways around them: a worker has none."""

import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from fxcell import PluginError, load_policy, zef_function
from tests.escapes.conftest import compute

FAMILIES = (
    "AF_INET",
    "AF_INET6",
    "AF_UNIX",
    "AF_NETLINK",
    "AF_PACKET",
    "AF_VSOCK",
    "AF_CAN",
    "AF_BLUETOOTH",
    "AF_ALG",
    "AF_TIPC",
    "AF_QIPCRTR",
)
MPTCP, SCTP = 262, 132  # netinet/in.h
STRICT_WITH_SOCKET = load_policy("strict").replaced(name="strict with socket", preload=("socket",))


@zef_function
def try_socket(family, kind, protocol):
    import socket

    try:
        socket.socket(family, kind, protocol).close()
    except OSError as error:
        return error.errno
    return 0


@zef_function
def connect(host, port):
    import socket

    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(b"secret")
        return connection.recv(100)


@zef_function
def look_up(name):
    import socket

    return socket.getaddrinfo(name, 80)


@zef_function
def fetch(url):
    import urllib.request

    return urllib.request.urlopen(url, timeout=5).read()


@zef_function
def send_over_socketpair_to(address, kind):
    """The word threads opens socketpair(): its ends must reach nobody else."""
    import socket

    tried = {}

    def attempt(name, act):
        try:
            act()
            tried[name] = 0
        except OSError as error:
            tried[name] = error.errno

    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    except OSError as error:
        return {"socketpair": error.errno}
    attempt("sendmsg", lambda: ours.sendmsg([b"out"], [], 0, address))
    attempt("sendto", lambda: ours.sendto(b"out", address))
    attempt("connect", lambda: ours.connect(address))
    attempt("bind", lambda: theirs.bind(b"\0inside"))
    return tried


@zef_function
def send_to_address_over_the_channel(address):
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    name = struct.pack("=H", 1) + address
    data = ctypes.create_string_buffer(b"out")
    vector = struct.pack("=QQ", ctypes.addressof(data), 3)
    vector_buffer = ctypes.create_string_buffer(vector)
    name_buffer = ctypes.create_string_buffer(name)
    header = struct.pack(
        "=QIxxxxQQQQi", ctypes.addressof(name_buffer), len(name), ctypes.addressof(vector_buffer), 1, 0, 0, 0
    )
    return libc.sendmsg(3, header, 0), ctypes.get_errno()


@pytest.mark.parametrize("policy", ["strict", "compute"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET], ids=lambda k: k.name
)
def test_socket_is_refused(arena, policy, family, kind):
    number = getattr(socket, family, None)
    if number is None:
        pytest.skip(f"this Python has no {family}")
    preloaded = "compute" if policy == "compute" else STRICT_WITH_SOCKET
    assert arena.attack(try_socket(int(number), int(kind), 0), preloaded) == errno.EPERM


@pytest.mark.parametrize("protocol", [MPTCP, SCTP])
def test_protocols_that_rules_for_tcp_forget_are_refused(arena, protocol):
    assert arena.attack(try_socket(int(socket.AF_INET), int(socket.SOCK_STREAM), protocol)) == errno.EPERM


def test_where_nothing_stops_it_sockets_are_made(arena):
    assert arena.control(try_socket(int(socket.AF_INET), int(socket.SOCK_STREAM), 0)) == 0
    assert arena.control(try_socket(int(socket.AF_UNIX), int(socket.SOCK_DGRAM), 0)) == 0


def test_a_listener_of_the_host_is_reached_only_without_containment(arena):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(0.2)
        for host in ("127.0.0.1", "::ffff:127.0.0.1", "localhost"):
            assert isinstance(arena.attack(connect(host, port)), PluginError)
        with pytest.raises(TimeoutError):
            server.accept()
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(arena.control, connect("127.0.0.1", port))
            server.settimeout(10)
            connection, _ = server.accept()
            with connection:
                assert connection.recv(100) == b"secret"
                connection.sendall(b"seen")
            assert answer.result(10) == b"seen"


@pytest.mark.parametrize(
    "call",
    [look_up("example.com"), fetch("http://127.0.0.1:1/"), fetch("file:///etc/passwd")],
    ids=["dns", "http", "file"],
)
def test_names_and_urls_lead_nowhere(arena, call):
    assert isinstance(arena.attack(call), PluginError)


@pytest.mark.parametrize("abstract", [True, False], ids=["abstract", "named"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET], ids=lambda k: k.name)
def test_unix_socket_of_the_host_is_not_reached_by_the_ends_of_a_pair(arena, abstract, kind):
    # Named sockets are the harder case: Landlock covers them only since ABI 9, and a folder may be granted to be read.
    shown = arena.folder / "shown"
    shown.mkdir()
    shown.chmod(0o755)
    path = str(shown / "socket")
    address = b"\0fxcell-test-" + arena.secret[:8].encode() if abstract else path.encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        if not abstract:
            os.chmod(path, 0o777)
        server.setblocking(False)
        policy = compute(name="one folder", visible=(str(shown),))
        tried = arena.attack(send_over_socketpair_to(address, int(kind)), policy)
        assert 0 not in tried.values(), tried
        assert arena.attack(send_to_address_over_the_channel(address), policy)[0] != 3
        with pytest.raises(BlockingIOError):
            server.recv(100)
        assert arena.control(send_over_socketpair_to(address, int(socket.SOCK_DGRAM)))["sendto"] == 0
        assert server.recv(100) == b"out"
