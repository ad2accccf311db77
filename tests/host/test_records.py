"""Records and replays, with real workers: the same run comes out the same, any other is found, and no byte is trusted."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import stat
import struct

import msgspec
import pytest

from fxcell import FX, Policy, load_policy, run, zef_function
from fxcell.host import records, replaying
from fxcell.host.plugins import load_plugin
from fxcell.host.recording import recording
from fxcell.host.records import Record, RecordedCommand, RecordedEffect, read_record, write_record
from fxcell.host.redaction import REDACTED, is_secret, redacted
from fxcell.host.replaying import replay
from fxcell.policies import values
from fxcell.policies.errors import EffectFailed, PluginError, RecordError
from tests.host.web import answer
from tests.host.web import serve as serve  # noqa: PLC0414 - the fixture

ASKS = """
from fxcell import FX, EffectDenied, EffectFailed, run

def main(path='/etc/hostname', seconds=0.0, text='hello'):
    FX.Print(content=text) | run
    found = [FX.Now() | run, FX.RandomBytes(count=8) | run]
    FX.Sleep(seconds=seconds) | run
    try:
        found.append(FX.ReadFile(path=path) | run)
    except (EffectDenied, EffectFailed) as refused:
        found.append(str(refused))
    return found

def fail():
    FX.Now() | run
    raise ValueError('so it ends')

def die():
    FX.Now() | run
    import os
    os.abort()

def denied():
    FX.ReadFile(path='/etc/shadow') | run
"""


@pytest.fixture
def asks(tmp_path):
    (tmp_path / "asks.py").write_text(ASKS)
    return str(tmp_path / "asks.py")


def recorded(tmp_path, policy, plugin, **arguments):
    """Run a plugin and read back its record, with what the run itself gave."""
    path = str(tmp_path / "run.fxr")
    worker = FX.StartWorkerProcess(policy=policy) | run
    try:
        with recording(worker, path, plugin):
            outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=plugin.call(**arguments)))
    finally:
        FX.StopWorkerProcess(process=worker) | run
    return read_record(path), outcome


def test_recorded_run_is_the_same_when_replayed_without_file_clock_and_wait(tmp_path, asks):
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("as it was")
    policy = load_policy("compute").replaced(
        effects={**load_policy("compute").effects, "ReadFile": {"under": [str(data.resolve())]}}
    )
    plugin = load_plugin(asks)
    record, outcome = recorded(tmp_path, policy, plugin, path=str(data.resolve() / "file"), seconds=0.1)
    assert outcome[2] == b"as it was"
    (data / "file").write_text("changed since")
    done = replay(record)
    assert (done.same, done.outcomes) == (True, (outcome,))
    (data / "file").unlink()
    assert replay(record, plugin=plugin, policy=policy).same


@pytest.mark.parametrize(("function", "kind"), [("fail", "PluginError"), ("die", "WorkerCrash"), ("denied", "EffectDenied")])
def test_run_that_did_not_end_well_ends_so_again(tmp_path, asks, function, kind):
    record, outcome = recorded(tmp_path, "compute", load_plugin(asks, function))
    assert type(outcome).__name__ == record.commands[0].kind == kind
    assert replay(record).same


def test_record_holds_policy_plugin_effects_in_order_and_output(tmp_path, asks):
    plugin = load_plugin(asks)
    record, outcome = recorded(tmp_path, "compute", plugin)
    assert (record.plugin_digest, record.policy_digest) == (plugin.digest, load_policy("compute").digest)
    assert record.recorded_policy() == load_policy("compute")
    (command,) = record.commands
    assert [effect.effect().effect_name for effect in command.effects] == ["Print", "Now", "RandomBytes", "Sleep", "ReadFile"]
    assert [(effect.outcome, effect.performed) for effect in command.effects] == [("done", True)] * 4 + [("denied", False)]
    assert [effect.result() for effect in command.effects[1:3]] == outcome[:2]
    starts = [effect.started_s for effect in command.effects]
    assert starts == sorted(starts)
    assert command.outcome() == outcome
    assert stat.S_IMODE(os.stat(tmp_path / "run.fxr").st_mode) == 0o600


def test_effect_with_other_fields_is_found_and_gets_no_answer(tmp_path, asks):
    record, _ = recorded(tmp_path, "compute", load_plugin(asks))
    other = load_plugin(asks).call(text="goodbye").to_bytes()
    record.commands[0].value = other
    done = replay(record)
    first = done.divergences[0]
    assert (first.what, first.effect) == ("effect", 1)
    assert first.text == "FX.Print(content='goodbye') was asked for; the record has FX.Print(content='hello')"
    assert isinstance(done.outcomes[0], EffectFailed)
    assert done.outcomes[0].kind == "diverged"


def test_effect_more_and_effect_less_are_found(tmp_path, asks):
    record, _ = recorded(tmp_path, "compute", load_plugin(asks))
    effects = record.commands[0].effects
    record.commands[0].effects = effects[:2]
    assert [d.effect for d in replay(record).divergences if d.what == "effect"] == [3]
    record.commands[0].effects = [*effects, effects[0]]
    (only,) = replay(record).divergences
    assert (only.effect, only.text) == (6, "was not asked for; the record has FX.Print(content='hello')")


def test_other_plugin_and_other_policy_are_said(tmp_path, asks):
    record, _ = recorded(tmp_path, "compute", load_plugin(asks))
    narrow = load_policy("compute").replaced(effects={"Print": True, "Now": True, "Sleep": True})
    done = replay(record, plugin=load_plugin(asks, "fail"), policy=narrow)
    assert [d.what for d in done.divergences][:2] == ["plugin", "policy"]
    done = replay(record, policy=narrow)
    assert [(d.what, d.effect) for d in done.divergences][:2] == [("policy", 0), ("effect", 3)]
    wide = load_policy("compute").replaced(effects={**load_policy("compute").effects, "ReadFile": {"under": ["/etc"]}})
    texts = [d.text for d in replay(record, policy=wide).divergences]
    assert any("is granted; in the record it was denied" in text for text in texts)


def test_other_outcome_is_found(tmp_path, asks):
    record, _ = recorded(tmp_path, "compute", load_plugin(asks))
    for kind, data in (("value", values.encode_value(1)), ("WorkerCrash", b"\x80")):
        record.commands[0].kind, record.commands[0].data = kind, data
        (only,) = replay(record).divergences
        assert only.what == "outcome"


@pytest.mark.parametrize(("one", "two"), [([1], [True]), ([1], [1.0]), ({"a": 1}, {"a": True}), ((1,), [1]), ("1", 1)])
def test_values_of_other_types_are_not_equal(one, two):
    assert not replaying._equal(one, two)
    assert replaying._equal({"a": 1, "b": {2, 3}}, {"b": {3, 2}, "a": 1})
    assert replaying._equal([float("nan")], [float("nan")])


@zef_function
def ask_twice(first, second):
    return [FX.RandomBytes(count=first) | run, FX.RandomBytes(count=second) | run]


def test_several_commands_to_one_worker_are_replayed_in_order(tmp_path):
    path = tmp_path / "run.fxr"
    worker = FX.StartWorkerProcess() | run
    with recording(worker, path):
        results = [
            FX.SendCommandToWorkerProcess(process=worker, command=command) | run
            for command in (ask_twice(1, 2), FX.RandomBytes(count=5), [ask_twice(3, 4), FX.Now()])
        ]
    FX.SendCommandToWorkerProcess(process=worker, command=FX.Now()) | run  # after the block: not recorded
    FX.StopWorkerProcess(process=worker) | run
    record = read_record(str(path))
    assert len(record.commands) == 3
    assert record.plugin_digest == ""
    assert (replay(record).same, list(replay(record).outcomes)) == (True, results)


SECRETS = ["Authorization", "proxy-authorization", "Cookie", "SET-COOKIE", "X-Api-Key", "x-auth-token", "X-Client-Secret"]


@pytest.mark.parametrize("name", SECRETS)
def test_secret_header_is_redacted_in_effects_and_results(name):
    effect = FX.HTTPRequest(url="https://a.example/", headers={name: "s3cret", "Accept": "text/plain"})
    assert redacted(effect).headers == {name: REDACTED, "Accept": "text/plain"}
    assert redacted({"status": 200, "headers": {name.lower(): "s3cret"}})["headers"] == {name.lower(): REDACTED}
    assert not is_secret("content-type")


@zef_function
def pass_on(effect):
    return [effect | run]


def test_secret_headers_are_in_no_record_of_a_command_that_is_an_effect_or_returns_its_answer(tmp_path, serve):
    server = serve(answer("200 OK", "Set-Cookie: sid=biscuit-4711", body=b"ok"))
    rule = {"hosts": [f"127.0.0.1:{server.port}"], "private_hosts": True}
    worker = FX.StartWorkerProcess(policy=Policy(name="web", effects={"HTTPRequest": rule})) | run
    asked = FX.HTTPRequest(url=f"http://127.0.0.1:{server.port}/", headers={"Authorization": "Bearer secret-password"})
    with recording(worker, tmp_path / "run.fxr"):
        for command in (asked, pass_on(asked)):
            FX.SendCommandToWorkerProcess(process=worker, command=command) | run
    FX.StopWorkerProcess(process=worker) | run
    assert [request["headers"]["authorization"] for request in server.requests] == ["Bearer secret-password"] * 2
    record = read_record(str(tmp_path / "run.fxr"))
    for secret in ("secret-password", "biscuit-4711"):
        assert secret not in repr(record)
    assert replay(record).same


@zef_function
def log_in(url, secret):
    answer = FX.HTTPRequest(url=url, headers={"Authorization": f"Bearer {secret[::-1]}"}) | run
    return answer["status"]


def test_secret_that_was_sent_and_cookie_that_was_answered_are_in_no_byte_of_the_file(tmp_path, serve):
    server = serve(answer("200 OK", "Set-Cookie: sid=biscuit-4711", body=b"ok"))
    rule = {"hosts": [f"127.0.0.1:{server.port}"], "private_hosts": True}
    worker = FX.StartWorkerProcess(policy=Policy(name="web", effects={"HTTPRequest": rule})) | run
    with recording(worker, tmp_path / "run.fxr"):
        command = log_in(f"http://127.0.0.1:{server.port}/", "drowssap-terces")
        assert FX.SendCommandToWorkerProcess(process=worker, command=command) | run == 200
    FX.StopWorkerProcess(process=worker) | run
    assert server.requests[0]["headers"]["authorization"] == "Bearer secret-password"
    record = read_record(str(tmp_path / "run.fxr"))
    (effect,) = record.commands[0].effects
    for secret in ("secret-password", "biscuit-4711"):
        assert secret not in repr(record)  # each field, decoded
        assert secret.encode() not in (tmp_path / "run.fxr").read_bytes()
    assert b"127.0.0.1" in effect.asked
    assert replay(record).same
    assert len(server.requests) == 1


SHOWN = {
    "isolation": {"isolation": "unprivileged"},
    "preload": {"preload": ("json",)},
    "folders": {"visible": ("/srv",)},
}


@pytest.mark.parametrize("what", SHOWN)
def test_recorded_policy_that_gives_up_isolation_is_not_used_unless_named(tmp_path, asks, what):
    record, _ = recorded(tmp_path, "compute", load_plugin(asks))
    record.policy = load_policy("compute").replaced(**SHOWN[what]).to_data()
    with pytest.raises(RecordError, match="--policy"):
        replay(record)
    assert [d.what for d in replay(record, policy=load_policy("compute")).divergences] == []


# --- the file


def small():
    effect = RecordedEffect(values.encode_value(FX.Now()), "done", values.encode_value(1.5), True, 0.1, 0.2)
    command = RecordedCommand(FX.Now().to_bytes(), [effect] * 3, "value", values.encode_value(1.5), "out", "err")
    policy = load_policy("strict")
    return Record("0.1", 1.0, policy.name, policy.digest, policy.to_data(), "p", "d" * 64, [command])


def test_written_record_is_read_back_without_loss(tmp_path):
    path = str(tmp_path / "a.fxr")
    write_record(path, small())
    assert read_record(path) == small()
    assert os.listdir(tmp_path) == ["a.fxr"]


def test_byte_that_changed_and_file_that_was_cut_are_damaged(tmp_path):
    path = tmp_path / "a.fxr"
    write_record(str(path), small())
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(RecordError):
            read_record(str(path))
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(RecordError):
            read_record(str(path))
    path.write_bytes(good + b"x")
    with pytest.raises(RecordError, match="damaged"):
        read_record(str(path))


def forged(path, body):
    """A file whose sum is right: somebody made it so."""
    path.write_bytes(struct.pack("<8sQ32s", b"FXCELLR1", len(body), hashlib.sha256(body).digest()) + body)
    return str(path)


def test_forged_file_is_a_record_or_a_typed_error_whatever_its_bytes(tmp_path):
    write_record(str(tmp_path / "a.fxr"), small())
    good = (tmp_path / "a.fxr").read_bytes()[48:]
    chosen = random.Random(4711)
    outcomes = set()
    for _ in range(1500):
        body = bytearray(good)
        for _ in range(chosen.randint(1, 4)):
            body[chosen.randrange(len(body))] = chosen.randrange(256)
        try:
            record = read_record(forged(tmp_path / "b.fxr", bytes(body)))
            for command in record.commands:
                command.outcome()
                records.decoded_command(command.value)
                for effect in command.effects:
                    effect.effect()
                    effect.result()
            record.recorded_policy()
            outcomes.add("read")
        except RecordError:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_few_bytes_that_say_they_are_much_are_refused_before_they_are_made(tmp_path):
    huge_segment = struct.pack("<II", 0, 2**29)  # one segment of 4 GiB
    packed = bytes([0xFF]) + huge_segment + bytes([0]) + bytes([0, 255]) * 1000
    with pytest.raises(RecordError):
        read_record(forged(tmp_path / "a.fxr", packed))


def test_list_of_more_entries_than_a_record_may_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_ENTRIES", 2)
    write_record(str(tmp_path / "a.fxr"), small())
    with pytest.raises(RecordError, match="over the cap"):
        read_record(str(tmp_path / "a.fxr"))


def packed_words(flat):
    """Cap'n Proto's packing, without its runs: words that share their parts, as no builder would write them."""
    out = bytearray()
    for start in range(0, len(flat), 8):
        word = flat[start : start + 8]
        tag = sum(1 << place for place, byte in enumerate(word) if byte)
        out += bytes([tag]) + bytes(byte for byte in word if byte) + (b"\0" if tag in (0, 255) else b"")
    return bytes(out)


def test_commands_that_share_one_long_list_are_counted_each(tmp_path, monkeypatch):
    effects, commands = 50, 40
    at, tag = 11 + 2 * commands, 12 + 2 * commands + 2 * effects

    def to_list(here, there, kind, count):
        return struct.pack("<II", (there - here - 1) << 2 | 1, count << 3 | kind)

    words = {0: struct.pack("<IHH", 0, 1, 7), 5: to_list(5, 9, 2, 1), 8: to_list(8, 10, 7, 2 * commands), 9: b"\x80" + bytes(7)}
    words |= {10: struct.pack("<IHH", commands << 2, 0, 2), at: struct.pack("<IHH", effects << 2, 0, 2), tag: b"done\0\0\0\0"}
    words |= {12 + 2 * number: to_list(12 + 2 * number, at, 7, 2 * effects) for number in range(commands)}
    words |= {at + 2 + 2 * number: to_list(at + 2 + 2 * number, tag, 2, 5) for number in range(effects)}
    flat = struct.pack("<II", 0, tag + 1) + b"".join(words.get(number, bytes(8)) for number in range(tag + 1))
    path = forged(tmp_path / "a.fxr", packed_words(flat))
    assert sum(len(command.effects) for command in read_record(path).commands) == effects * commands
    monkeypatch.setattr(records, "MAX_ENTRIES", effects * commands - 1)
    with pytest.raises(RecordError, match="over the cap"):
        read_record(path)


def test_table_that_would_be_huge_in_memory_is_refused_before_it_is_made(tmp_path):
    message = records._schema.Record.new_message()
    message.policy = b"\x81\xa1x\xdd" + struct.pack(">I", 10_000_000) + b"\x90" * 10_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RecordError, match="no table"):
        read_record(forged(tmp_path / "a.fxr", message.to_bytes_packed()))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_refusal_of_other_things_than_texts_is_no_refusal():
    told = msgspec.msgpack.encode({"effect": "Now", "kind": [1], "message": 2})
    with pytest.raises(RecordError, match="other things than texts"):
        records.RecordedEffect(b"", "failed", told, True, 0.0, 0.0).refusal()


def test_run_that_is_more_than_a_record_may_hold_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("fxcell.host.recording.MAX_BYTES", 100_000)
    worker = FX.StartWorkerProcess() | run
    try:
        with pytest.raises(RecordError, match="more than a record may hold"), recording(worker, tmp_path / "a.fxr"):
            FX.SendCommandToWorkerProcess(process=worker, command=ask_twice(80_000, 80_000)) | run
        assert os.listdir(tmp_path) == []
        FX.SendCommandToWorkerProcess(process=worker, command=FX.Now()) | run
    finally:
        FX.StopWorkerProcess(process=worker) | run


def test_place_that_cannot_be_written_is_said_before_anything_runs(tmp_path):
    worker = FX.StartWorkerProcess() | run
    try:
        for path in (tmp_path / "nowhere" / "a.fxr", tmp_path):
            with pytest.raises(RecordError, match="cannot be written"), recording(worker, path):
                pytest.fail("the block was entered")
    finally:
        FX.StopWorkerProcess(process=worker) | run


def test_fifo_and_missing_file_are_errors_that_do_not_wait(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "missing", "nul\0"):
        with pytest.raises(RecordError):
            read_record(str(tmp_path / name))


def test_plugin_error_keeps_its_type_across_the_record(tmp_path, asks):
    record, outcome = recorded(tmp_path, "compute", load_plugin(asks, "fail"))
    assert isinstance(outcome, PluginError)
    told = record.commands[0].outcome()
    assert (told["type"], told["message"]) == ("ValueError", "so it ends")
