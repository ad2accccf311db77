"""A plugin's side of the KeyValue effects without a worker: a broker, asked as a session asks it."""

import threading
import time

import pytest

from fxcell import EffectFailed, Policy
from fxcell.host.broker import Broker
from fxcell.host.effects.context import Caller, Context
from fxcell.policies.builtin import KeyValueDelete, KeyValueGet, KeyValueList, KeyValueSet

EFFECTS = ("KeyValueGet", "KeyValueSet", "KeyValueDelete", "KeyValueList")


class Plugin:
    """What one worker of a plugin does, by its broker."""

    def __init__(self, folder, name="notes", seconds=30.0, **quota):
        rule = {"directory": str(folder)}
        given = {effect: rule if effect != "KeyValueSet" else {**rule, **quota} for effect in EFFECTS}
        self.policy = Policy(name="p", effects=given)
        self.caller = Caller(name, (name,) if name else ())
        self.broker = Broker(self.policy, "w3")
        self.seconds = seconds
        self.cancelled = threading.Event()

    def perform(self, effect):
        deadline = time.monotonic() + self.seconds
        asked = Context("w3", self.policy, deadline, self.cancelled.wait, print, self.caller)
        return self.broker.perform(effect, asked)

    def get(self, key):
        return self.perform(KeyValueGet(key=key))

    def set(self, key, value):
        return self.perform(KeyValueSet(key=key, value=value))

    def delete(self, key):
        return self.perform(KeyValueDelete(key=key))

    def list(self, **fields):
        return self.perform(KeyValueList(**fields))

    def kind(self, effect):
        with pytest.raises(EffectFailed) as failed:
            self.perform(effect)
        assert "/" not in failed.value.message, "a path of the host"
        return failed.value.kind
