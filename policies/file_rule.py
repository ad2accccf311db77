"""The rule of effects on files: directories by their exact spelling, and a size.

The check is one of text: no file is looked at. The broker opens the path below the granted directory with
RESOLVE_BENEATH and without following links, so what the text grants cannot lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fxcell.policies.effects import Effect
from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import MiB
from fxcell.policies.paths import check_directory, is_grantable, path_fault
from fxcell.policies.plain_rule import toml_text
from fxcell.policies.rule import Refusal, Rule, byte_count, texts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileRule(Rule):
    """Files below these directories, up to a size.

    under:     absolute directories; everything below them is granted, they themselves are not.
    max_bytes: size of one file.
    """

    required: ClassVar[str] = "under"
    example: ClassVar[str] = '{ under = ["/srv/data"] }'

    under: Sequence[str] = ()
    max_bytes: int = 16 * MiB

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        under = texts("under", self.under, '["/srv/data"]')
        if not under:
            raise PolicyError(f"under = [] grants no file; write {self.example} or leave the effect out", at=("under",))
        for directory in under:
            check_directory("under", directory)
        byte_count("max_bytes", self.max_bytes)
        object.__setattr__(self, "under", under)

    def judge(self, effect: Effect) -> Refusal | None:
        found = self.root_of(effect.path)  # type: ignore[attr-defined]
        if isinstance(found, Refusal):
            return found._replace(suggestion=found.suggestion.replace("ReadFile", effect.effect_name, 1))
        return None

    def root_of(self, path: object) -> tuple[str, str] | Refusal:
        """(granted directory, path below it), or why there is none."""
        wrong = path_fault(path)
        if wrong:
            return Refusal("path", wrong, "")
        text = str(path)
        roots = [root for root in self.under if text.startswith(f"{root}/")]
        if not roots:
            granted = ", ".join(self.under)
            wider = ", ".join(toml_text(root) for root in [*self.under, text.rpartition("/")[0]])
            suggestion = f"effects.ReadFile.under = [{wider}]" if is_grantable(text.rpartition("/")[0]) else ""
            return Refusal("path", f"{text!r:.200} is not below {granted}", suggestion)
        root = max(roots, key=len)
        return root, text[len(root) + 1 :]

    @classmethod
    def narrowest(cls, effect: Effect) -> str:
        path = getattr(effect, "path", None)
        if path_fault(path):
            return cls.example
        directory = str(path).rpartition("/")[0]
        return f"{{ under = [{toml_text(directory)}] }}" if is_grantable(directory) else cls.example
