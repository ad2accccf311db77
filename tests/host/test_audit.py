"""The audit log: what it records, what verify finds, and what happens when the disk takes no more."""

import dataclasses
import json
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from fxcell import *
from fxcell.host import audit, cgroups, registry
from fxcell.host.audit import chain, redaction
from fxcell.host.audit.file import AuditFile
from fxcell.host.audit.writer import Writer
from fxcell.host.broker import Broker
from fxcell.host.commands.audit import verify_files
from fxcell.host.effects.context import Context
from tests import leaks
from tests.host.web import OK, redirect
from tests.host.web import serve as serve  # noqa: PLC0414 - the fixture

PRINT_ONLY = Policy(name="print-only", effects={"Print": True})


@zef_function
def print_and_sleep(text):
    FX.Print(content=text) | run
    FX.Sleep(seconds=0.0) | run


@zef_function
def segfault():
    import ctypes

    ctypes.string_at(0)


def records(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def written(path, count, **options):
    options = {"rotate_bytes": 2**26, "keep": 100, "key": None} | options
    file = AuditFile(str(path), **options)
    for number in range(count):
        assert file.append([{"event": "test", "number": number}]) == (1, None)
    file.close()
    return file


def send(worker, command):
    return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command))


def test_every_decision_and_the_life_of_workers_is_recorded(tmp_path):
    path = tmp_path / "log"
    with audit.to_file(path):
        worker = FX.StartWorkerProcess(policy=PRINT_ONLY) | run
        send(worker, print_and_sleep("hello"))
        FX.StopWorkerProcess(process=worker) | run
        worker = FX.StartWorkerProcess() | run
        send(worker, segfault())
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    found = records(path)
    assert [(r["event"], r.get("decision"), r.get("effect")) for r in found] == [
        ("opened", None, None),
        ("worker_started", None, None),
        ("effect", "granted", "Print"),
        ("effect", "done", "Print"),
        ("effect", "denied", "Sleep"),
        ("worker_ended", None, None),
        ("worker_started", None, None),
        ("worker_crashed", None, None),
    ]
    assert [r["seq"] for r in found] == list(range(1, 9))
    granted, done, denied = found[2:5]
    assert granted["arguments"] == {"content": "hello"}
    assert granted["policy"] == "print-only"
    assert granted["rule"] == "effects.Print"
    assert granted["plugin"]
    assert granted["command"]
    assert (done["bytes_in"], done["number"], granted["number"]) == (5, 1, 1)
    assert "not in its list" in denied["rule"]
    assert found[7]["reason"] == "signal"
    assert audit.verify([str(path)]).whole


@zef_function
def ask_for_denied(times):
    for _ in range(times):
        run.outcome(FX.Sleep(seconds=0.0))
    FX.Print(content="once more") | run


def test_flood_of_denied_effects_writes_no_more_than_the_budget_and_their_number(tmp_path):
    policy = Policy(name="small", effects={"Print": True}, limits=Limits(effects=5))
    with audit.to_file(tmp_path / "log"):
        worker = FX.StartWorkerProcess(policy=policy) | run
        denied = send(worker, ask_for_denied(20))
        send(worker, print_and_sleep("the next command has its own budget"))
        FX.StopWorkerProcess(process=worker) | run
    assert isinstance(denied, EffectDenied)
    assert "limits.effects = 5" in denied.rule
    found = [r for r in records(tmp_path / "log") if r["event"] in ("effect", "refused_more")]
    told = [(r.get("decision"), r.get("count")) for r in found]
    assert told == [("denied", None)] * 6 + [(None, 15), ("granted", None), ("done", None), ("denied", None)]


def test_nothing_is_recorded_after_close(tmp_path):
    with audit.to_file(tmp_path / "log"):
        pass
    worker = FX.StartWorkerProcess(policy=PRINT_ONLY) | run
    send(worker, FX.Print(content="unheard"))
    FX.StopWorkerProcess(process=worker) | run
    assert len(records(tmp_path / "log")) == 1


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (lambda lines: lines[:3] + lines[4:], "record 5 stands where record 4"),
        (lambda lines: [*lines[:3], lines[3].replace(b'"number":2', b'"number":9'), *lines[4:]], "was changed"),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "record 5 stands where record 4"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "record 3 stands where record 4"),
        (lambda lines: lines[1:], "does not begin with"),
        (lambda lines: [*lines[:3], b"not a record\n", *lines[3:]], "does not vouch"),
        (lambda lines: [*lines[:-1], lines[-1][:20]], "torn after 20 bytes"),
        (lambda lines: [*lines[:3], lines[3][:-1] + b" \n", *lines[4:]], "does not vouch"),
        (lambda _lines: [], "empty"),
    ],
    ids=["removed", "changed", "moved", "doubled", "head-cut", "added", "torn", "padded", "emptied"],
)
def test_tampered_log_is_found_with_line_and_reason(tmp_path, attack, why):
    path = tmp_path / "log"
    written(path, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    assert audit.verify([str(path)]).whole  # the control
    path.write_bytes(b"".join(attack(lines)))
    report = audit.verify([str(path)])
    assert not report.whole
    assert why in report.why
    assert report.line >= 1


OPENED = b'{"seq":1,"event":"opened","keyed":false,"prev":"' + b"0" * 64 + b'"}'


@pytest.mark.parametrize(
    ("bodies", "line", "why"),
    [
        ([OPENED.replace(b"0" * 64, rb"\ud800")], 1, "'prev'"),
        ([OPENED.replace(b'"0', b'["0').replace(b'0"', b'0"]')], 1, "'prev'"),
        ([OPENED.replace(b":1", b":" + b"9" * 4000)], 1, "'seq'"),
        ([OPENED.replace(b":1", b":" + b"9" * 5000)], 1, "not a record"),
        ([OPENED.replace(b":1", b":0")], 1, "'seq'"),
        ([OPENED.replace(b":1", b":true")], 1, "'seq'"),
        ([OPENED, b'{"seq":2,"event":"lost"}'], 2, "'count'"),
        ([OPENED, b'{"seq":2,"event":"lost","count":"x"}'], 2, "'count'"),
        ([OPENED, b'{"seq":2,"event":"lost","count":-3}'], 2, "'count'"),
        ([OPENED, b'{"seq":2,"effect":"Print","effect":"WriteFile"}'], 2, "the key 'effect' twice"),
        ([OPENED, b'{"seq":2,"arguments":{"path":"/a","path":"/b"}}'], 2, "the key 'path' twice"),
        ([OPENED, b'{"seq":2,"hash":"x"}'], 2, "the key 'hash' twice"),
        ([OPENED, b'{"seq":2,"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"], 2, "not a record"),
        ([OPENED, '{"seq":2}'.encode("utf-16")], 2, "not a record"),
    ],
    ids=[
        "surrogate", "list", "4000 digits", "5000 digits", "zero", "true", "no count", "text", "negative", "key twice", "deeper",
        "hash", "nested", "utf-16",
    ],
)  # fmt: skip
def test_malformed_record_with_a_right_hash_is_broken_at_its_line(tmp_path, bodies, line, why):
    path, previous = tmp_path / "log", b"0" * 64
    with path.open("wb") as file:
        for body in bodies:
            sealed, previous = chain.seal(previous, body, None)
            file.write(sealed)
    report = audit.verify([str(path)])
    assert (report.whole, report.line) == (False, line)
    assert why in report.why


@pytest.mark.parametrize("expect", ["é", "", "0" * 63, "0" * 64 + "é"])
def test_expected_hash_that_is_none_exits_2_and_says_what_it_must_be(tmp_path, expect, capsys):
    path = tmp_path / "log"
    written(path, 2)
    assert verify_files([str(path)], expect=expect, key_file=None, as_json=False) == 2
    assert "64 hex digits" in capsys.readouterr().err


def test_end_cut_off_is_found_only_with_the_expected_hash(tmp_path):
    path = tmp_path / "log"
    head = written(path, 6).head.decode()
    assert audit.verify([str(path)], expect=head).whole
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert audit.verify([str(path)]).whole
    assert "lines after it were removed" in audit.verify([str(path)], expect=head).why


def test_chain_computed_anew_is_found_with_a_key_and_not_without(tmp_path):
    key = b"k" * 32
    path = tmp_path / "log"
    written(path, 3)
    assert audit.verify([str(path)]).whole  # as an attacker would leave it
    assert "not keyed" in audit.verify([str(path)], key=key).why
    keyed = tmp_path / "keyed"
    written(keyed, 3, key=key)
    assert audit.verify([str(keyed)], key=key).whole
    assert not audit.verify([str(keyed)], key=b"x" * 32).whole
    with pytest.raises(audit.AuditError, match="--key"):
        audit.verify([str(keyed)])


def test_rotation_carries_the_chain_and_a_missing_file_is_found(tmp_path):
    path = tmp_path / "log"
    written(path, 200, rotate_bytes=4096)
    files = sorted(str(file) for file in tmp_path.iterdir())
    assert len(files) > 4
    report = audit.verify(files)
    assert report.whole
    assert report.first_seq == 1
    assert report.records == 200 + len(files)
    missing = [file for file in files if not file.endswith(".2")]
    assert not audit.verify(missing).whole
    later = audit.verify([file for file in files if not file.endswith(".1")])
    assert later.whole
    assert later.first_seq > 1


def test_rotation_keeps_the_newest_files(tmp_path):
    written(tmp_path / "log", 200, rotate_bytes=4096, keep=2)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert len(names) == 3
    assert audit.verify([str(tmp_path / name) for name in names]).whole


def test_second_host_is_refused_and_links_and_devices_too(tmp_path):
    with audit.to_file(tmp_path / "log"), pytest.raises(audit.AuditError, match="another host"):
        audit.to_file(tmp_path / "log")
    (tmp_path / "link").symlink_to(tmp_path / "log")
    with pytest.raises(audit.AuditError, match="cannot be opened"):
        audit.to_file(tmp_path / "link")
    with pytest.raises(audit.AuditError, match="not a regular file"):
        audit.to_file("/dev/null")
    (tmp_path / "other").write_text("hello\n")
    with pytest.raises(audit.AuditError, match="does not end as an audit log"):
        audit.to_file(tmp_path / "other")


def test_torn_line_is_named_and_the_next_opening_vouches_for_it(tmp_path):
    path = tmp_path / "log"
    written(path, 3)
    with path.open("ab") as file:
        file.write(b'{"seq":5,"time":"20')
    assert "torn after 19 bytes" in audit.verify([str(path)]).why
    written(path, 1)
    report = audit.verify([str(path)])
    assert report.whole
    assert report.records == 6


HOST = """
import os, sys
from fxcell import *
from fxcell.host import audit
log = audit.to_file(sys.argv[1])
worker = FX.StartWorkerProcess() | run
FX.SendCommandToWorkerProcess(process=worker, command=FX.Print(content="first")) | run
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
if sys.argv[2] == "fork":
    pid = os.fork()
    if pid == 0:
        log.close()
        os._exit(0)
    os.waitpid(pid, 0)
"""


def host(path, what):
    return subprocess.run([sys.executable, "-c", HOST, str(path), what], capture_output=True, text=True, timeout=60)


def test_killed_host_leaves_a_record_of_what_was_performed_and_the_next_continues(tmp_path):
    path = tmp_path / "log"
    before = leaks.snapshot()
    assert host(path, "kill").returncode == -signal.SIGKILL
    assert leaks.wait_until_gone(dataclasses.replace(before, cgroups=leaks.snapshot().cgroups), 10) == []
    cgroups.sweep(cgroups.places(), older_than_s=0)  # what the next host does when it starts
    assert any(r.get("decision") == "granted" for r in records(path))
    written(path, 1)
    assert audit.verify([str(path)]).whole


@pytest.mark.parametrize("what", ["exit", "fork"])
def test_exit_without_close_writes_everything_also_after_a_fork(tmp_path, what):
    path = tmp_path / "log"
    done = host(path, what)
    assert (done.returncode, done.stderr) == (0, "")
    assert [r["event"] for r in records(path)] == ["opened", "worker_started", "effect", "effect", "worker_ended"]


@pytest.fixture
def file_limit():
    """Lets no file of this process grow beyond a size: the disk that an ordinary user can fill."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_denies_effects_and_they_are_granted_again_when_there_is_room(tmp_path, file_limit):
    path, worker = tmp_path / "log", FX.StartWorkerProcess(policy=PRINT_ONLY) | run
    log = audit.to_file(path)
    send(worker, FX.Print(content="before"))
    file_limit(path.stat().st_size + 100)
    denied = send(worker, FX.Print(content="meanwhile"))
    assert isinstance(denied, EffectDenied)
    assert "File too large" in denied.rule
    assert registry.session_of(worker).broker.performed == 0  # what the evidence of a crash would say
    assert audit.verify([str(path)]).whole  # no half line
    file_limit(resource.RLIM_INFINITY)
    assert send(worker, FX.Print(content="after")) is None
    log.close()
    FX.StopWorkerProcess(process=worker) | run
    found = [(r["decision"], r["number"]) for r in records(path) if r["event"] == "effect"]
    assert found == [("granted", 1), ("done", 1), ("denied", 2), ("granted", 3), ("done", 3)]
    assert audit.verify([str(path)]).whole


def test_full_disk_with_drop_performs_and_counts_what_is_missing(tmp_path, file_limit):
    path, worker = tmp_path / "log", FX.StartWorkerProcess(policy=PRINT_ONLY) | run
    log = audit.to_file(path, when_full="drop")
    file_limit(path.stat().st_size)
    for _ in range(3):
        assert send(worker, FX.Print(content="unrecorded")) is None
    with pytest.raises(audit.AuditError, match=r"6 records of .* are lost: File too large"):
        log.close()
    file_limit(resource.RLIM_INFINITY)
    FX.StopWorkerProcess(process=worker) | run
    assert audit.verify([str(path)]).whole


def test_lost_line_says_how_many_are_missing(tmp_path, file_limit):
    path = tmp_path / "log"
    writer = Writer(AuditFile(str(path), 2**26, 1, None), drop=True)
    file_limit(path.stat().st_size)
    writer.put({"event": "gone"})
    while not writer._lost:
        threading.Event().wait(0.001)
    file_limit(resource.RLIM_INFINITY)
    writer.put({"event": "kept"})
    writer.close()
    assert [(r["event"], r.get("count")) for r in records(path)][1:] == [("lost", 1), ("kept", None)]
    assert audit.verify([str(path)]).lost == 1


FULL = """
import os, sys
from fxcell import *
from fxcell.host import audit
path = sys.argv[1] + "/log"
worker = FX.StartWorkerProcess() | run
log = audit.to_file(path)
with open(sys.argv[1] + "/filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
outcomes = [run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=FX.Print(content="x" * 150))) for _ in range(40)]
denied = [o for o in outcomes if isinstance(o, EffectDenied)]
assert denied and "No space left" in denied[-1].rule, outcomes
assert audit.verify([path]).whole
os.unlink(sys.argv[1] + "/filler")
assert run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=FX.Print(content="again"))) is None
log.close()
assert audit.verify([path]).whole
"""


@pytest.mark.needs_root
def test_full_file_system_denies_effects_until_there_is_room(tmp_path):
    script = f'mount -t tmpfs -o size=64k fxcell-full {tmp_path} && exec "{sys.executable}" -c "$0" {tmp_path}'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, FULL], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-800:]


def test_secrets_are_in_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr(redaction, "_hidden", frozenset())
    monkeypatch.setattr(redaction, "_pattern", None)
    audit.hide("s3cr3t/value")
    shown = redaction.summary(
        {
            "url": "https://user:pw@host/s3cr3t%2Fvalue?api_token=abc&page=2",
            "headers": {"Authorization": "Bearer abc", "X-Api-Key": "abc", "Cookie": "abc", "Accept": "text/html"},
            "body": b"s3cr3t/value",
            "host": "http://S3CR3T%2fVALUE.example S3cr3t/Value",
            "content": "x" * 195 + "s3cr3t/value",
        }
    )
    text = json.dumps(shown)
    assert "s3cr" not in text.lower()
    assert "abc" not in text
    assert "pw" not in text
    assert shown["headers"]["Accept"] == "text/html"
    assert "page=2" in shown["url"]


def test_request_that_was_redirected_is_recorded_with_where_it_led_and_without_the_query(tmp_path, serve):
    def lead(connection, request):
        connection.sendall(redirect(f"http://localhost:{server.port}/b?token=hush-hush") if request["target"] == "/a" else OK)

    server = serve(lead)
    hosts = [f"127.0.0.1:{server.port}", f"localhost:{server.port}"]
    granted = Policy(effects={"HTTPRequest": {"hosts": hosts, "private_hosts": True}})
    with audit.to_file(tmp_path / "log"):
        for path in ("/a", "/c"):
            context = Context("w9", granted, time.monotonic() + 30.0, lambda _seconds: False, print)
            Broker(granted, "w9").perform(FX.HTTPRequest(url=f"http://127.0.0.1:{server.port}{path}"), context)
    done = [record for record in records(tmp_path / "log") if record.get("decision") == "done"]
    assert [record.get("answered_by") for record in done] == [f"http://localhost:{server.port}/b", None]
    assert "hush-hush" not in (tmp_path / "log").read_text()


def test_many_threads_write_one_whole_chain(tmp_path):
    path = tmp_path / "log"
    writer = Writer(AuditFile(str(path), 2**26, 1, None), drop=False, queue_records=16)
    threads = [
        threading.Thread(target=lambda: [writer.put({"event": "t"}, ask=i % 2 == 0) for i in range(500)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert audit.verify([str(path)]).records == 2001


def cli(*arguments):
    return subprocess.run([sys.executable, "-m", "fxcell", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_command_line_writes_verifies_and_finds_what_is_broken(tmp_path):
    plugin, log = tmp_path / "plugin.py", tmp_path / "log"
    plugin.write_text("from fxcell import *\ndef main():\n    FX.Print(content='hello') | run\n    return 1\n")
    assert cli("run", plugin, "--audit", log).returncode == 0
    head = cli("audit", "head", log).stdout.strip()
    whole = cli("audit", "verify", log, "--expect", head, "--json")
    assert (whole.returncode, json.loads(whole.stdout)["records"]) == (0, 5)
    log.write_bytes(log.read_bytes().replace(b"hello", b"jello"))
    broken = cli("audit", "verify", log)
    assert broken.returncode == 1
    assert "line 3: its hash" in broken.stdout
    assert cli("audit", "verify", tmp_path / "none").returncode == 2
