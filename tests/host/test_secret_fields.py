"""`secrets` of an effect of one's own: fields that the host fills, which no worker, record, log or answer shows."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from fxcell import FX, Effect, EffectDenied, EffectFailed, Policy, handles, run, zef_function
from fxcell.host import asking, audit, registry
from fxcell.host.commands.run import _would_perform as would_perform
from fxcell.host.recording import recording
from fxcell.policies.errors import PolicyError
from fxcell.policies.loader import load_policy
from fxcell.policies.toml_text import to_toml

SECRET = "s3cret-Field/93=f!x"
SEEN: list[str] = []


class LookUp(Effect):
    """Answer what a service says; its key is the host's."""

    word: str
    api_key: str
    region: str = "eu"
    tries: int = 1


@handles(LookUp)
def look_up(effect, context):
    SEEN.append(effect.api_key)
    if effect.word == "break":
        raise ValueError(f"401 for {effect.api_key}")
    if effect.word == "fail":
        raise EffectFailed("LookUp", "refused", f"401 for {effect.api_key.upper()}")
    if effect.word == "deny":
        raise EffectDenied("LookUp", None, f"not for {effect.api_key}", context.policy.name, "")
    told = [(effect.api_key, {effect.api_key.lower().encode()}), bytearray(effect.api_key.encode())]
    return {"told": told, effect.region: effect.word}


class LookUpSlowly(Effect):
    """The same, by a coroutine, with a key that has a default."""

    api_key: str = "none"


@handles(LookUpSlowly)
async def look_up_slowly(effect):
    await asyncio.sleep(0)
    SEEN.append(effect.api_key)
    return f"<{effect.api_key}>"


@zef_function
def asks(words):
    said = []
    for word in words:
        try:
            said.append(FX.LookUp(word=word) | run)
        except Exception as error:
            said.append([type(error).__name__, str(error), {k: v for k, v in vars(error).items() if isinstance(v, str)}])
    return said


@zef_function
def gives_the_field_itself(key):
    return FX.LookUp(word="x", api_key=key) | run


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("FXCELL_TEST_KEY", SECRET)
    SEEN.clear()


def granted(**rule):
    return Policy(name="keyed", effects={"LookUp": {"secrets": {"api_key": "env:FXCELL_TEST_KEY"}, **rule}})


def send(policy, command):
    worker = FX.StartWorkerProcess(policy=policy) | run
    try:
        return FX.SendCommandToWorkerProcess(process=worker, command=command) | run
    finally:
        FX.StopWorkerProcess(process=worker) | run


def test_field_is_filled_for_the_handler_and_cut_out_of_all_that_comes_back():
    result, *refused = send(granted(), asks(["x", "break", "fail", "deny"]))
    assert SEEN == [SECRET] * 4
    assert result == {"told": [("[secret]", {b"[secret]"}), b"[secret]"], "eu": "x"}
    assert [one[0] for one in refused] == ["EffectFailed", "EffectFailed", "EffectDenied"]
    assert "s3cret" not in repr([result, *refused]).lower()
    assert "401 for [secret]" in refused[1][1]


def test_coroutine_and_a_word_before_the_secret():
    policy = Policy(effects={"LookUpSlowly": {"secrets": {"api_key": "Key env:FXCELL_TEST_KEY"}}})
    assert send(policy, FX.LookUpSlowly()) == "<Key [secret]>"
    assert [f"Key {SECRET}"] == SEEN


def test_worker_that_gives_the_field_itself_is_denied_without_the_handler():
    with pytest.raises(EffectDenied, match="filled by the host") as denied:
        send(granted(), gives_the_field_itself("mine"))
    assert denied.value.field == "api_key"
    assert not SEEN
    assert send(granted(), gives_the_field_itself(""))["eu"] == "x"  # the placeholder


def test_secret_field_is_in_no_record_audit_line_log_or_question(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    questions = []
    asking.answer_with(lambda question: questions.append(repr(question)) or asking.Answer.ONCE)
    try:
        worker = FX.StartWorkerProcess(policy=granted(ask=True)) | run
        command = asks(["x", "break", "fail"])
        with audit.to_file(tmp_path / "a.jsonl"), recording(worker, tmp_path / "r.fxr"):
            FX.SendCommandToWorkerProcess(process=worker, command=command) | run
    finally:
        asking.answer_with(None)
    kept = [(tmp_path / name).read_bytes().decode("latin-1") for name in ("a.jsonl", "r.fxr")]
    records = repr(list(registry.session_of(worker).broker.records))
    FX.StopWorkerProcess(process=worker) | run
    assert len(questions) == len(SEEN) == 3
    assert "s3cret" not in "".join([*kept, *questions, records, caplog.text]).lower()
    assert "401 for [secret]" in caplog.text


def test_dry_run_prints_the_placeholder_and_looks_no_secret_up(monkeypatch, capsys):
    monkeypatch.delenv("FXCELL_TEST_KEY")
    worker = FX.StartWorkerProcess(policy=granted()) | run
    registry.session_of(worker).broker.performer = would_perform
    assert FX.SendCommandToWorkerProcess(process=worker, command=asks(["x"])) | run == [None]
    FX.StopWorkerProcess(process=worker) | run
    assert capsys.readouterr().out == "would perform FX.LookUp(word='x', api_key='', region='eu', tries=1)\n"
    assert not SEEN


def test_missing_secret_fails_before_the_handler_and_only_the_log_says_why(monkeypatch, caplog):
    monkeypatch.delenv("FXCELL_TEST_KEY")
    [[kind, text, _]] = send(granted(), asks(["x"]))
    assert kind == "EffectFailed"
    assert "no usable secret for the field 'api_key'" in text
    assert "FXCELL_TEST_KEY" not in text
    assert "env:FXCELL_TEST_KEY (KeyError)" in caplog.text
    assert not SEEN


def test_policy_with_secret_fields_is_the_same_in_every_form_and_holds_no_secret(tmp_path):
    one = granted()
    (tmp_path / "p.toml").write_text(to_toml(one))
    assert load_policy(tmp_path / "p.toml").digest == Policy.from_data(one.to_data()).digest == one.digest
    assert Policy(effects={"LookUp": one.effects["LookUp"]}).effects == one.effects
    assert SECRET not in repr(one) + to_toml(one) + json.dumps(one.to_data())
    assert "secrets" not in Policy(effects={"LookUp": True}).effects["LookUp"].to_data()


@pytest.mark.parametrize(
    ("effect", "rule", "message"),
    [
        ("LookUp", {"secrets": {"api_kye": "env:A"}}, "has no field 'api_kye'; did you mean 'api_key'"),
        ("LookUp", {"secrets": {"tries": "env:A"}}, "must be a field of texts, it is int"),
        ("LookUp", {"secrets": {"api_key": SECRET}}, "must say where the value is"),
        ("LookUp", {"secrets": {"api-key": "env:A"}}, "is not the name of a field"),
        ("LookUp", {"secrets": "env:A"}, "must be a table of field"),
        ("LookUp", {"secrets": {"api_key": "env:A"}, "api_key": ["a"]}, "no condition on it decides"),
        ("Log", {"secrets": {"message": "env:A"}}, "effects.Log has no key 'secrets'"),
    ],
)
def test_table_that_names_no_such_field_is_refused_without_what_stands_in_it(effect, rule, message, tmp_path):
    with pytest.raises(PolicyError, match=message) as refused:
        Policy(effects={effect: rule})
    assert SECRET not in str(refused.value)
