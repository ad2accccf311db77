"""HTTPRequest against servers that are slow, endless or broken: it ends in time, in size, and with a typed failure."""

import gzip
import socket
import threading
import time
import zlib

import pytest

from fxcell.host.effects import http_headers
from tests.host.web import MAX_BODY, answer, ask, kind_of, local_kind_of, policy, redirect, serve, wait_for_end

__all__ = ["serve"]


def drip(head):
    """Sends the head, then one byte at a time until the other side is gone."""

    def say(connection, _request):
        connection.sendall(head)
        gone = threading.Event()
        while not gone.wait(0.01):
            connection.sendall(b"x")

    return say


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Slow: "],
    ids=["body", "header"],
)
@pytest.mark.parametrize("by", ["timeout_s", "deadline"])
def test_answer_that_drips_ends_at_the_earlier_of_timeout_and_deadline(head, by, serve):
    server = serve(drip(head))
    limits = {"timeout_s": 0.2} if by == "timeout_s" else {"seconds": 0.2}
    started = time.monotonic()
    assert kind_of(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/", **limits) == "timeout"
    assert 0.2 <= time.monotonic() - started < 10


def test_silent_server_is_a_timeout(serve):
    server = serve(wait_for_end)
    assert kind_of(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/", timeout_s=0.1) == "timeout"


@pytest.mark.slow
def test_server_that_never_reads_is_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        granted = policy(f"127.0.0.1:{port}", methods=["POST"], max_body_bytes=2**26)
        body = b"x" * 2**25
        assert kind_of(granted, f"http://127.0.0.1:{port}/", method="POST", body=body, timeout_s=0.3) == "timeout"


def test_worker_that_dies_ends_the_request(serve):
    arrived = threading.Event()

    def say(connection, _request):
        arrived.set()
        wait_for_end(connection)

    server = serve(say)
    url = f"http://127.0.0.1:{server.port}/"
    assert kind_of(policy(f"127.0.0.1:{server.port}"), url, cancelled=lambda _seconds: arrived.is_set()) == "cancelled"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_local_timeout_that_is_none_is_bad_request(timeout_s):
    assert local_kind_of("http://127.0.0.1:1/", timeout_s=timeout_s) == "bad_request"


def test_body_at_the_cap_is_whole(serve):
    server = serve(answer("200 OK", body=b"x" * MAX_BODY))
    assert len(ask(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/")["body"]) == MAX_BODY


def endless(head, piece):
    def say(connection, _request):
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return say


@pytest.mark.parametrize(
    "say",
    [
        answer("200 OK", body=b"x" * (MAX_BODY + 1)),
        endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096),
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nabcde\r\n"),
        answer("200 OK", "Content-Encoding: gzip", body=gzip.compress(bytes(50_000_000))),
        answer("200 OK", "Content-Encoding: deflate", body=zlib.compress(bytes(50_000_000))),
        answer("200 OK", "Content-Encoding: gzip, gzip", body=gzip.compress(gzip.compress(bytes(50_000_000)))),
        answer("200 OK", "Content-Encoding: br", body=b"x" * (MAX_BODY + 1)),
        endless(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(b"") * 1000),
    ],
    ids=["length", "endless", "chunked", "gzip-bomb", "deflate-bomb", "gzip-twice", "unknown-coding", "empty-members"],
)
def test_body_over_the_cap_is_too_large(say, serve):
    server = serve(say)
    assert kind_of(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/") == "too_large"


@pytest.mark.parametrize(
    "say",
    [
        answer("200 OK", *(f"X-{n}: 1" for n in range(http_headers.MAX_COUNT))),
        answer("200 OK", "X-Long: " + "x" * http_headers.MAX_BYTES),
        endless(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 4096),
        endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        redirect("/" + "x" * 9000),
    ],
    ids=["count", "long", "endless-value", "endless-fields", "interim-answers", "location"],
)
def test_header_over_its_cap_is_too_large(say, serve):
    server = serve(say)
    assert kind_of(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/") == "too_large"


PLAIN = bytes(range(256)) * 100


def bare_deflate(data):
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(PLAIN)),
        ("x-gzip", gzip.compress(PLAIN[:100]) + gzip.compress(PLAIN[100:])),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", bare_deflate(PLAIN)),
        ("deflate, gzip", gzip.compress(zlib.compress(PLAIN))),
        ("identity", PLAIN),
        ("br", PLAIN),
    ],
    ids=["gzip", "two-members", "zlib", "bare-deflate", "both", "identity", "unknown"],
)
def test_compressed_body_is_answered_plain(coding, body, serve):
    server = serve(answer("200 OK", f"Content-Encoding: {coding}", body=body))
    assert ask(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/")["body"] == PLAIN


@pytest.mark.parametrize("body", [b"no gzip at all", gzip.compress(PLAIN)[:-5]], ids=["other", "cut"])
def test_damaged_compressed_body_is_connection(body, serve):
    server = serve(answer("200 OK", "Content-Encoding: gzip", body=body))
    assert kind_of(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/") == "connection"


def in_chunks(body, size):
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


@pytest.mark.parametrize(("length", "size"), [(5_000, 1), (40_000, 5), (1_000_000, 50)])
def test_body_in_small_chunks_is_whole(length, size, serve):
    server = serve(in_chunks(b"x" * length, size))
    granted = policy(f"127.0.0.1:{server.port}", max_body_bytes=2**20)
    assert ask(granted, f"http://127.0.0.1:{server.port}/")["body"] == b"x" * length


@pytest.mark.slow
def test_large_body_in_chunks_of_one_byte_is_too_large_before_its_end(serve):
    server = serve(in_chunks(b"x" * 500_000, 1))
    granted = policy(f"127.0.0.1:{server.port}", max_body_bytes=2**24)
    assert kind_of(granted, f"http://127.0.0.1:{server.port}/") == "too_large"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=["nothing", "ssh", "short", "two-lengths", "no-colon", "upgrade"],
)
def test_answer_that_is_not_http_is_connection(said, serve):
    server = serve(said)
    assert kind_of(policy(f"127.0.0.1:{server.port}"), f"http://127.0.0.1:{server.port}/") == "connection"


def test_port_nobody_listens_on_is_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert kind_of(policy(f"127.0.0.1:{port}"), f"http://127.0.0.1:{port}/") == "connection"
