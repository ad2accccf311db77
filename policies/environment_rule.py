"""The rule of GetEnvironment: the variables, each by its exact name. There is no pattern and no way to grant all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fxcell.policies.effects import Effect
from fxcell.policies.errors import PolicyError
from fxcell.policies.names import short
from fxcell.policies.plain_rule import toml_text
from fxcell.policies.rule import Refusal, Rule, texts

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EnvironmentRule(Rule):
    """Reading these variables of the host's environment.

    names: exact; letters of ASCII, digits, '_', '.' and '-', at most 256 characters.
    """

    required: ClassVar[str] = "names"
    example: ClassVar[str] = '{ names = ["TZ", "LANG"] }'

    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        names = texts("names", self.names, '["TZ", "LANG"]')
        if not names:
            raise PolicyError(
                f"names = [] grants no variable; write {self.example} or leave the effect out", at=("names",)
            )
        for name in names:
            if not _NAME.fullmatch(name):
                raise PolicyError(
                    f"names: {short(name)} is not the name of a variable; patterns are not taken, name each one",
                    at=("names",),
                )
        object.__setattr__(self, "names", names)

    def judge(self, effect: Effect) -> Refusal | None:
        name = effect.name  # type: ignore[attr-defined]
        if type(name) is str and name in self.names:
            return None
        rule = f"{short(name)} is not exactly one of {', '.join(self.names)[:1000]}"
        if type(name) is not str or not _NAME.fullmatch(name):
            return Refusal("name", rule, "")
        wider = ", ".join(toml_text(known) for known in [*self.names, name])
        return Refusal("name", rule, f"effects.{effect.effect_name}.names = [{wider}]")

    @classmethod
    def narrowest(cls, effect: Effect) -> str:
        name = getattr(effect, "name", None)
        return f"{{ names = [{toml_text(name)}] }}" if type(name) is str and _NAME.fullmatch(name) else cls.example
