"""GetEnvironment: one variable by its exact name, and never another."""

import os
import threading
import time

import pytest

from fxcell.host.broker import Broker, Context, perform_locally
from fxcell.policies.builtin import GetEnvironment
from fxcell.policies.errors import EffectDenied, EffectFailed
from fxcell.policies.policy import Policy

GRANTED = Policy(name="environment", effects={"GetEnvironment": {"names": ["FXCELL_TEST_A", "FXCELL_TEST_B"]}})


def get(name):
    context = Context("w1", GRANTED, time.monotonic() + 30, threading.Event().wait, print)
    return Broker(GRANTED, "w1").perform(GetEnvironment(name=name), context)


def test_granted_variable_is_answered_as_it_is_now(monkeypatch):
    monkeypatch.setenv("FXCELL_TEST_A", "één = 1\n")
    assert get("FXCELL_TEST_A") == "één = 1\n"
    monkeypatch.setenv("FXCELL_TEST_A", "")
    assert get("FXCELL_TEST_A") == ""


def test_variable_that_is_not_set_is_none(monkeypatch):
    monkeypatch.delenv("FXCELL_TEST_B", raising=False)
    assert get("FXCELL_TEST_B") is None


@pytest.mark.parametrize(
    "name", ["FXCELL_TEST_SECRET", "fxcell_test_a", "FXCELL_TEST_A\0", "FXCELL_TEST_A=", "FXCELL_TEST_*", "*", ""]
)
def test_any_other_name_is_denied_and_its_value_is_in_no_text(monkeypatch, name):
    monkeypatch.setenv("FXCELL_TEST_SECRET", "value-of-the-secret")
    with pytest.raises(EffectDenied) as denied:
        get(name)
    assert "value-of-the-secret" not in repr(denied.value.to_dict())
    assert os.environ["FXCELL_TEST_SECRET"] == "value-of-the-secret"  # control: it is there to be had


def test_value_that_is_not_utf_8_is_not_text(monkeypatch):
    monkeypatch.setitem(os.environb, b"FXCELL_TEST_A", b"\xff")
    with pytest.raises(EffectFailed) as failed:
        get("FXCELL_TEST_A")
    assert failed.value.kind == "not_text"


def test_value_over_the_cap_is_too_large(monkeypatch):
    monkeypatch.setenv("FXCELL_TEST_A", "x" * (128 * 1024))
    assert len(get("FXCELL_TEST_A")) == 128 * 1024
    monkeypatch.setenv("FXCELL_TEST_A", "x" * (128 * 1024 + 1))
    with pytest.raises(EffectFailed) as failed:
        get("FXCELL_TEST_A")
    assert failed.value.kind == "too_large"


@pytest.mark.parametrize("name", ["", "A=B", "A\0B", "\ud800"])
def test_host_that_asks_for_a_name_that_cannot_be_gets_none(name):
    context = Context("host", None, time.monotonic() + 30, threading.Event().wait, print)
    assert perform_locally(GetEnvironment(name=name), context) is None
