"""The audit log: what it records of workers, effects and redirects, what it keeps out, and that nothing recorded is lost."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from fxcell import FX, EffectDenied, Limits, Policy, load_policy, run, zef_function
from fxcell.host import audit, cgroups
from fxcell.host.audit import redaction
from fxcell.host.audit.file import AuditFile
from fxcell.host.audit.writer import Writer
from fxcell.host.broker import Broker
from fxcell.host.effects.context import Context
from tests import leaks
from tests.host.audited import PRINT_ONLY, records, send, written
from tests.host.web import OK, redirect
from tests.host.web import serve as serve  # noqa: PLC0414 - the fixture


@zef_function
def print_and_sleep(text):
    FX.Print(content=text) | run
    FX.Sleep(seconds=0.0) | run


@zef_function
def segfault():
    import ctypes

    ctypes.string_at(0)


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


def test_secrets_are_in_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr(redaction, "_hidden", {})
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


@pytest.mark.parametrize("character", ["x", "\\", "\x01", "\U0001f98a", "\U000e0001"])
def test_longest_arguments_make_a_line_of_at_most_8_kib_and_say_what_is_left_out(character):
    text = character * 100_000
    shown = redaction.summary({"url": text, "method": text, "headers": {f"{n}{text}"[:250]: text for n in range(32)}})
    assert len(json.dumps(shown, ensure_ascii=False).encode()) < 8192
    assert shown["headers"]["…"] == "30 more"


def test_table_that_fits_is_shown_whole():
    headers = {f"X-{number}": "a value of some length" for number in range(20)}
    assert redaction.summary({"headers": headers}) == {"headers": headers}


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


class HangingFile(AuditFile):
    """A disk that takes nothing until it is told to."""

    def append(self, records):
        self.takes.wait()
        return super().append(records)


def test_full_queue_before_a_disk_that_hangs_is_waited_for_or_with_drop_counted(tmp_path):
    HangingFile.takes = threading.Event()
    deny, drop = (
        Writer(HangingFile(str(tmp_path / name), 2**26, 1, None), drop=name == "drop", queue_records=1)
        for name in ("deny", "drop")
    )
    said = [[writer.put({"event": "t"}, ask=True, patience_s=0.05) for _ in range(5)] for writer in (deny, drop)]
    HangingFile.takes.set()
    deny.close()
    with contextlib.suppress(audit.AuditError):  # the counted ones are lost, if they are not told of before the end
        drop.close()
    assert all(said[0])
    assert said[1] == [None] * 5
    assert audit.verify([str(tmp_path / "drop")]).whole


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


@zef_function
def print_odd_values():
    import numpy

    for value in (numpy.float64(5), numpy.float64("nan"), numpy.array(5), numpy.str_("text"), numpy.bool_(True)):
        FX.Print(content=value) | run
    return "performed"


def test_numbers_of_other_libraries_are_recorded_and_cost_nobody_a_line(tmp_path, capfd):
    with audit.to_file(tmp_path / "log"):
        worker = FX.StartWorkerProcess(policy=load_policy("numeric")) | run
        assert send(worker, print_odd_values()) == "performed"
        FX.StopWorkerProcess(process=worker) | run
    capfd.readouterr()
    shown = [r["arguments"]["content"] for r in records(tmp_path / "log") if r.get("decision") == "granted"]
    assert shown == [5.0, "nan", "ndarray", "text", "bool"]
    assert audit.verify([str(tmp_path / "log")]).whole


def test_record_that_json_has_no_form_for_takes_no_other_along(tmp_path):
    writer = Writer(AuditFile(str(tmp_path / "log"), 2**26, 1, None), drop=False)
    assert [writer.put({"event": "t", "value": value}, ask=True) for value in (1, object(), 2)] == [None] * 3
    writer.close()
    assert [r.get("value") for r in records(tmp_path / "log")] == [None, 1, "<object>", 2]


def test_text_made_to_be_slow_to_look_through_is_not():
    assert redaction.redact("http://x/" + "?key" * 199).startswith("http://x/")
    assert redaction.redact("http://x/a?api_key=abc&page=2;my-token=def") == (
        "http://x/a?api_key=[redacted]&page=2;my-token=[redacted]"
    )
    began = time.process_time()
    for _ in range(300):  # each took 0.09 s
        redaction.redact("http://x/" + "?key" * 199)
        redaction.summary({"data": {"k" * 3_000_000: 0}})  # and 0.6 s
    assert time.process_time() - began < 15


def test_secret_that_changes_is_hidden_in_its_last_values_and_no_more(monkeypatch):
    monkeypatch.setattr(redaction, "_hidden", {})
    monkeypatch.setattr(redaction, "_pattern", None)
    audit.hide("for ever secret")
    for number in range(1000):
        redaction.hide(f"token-{number:08}", "host:api")
    assert redaction.redact("for ever secret token-00000999 token-00000996 token-00000000") == (
        "[redacted] [redacted] [redacted] token-00000000"
    )


def test_log_whose_last_newline_was_cut_goes_on_and_a_removed_torn_line_is_found(tmp_path):
    path = tmp_path / "log"
    written(path, 2)
    path.write_bytes(path.read_bytes()[:-1])
    written(path, 1)
    assert (audit.verify([str(path)]).whole, audit.verify([str(path)]).records) == (True, 5)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq":6,"ti')
    written(path, 1)
    assert audit.verify([str(path)]).whole
    path.write_bytes(path.read_bytes().replace(b'{"seq":6,"ti\n', b""))
    assert "vouches for a torn line" in audit.verify([str(path)]).why
