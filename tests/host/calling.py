"""What tests of CallPlugin share: policies that grant calls, plugins that call, and how a call is sent and fails."""

import pytest

from fxcell import FX, EffectFailed, load_policy, run, zef_function
from fxcell.host import callees


@pytest.fixture(autouse=True)
def nobody_registered():
    yield
    for name in callees.registered():
        callees.unregister(name)


def policy(name="p", base="compute", **effects):
    granted = load_policy(base)
    return granted.replaced(name=name, effects={**granted.effects, **effects})


def calls(*plugins, **rule):
    return policy(CallPlugin={"plugins": list(plugins), **rule})


def send(command, granted, plugin=None, **options):
    worker = FX.StartWorkerProcess(policy=granted, plugin=plugin) | run
    try:
        return FX.SendCommandToWorkerProcess(process=worker, command=command, **options) | run
    finally:
        FX.StopWorkerProcess(process=worker) | run


def failure(command, granted, plugin=None, **options):
    with pytest.raises(EffectFailed) as failed:
        send(command, granted, plugin, **options)
    assert "/" not in failed.value.message, "a path of the host"
    return failed.value


@zef_function
def double(value):
    return value * 2


@zef_function
def ask(plugin, arguments):
    return FX.CallPlugin(plugin=plugin, arguments=arguments) | run


@zef_function
def nest(names):
    """Call the plugins behind each other, and answer how many there were."""
    return 1 + (FX.CallPlugin(plugin=names[0], arguments={"names": names[1:]}) | run) if names else 1


def living():
    """The workers of this host; other tests may keep some."""
    return [entry["process"] for entry in FX.ListWorkerProcesses() | run]
