"""fxcell: run untrusted Python in hardened worker processes whose only contact with the outside are typed effects.

    from fxcell import *

    worker = FX.StartWorkerProcess() | run
    FX.SendCommandToWorkerProcess(process=worker, command=FX.Print(content='hello')) | run
    FX.StopWorkerProcess(process=worker) | run

Names are loaded when first used: `import fxcell` alone is cheap. Linux only, Python 3.11 and newer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxcell.host.effects import handles as handles
    from fxcell.host.pool.executor import PoolExecutor as PoolExecutor
    from fxcell.host.pool.pool import Pool as Pool
    from fxcell.host.runtime import run as run
    from fxcell.policies.calls import Call as Call
    from fxcell.policies.calls import zef_function as zef_function
    from fxcell.policies.crash import Reason as Reason
    from fxcell.policies.crash import WorkerCrash as WorkerCrash
    from fxcell.policies.effects import FX as FX
    from fxcell.policies.effects import Effect as Effect
    from fxcell.policies.effects import WorkerProcess as WorkerProcess
    from fxcell.policies.errors import DecodeError as DecodeError
    from fxcell.policies.errors import EffectDenied as EffectDenied
    from fxcell.policies.errors import EffectError as EffectError
    from fxcell.policies.errors import EffectFailed as EffectFailed
    from fxcell.policies.errors import EncodeError as EncodeError
    from fxcell.policies.errors import FxcellError as FxcellError
    from fxcell.policies.errors import InternalError as InternalError
    from fxcell.policies.errors import IsolationUnavailable as IsolationUnavailable
    from fxcell.policies.errors import MessageTooLarge as MessageTooLarge
    from fxcell.policies.errors import OutcomeError as OutcomeError
    from fxcell.policies.errors import OutOfDescriptors as OutOfDescriptors
    from fxcell.policies.errors import PluginError as PluginError
    from fxcell.policies.errors import PluginNotUsable as PluginNotUsable
    from fxcell.policies.errors import PolicyError as PolicyError
    from fxcell.policies.errors import PoolBusy as PoolBusy
    from fxcell.policies.errors import PoolClosed as PoolClosed
    from fxcell.policies.errors import PoolUnavailable as PoolUnavailable
    from fxcell.policies.errors import Quarantined as Quarantined
    from fxcell.policies.errors import UserError as UserError
    from fxcell.policies.errors import WorkerStopped as WorkerStopped
    from fxcell.policies.limits import Limits as Limits
    from fxcell.policies.loader import load_policy as load_policy
    from fxcell.policies.policy import Policy as Policy

__version__ = "0.1.0"

Bytes = bytes
"""The name that the examples use for `bytes`."""

_HOMES = {
    "run": "fxcell.host.runtime",
    "Pool": "fxcell.host.pool.pool",
    "PoolExecutor": "fxcell.host.pool.executor",
    "handles": "fxcell.host.effects",
    "FX": "fxcell.policies.effects",
    "Effect": "fxcell.policies.effects",
    "WorkerProcess": "fxcell.policies.effects",
    "Call": "fxcell.policies.calls",
    "zef_function": "fxcell.policies.calls",
    "Policy": "fxcell.policies.policy",
    "Limits": "fxcell.policies.limits",
    "load_policy": "fxcell.policies.loader",
    "Reason": "fxcell.policies.crash",
    "WorkerCrash": "fxcell.policies.crash",
} | dict.fromkeys(
    (
        "FxcellError", "UserError", "EffectError", "PolicyError", "EncodeError", "DecodeError", "MessageTooLarge",
        "WorkerStopped", "PluginNotUsable", "IsolationUnavailable", "InternalError", "OutcomeError", "PluginError",
        "EffectDenied", "EffectFailed", "OutOfDescriptors",
        "PoolBusy", "PoolClosed", "PoolUnavailable", "Quarantined",
    ),
    "fxcell.policies.errors",
)  # fmt: skip

__all__ = ["Bytes", *_HOMES]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fxcell' has no attribute {name!r}")
    import importlib

    if home.startswith("fxcell.policies."):
        importlib.import_module("fxcell.policies.builtin")  # FX is complete only with the shipped effects
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
