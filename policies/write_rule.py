"""The rule of WriteFile: directories, ways of writing, and quotas that hold for each directory as a whole.

The quotas are judged here as far as the effect alone decides; how much a directory holds already is measured on disk by
the broker, under a lock, at each write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fxcell.policies.effects import Effect
from fxcell.policies.errors import PolicyError
from fxcell.policies.file_rule import count_of
from fxcell.policies.limits import MiB
from fxcell.policies.names import nearest, short
from fxcell.policies.plain_rule import toml_text
from fxcell.policies.rule import Refusal, byte_count, texts
from fxcell.policies.under_rule import UnderRule

MODES = ("append", "create", "replace")
MAX_FILES = 100_000
"""The most files that a policy can let a directory hold: they are counted at each write."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WriteRule(UnderRule):
    """Writing files below these directories.

    under:           absolute directories; everything below them is granted, they themselves are not. Never one from which
                     code is started or loaded: nothing here keeps a plugin from writing a script or a module.
    max_bytes:       size of one file, after the write.
    quota_bytes: sizes of all files below one granted directory together, whoever wrote them.
    max_files:       files and directories below one granted directory, whoever made them; at most 100,000.
    modes:           the ways of writing: create, replace, append.
    create_parents:  True also makes the directories that are missing on the way to the file.
    hidden:          True also grants paths with a part that begins with a dot (.bashrc, .git/hooks, .ssh).
    """

    max_bytes: int = 16 * MiB
    quota_bytes: int = 256 * MiB
    max_files: int = 1000
    modes: Sequence[str] = MODES
    create_parents: bool = False
    hidden: bool = False

    def __post_init__(self) -> None:
        UnderRule.__post_init__(self)
        byte_count("max_bytes", self.max_bytes)
        byte_count("quota_bytes", self.quota_bytes)
        if self.quota_bytes < self.max_bytes:
            raise PolicyError(
                f"quota_bytes ({self.quota_bytes:,}) is below max_bytes ({self.max_bytes:,}): no file could have "
                "the size that max_bytes grants; write both",
                at=("quota_bytes",),
            )
        count_of("max_files", self.max_files, MAX_FILES)
        object.__setattr__(self, "modes", _modes(self.modes))
        for name in ("create_parents", "hidden"):
            if type(getattr(self, name)) is not bool:
                raise PolicyError(f"{name} must be true or false, got {short(getattr(self, name))}", at=(name,))

    def judge(self, effect: Effect) -> Refusal | None:
        return UnderRule.judge(self, effect) or self._judge_rest(effect)

    def _judge_rest(self, effect: Any) -> Refusal | None:
        key = f"effects.{effect.effect_name}"
        found = self.root_of(effect.path)
        if not self.hidden and not isinstance(found, Refusal) and f"/{found[1]}".count("/."):
            rule = f"{effect.path!r:.200} has a part that begins with a dot, which needs hidden = true"
            return Refusal("path", rule, f"{key}.hidden = true")
        if type(effect.mode) is not str or effect.mode not in self.modes:
            rule = f"the mode {short(effect.mode)} is not exactly one of {', '.join(self.modes)}"
            wider = ", ".join(toml_text(str(mode)) for mode in [*self.modes, effect.mode])
            return Refusal("mode", rule, f"{key}.modes = [{wider}]")
        if type(effect.content) is not bytes:
            return Refusal("content", f"the content must be plain bytes, not {type(effect.content).__name__}", "")
        size = len(effect.content)
        if size > self.max_bytes:
            rule = f"the content has {size:,} bytes, over the maximum of {self.max_bytes:,}"
            if size > self.quota_bytes:
                return Refusal("content", rule, f"{key} = {{ max_bytes = {size}, quota_bytes = {size} }}")
            return Refusal("content", rule, f"{key}.max_bytes = {size}")
        return None

    @classmethod
    def _narrower(cls, effect: Effect) -> list[str]:
        return [f"modes = [{toml_text(str(effect.mode))}]"]  # type: ignore[attr-defined]


def _modes(given: object) -> tuple[str, ...]:
    modes = texts("modes", given, '["create"]')
    for mode in modes:
        if mode not in MODES:
            raise PolicyError(f"modes: there is no mode {short(mode)}{nearest(mode, MODES)}", at=("modes",))
    if not modes:
        raise PolicyError('modes = [] grants no write; write modes = ["create"] or leave the effect out', at=("modes",))
    return modes
