"""Several hundred ways around a rule's arguments, from inside real workers, with real files and servers: all refused.

`pytest -s tests/host/test_argument_bypasses.py` shows the table.
"""

from __future__ import annotations

import collections
import os
import socket
import unicodedata

import pytest

from fxcell import FX, Effect, Policy, WorkerCrash, handles, run, zef_function
from fxcell.host import registry
from tests.host import bypasses
from tests.host.web import OK, answer, serve

__all__ = ["serve"]

SECRET = b"what no attempt may read"
PERFORMED = []
LINKS = {
    "link": "../secret",
    "dirlink": "..",
    "rootlink": "/",
    "selflink": "selflink",
    "proclink": "/proc/self",
    "null": "/dev/null",
}


class Convey(Effect):
    """An effect of one's own whose rule lists values."""

    text: str
    to: str = "en"
    level: int = 1
    exact: bool = True
    factor: float = 1.0


@handles(Convey)
def convey(effect):
    PERFORMED.append(effect)
    return "conveyed"


@zef_function
def attempt(rows):
    """The outcome of each effect: (name of the error or "done", what decided)."""
    said = []
    for _group, effect, fields in rows:
        try:
            said.append(("done", repr(FX[effect](**fields) | run)))
        except Exception as error:
            said.append((type(error).__name__, getattr(error, "rule", "") or str(error)))
    return said


@zef_function
def attempt_raw(effect, fields):
    value = {"ReadFile": FX.ReadFile(path="x"), "HTTPRequest": FX.HTTPRequest(url="x"), "Convey": FX.Convey(text="x")}[effect]
    value.__dict__.clear()
    value.__dict__.update(fields)
    return value | run


@pytest.fixture
def places(tmp_path, serve):
    """What is granted and what is not, on disk and on the network."""
    tmp_path = tmp_path.resolve()
    granted = tmp_path / unicodedata.normalize("NFC", "gränted")
    twin = tmp_path / unicodedata.normalize("NFD", "gränted")
    for folder in (granted, granted / "sub", twin, tmp_path / f"{granted.name}-not"):
        folder.mkdir()
    for file in (tmp_path / "secret", twin / "secret", tmp_path / f"{granted.name}-not" / "secret"):
        file.write_bytes(SECRET)
    (granted / "ok").write_bytes(b"granted")
    for name, target in LINKS.items():
        (granted / name).symlink_to(target)
    os.mkfifo(granted / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(granted, os.O_PATH)  # the path is longer than a socket's name may be
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    other = serve(answer("200 OK", body=SECRET))
    found = {"granted": str(granted), "decomposed": str(twin), "parent": str(tmp_path), "upper": str(granted).upper()}
    found["other"] = str(other.port)

    def say(connection, request):
        target = request["target"]
        if target.startswith("/to/"):
            where = bypasses.location(int(target[4:]), found).encode()
            connection.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + where + b"\r\n\r\n")
        else:
            connection.sendall(answer("302 Found", "Location: /loop") if target == "/loop" else OK)

    server = serve(say)
    found["port"] = str(server.port)
    found["wide_port"] = "".join(chr(ord(digit) + 0xFEE0) for digit in found["port"])
    found["over_port"] = str(server.port + 65536)
    return found, server, other


def policy(places):
    return Policy(
        name="narrow",
        effects={
            "ReadFile": {"under": [places["granted"]]},
            "HTTPRequest": {"hosts": [f"127.0.0.1:{places['port']}"], "methods": ["GET", "POST"], "private_hosts": True},
            "Convey": {"to": ["en", "de"], "level": [1], "exact": [True], "max_factor": 2.0},
        },
    )


def test_control_what_is_granted_is_performed(places):
    found, server, _other = places
    PERFORMED.clear()
    url = f"http://127.0.0.1:{server.port}/"
    rows = [
        ("path", "ReadFile", {"path": f"{found['granted']}/ok"}),
        ("host", "HTTPRequest", {"url": url, "method": "POST", "headers": {"X-Mine": "a"}}),
        ("value", "Convey", {"text": "x", "to": "de", "level": 1, "exact": True, "factor": 2.0}),
    ]
    worker = FX.StartWorkerProcess(policy=policy(found)) | run
    said = FX.SendCommandToWorkerProcess(process=worker, command=attempt(rows)) | run
    FX.StopWorkerProcess(process=worker) | run
    assert [outcome for outcome, _ in said] == ["done"] * 3, said
    assert (len(server.requests), len(PERFORMED)) == (1, 1)


def test_every_argument_bypass_is_refused(places):
    found, server, other = places
    PERFORMED.clear()
    rows = bypasses.rows(found)
    worker = FX.StartWorkerProcess(policy=policy(found)) | run
    said = FX.SendCommandToWorkerProcess(process=worker, command=attempt(rows)) | run
    outcomes = [(*row, *what) for row, what in zip(rows, said, strict=True)]
    broker = registry.session_of(worker).broker
    FX.StopWorkerProcess(process=worker) | run
    for group, effect, fields in (raw := bypasses.raw_rows(found)):
        worker = FX.StartWorkerProcess(policy=policy(found)) | run
        ended = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=attempt_raw(effect, fields)))
        FX.StopWorkerProcess(process=worker) | run
        kind = str(ended.reason.value) if isinstance(ended, WorkerCrash) else type(ended).__name__
        outcomes.append((group, effect, fields, "done" if isinstance(ended, dict | bytes | str) else kind, str(ended)))
    show(outcomes, found)
    assert len(outcomes) == len(rows) + len(raw) >= 200
    assert [row for row in outcomes if row[3] not in ("EffectDenied", "EffectFailed", "protocol_violation")] == []
    # Nothing was done beside the rule: not one byte of a file, not one request to another server, no handler called.
    assert SECRET not in repr(outcomes).encode()
    assert other.requests == []
    assert PERFORMED == []
    asked = [request["target"] for request in server.requests if not request["target"].startswith(("/to/", "/loop"))]
    assert asked == []
    for group in ("host", "method", "header", "value"):  # these need no look at the world: the rule alone refuses them
        assert {row[3] for row in outcomes if row[0] == group} == {"EffectDenied"}
    assert {row[3] for row in outcomes if row[0] == "type"} == {"protocol_violation"}
    assert broker.last_denial is not None


def show(outcomes, found):
    """Print the table: one line per attempt, then the counts."""
    print()
    for group, effect, fields, outcome, why in outcomes:
        asked = ", ".join(f"{name}={value!r:.60}" for name, value in fields.items())
        if group == "redirect":
            asked = f"to {bypasses.location(int(fields['url'].rpartition('/')[2]), found)!r}"
        print(f"{group:9} {effect:12} {ascii(asked)[1:-1]:80.80} {outcome:19} {ascii(why)[1:-1]:.90}")
    counts = collections.Counter((group, outcome) for group, _, _, outcome, _ in outcomes)
    print(f"{len(outcomes)} attempts")
    for (group, outcome), count in sorted(counts.items()):
        print(f"{group:9} {outcome:19} {count:4}")
