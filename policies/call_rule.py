"""The rule of CallPlugin: which plugins may be called, by exact name, and how deep calls may nest.

What a called plugin may do is its own policy's, which the host registered with it (fxcell.host.callees).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fxcell.policies.effects import Effect
from fxcell.policies.errors import PolicyError
from fxcell.policies.names import short
from fxcell.policies.plain_rule import toml_text
from fxcell.policies.plugin_names import check_plugin_name, is_plugin_name
from fxcell.policies.rule import Refusal, Rule, texts

MAX_DEPTH = 8
"""Levels of calls below a worker that no rule can exceed: each level holds a worker and a thread of the host."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CallRule(Rule):
    """Plugins that may be called.

    plugins:   names under which the host registered them.
    max_depth: levels of calls below this worker, 1 to 8: 1 lets what it calls call nobody.
    """

    required: ClassVar[str] = "plugins"
    example: ClassVar[str] = '{ plugins = ["resize"] }'

    plugins: Sequence[str] = ()
    max_depth: int = MAX_DEPTH

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        plugins = texts("plugins", self.plugins, '["resize"]')
        if not plugins:
            raise PolicyError(f"plugins = [] grants no call; write {self.example} or leave the effect out", at=("plugins",))
        for name in plugins:
            check_plugin_name("plugins", name)
        if type(self.max_depth) is not int or not 1 <= self.max_depth <= MAX_DEPTH:
            text = f"max_depth must be a whole number from 1 to {MAX_DEPTH}, got {short(self.max_depth)}"
            raise PolicyError(text, at=("max_depth",))
        object.__setattr__(self, "plugins", plugins)

    def judge(self, effect: Effect) -> Refusal | None:
        name = effect.plugin  # type: ignore[attr-defined]
        if type(name) is str and name in self.plugins:
            return None
        granted = ", ".join(self.plugins)
        wider = ", ".join(toml_text(known) for known in [*self.plugins, name]) if is_plugin_name(name) else ""
        suggestion = f"effects.CallPlugin.plugins = [{wider}]" if wider else ""
        return Refusal("plugin", f"{short(name)} is not one of {granted}", suggestion)

    @classmethod
    def narrowest(cls, effect: Effect) -> str:
        name = getattr(effect, "plugin", None)
        return f"{{ plugins = [{toml_text(str(name))}] }}" if is_plugin_name(name) else cls.example
