"""A host in a network of its own, whose only name server lies: which names lead where, and what HTTPRequest makes of it.

Run by:  tests/host/test_rebinding.py, as root, in new mount and network namespaces; argument: a resolv.conf to show as /etc's
Output:  one JSON object: name -> [kind of failure or "done", requests that reached the server, lookups of the name]
"""

import collections
import fcntl
import json
import socket
import struct
import subprocess
import sys
import threading
import time

from fxcell.host.broker import Broker
from fxcell.host.effects.context import Context
from fxcell.policies.builtin import HTTPRequest
from fxcell.policies.errors import EffectDenied, EffectFailed
from fxcell.policies.policy import Policy

PUBLIC, LOOPBACK = "93.184.216.34", "127.0.0.1"
ANSWERS = {  # name -> the A records of each lookup; the last is repeated
    "rebinds.example": [[PUBLIC], [LOOPBACK]],
    "mixed.example": [[PUBLIC, LOOPBACK]],
    "inner.example": [[LOOPBACK]],
    "metadata.example": [["169.254.169.254"]],
    "zero.example": [["0.0.0.0"]],
    "granted.example": [[LOOPBACK]],
}
asked = collections.Counter()
reached = collections.Counter()


def bring_loopback_up():
    """Source: netdevice(7), SIOCSIFFLAGS with IFF_UP | IFF_RUNNING."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 0x41))


def serve_names():
    """A name server for ANSWERS: RFC 1035, one question, A records with a time to live of 0."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((LOOPBACK, 53))

    def serve():
        while True:
            query, client = server.recvfrom(512)
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
                at += 1 + query[at]
            name, kind = ".".join(labels), int.from_bytes(query[at + 1 : at + 3], "big")
            records = []
            if kind == 1 and name in ANSWERS:
                records = ANSWERS[name][min(asked[name], len(ANSWERS[name]) - 1)]
                asked[name] += 1
            head = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(records), 0, 0)
            body = b"".join(struct.pack(">HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(record) for record in records)
            server.sendto(head + query[12 : at + 5] + body, client)

    threading.Thread(target=serve, daemon=True).start()


def serve_secrets():
    """A server on every loopback address that says yes to everybody, and counts by Host."""
    listener = socket.create_server(("", 0))

    def serve():
        while True:
            connection, _ = listener.accept()
            with connection:
                request = connection.recv(65536).decode("latin-1").lower()
                reached[request.partition("host: ")[2].partition(":")[0]] += 1
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def ask(name, port):
    private = {"private_hosts": True} if name == "granted.example" else {}
    policy = Policy(effects={"HTTPRequest": {"hosts": [f"{name}:{port}"], **private}})
    context = Context("w1", policy, time.monotonic() + 20.0, threading.Event().wait, print)
    broker = Broker(policy, "w1")
    outcomes = []
    for _ in range(2):  # a second request looks the name up again: it is judged again, too
        try:
            broker.perform(HTTPRequest(url=f"http://{name}:{port}/"), context)
            outcomes.append("done")
        except (EffectDenied, EffectFailed) as refusal:
            outcomes.append(getattr(refusal, "kind", "denied"))
    return outcomes


if __name__ == "__main__":
    subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
    bring_loopback_up()
    serve_names()
    port = serve_secrets()
    print(json.dumps({name: [ask(name, port), reached[name], asked[name]] for name in ANSWERS}))
