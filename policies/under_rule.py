"""What the rules of all effects on files share: granted directories, by their exact spelling.

The check is one of text: no file is looked at. The broker opens the path below the granted directory with
RESOLVE_BENEATH and without following links, so what the text grants cannot lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fxcell.policies.effects import Effect
from fxcell.policies.errors import PolicyError
from fxcell.policies.paths import check_directory, is_grantable, path_fault
from fxcell.policies.plain_rule import toml_text
from fxcell.policies.rule import Refusal, Rule, texts

OWN_PREFIX = ".fxcell-"
"""Names that begin so are the host's: files that are being written. No effect can name them, and no list shows them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnderRule(Rule):
    """Files below these directories.

    under: absolute directories; everything below them is granted, they themselves are not.
    """

    required: ClassVar[str] = "under"
    example: ClassVar[str] = '{ under = ["/srv/data"] }'
    itself: ClassVar[bool] = False
    """True where the effect is on directories, so that a granted directory is granted too."""

    nested: ClassVar[bool] = False
    """True where a granted directory inside another is only redundant: nothing is counted or changed by directory."""

    under: Sequence[str] = ()

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        under = texts("under", self.under, '["/srv/data"]')
        if not under:
            raise PolicyError(f"under = [] grants no file; write {self.example} or leave the effect out", at=("under",))
        for directory in under:
            check_directory("under", directory)
            if _own_part(directory):
                raise PolicyError(f"under: {_own_part(directory)}", at=("under",))
        if not self.nested:
            _refuse_nested(under)
        object.__setattr__(self, "under", under)

    def judge(self, effect: Effect) -> Refusal | None:
        found = self.root_of(effect.path)  # type: ignore[attr-defined]
        if isinstance(found, Refusal):
            return found._replace(suggestion=found.suggestion.replace("EFFECT", effect.effect_name, 1))
        return None

    def root_of(self, path: object) -> tuple[str, str] | Refusal:
        """(granted directory, path below it), or why there is none; the path is "" for the directory itself."""
        wrong = path_fault(path) or _own_part(str(path))
        if wrong:
            return Refusal("path", wrong, "")
        text = str(path)
        roots = [root for root in self.under if text.startswith(f"{root}/") or (self.itself and text == root)]
        if not roots:
            granted, wanted = ", ".join(self.under), self._directory_of(text)
            kept = [root for root in self.under if self.nested or not root.startswith(f"{wanted}/")]
            wider = ", ".join(toml_text(root) for root in [*kept, wanted])
            suggestion = f"effects.EFFECT.under = [{wider}]" if is_grantable(wanted) else ""
            return Refusal("path", f"{text!r:.200} is not below {granted:.1000}", suggestion)
        root = max(roots, key=len)
        return root, text[len(root) + 1 :]

    @classmethod
    def _directory_of(cls, path: str) -> str:
        """The directory to grant for this path."""
        return path if cls.itself else path.rpartition("/")[0]

    @classmethod
    def narrowest(cls, effect: Effect) -> str:
        path = getattr(effect, "path", None)
        if path_fault(path):
            return cls.example
        directory = cls._directory_of(str(path))
        if not is_grantable(directory):
            return cls.example
        return "{ " + ", ".join([f"under = [{toml_text(directory)}]", *cls._narrower(effect)]) + " }"

    @classmethod
    def _narrower(cls, effect: Effect) -> list[str]:
        """Further conditions, as TOML, that this very effect meets."""
        del effect
        return []


def _refuse_nested(under: Sequence[str]) -> None:
    """Quotas hold for each granted directory: one inside another would be counted apart, and hold as much again."""
    for outer in under:
        for inner in under:
            if inner.startswith(f"{outer}/"):
                raise PolicyError(
                    f"under: {inner!r} is inside {outer!r}, which grants it already; name only one of the two",
                    at=("under",),
                )


def _own_part(path: str) -> str:
    """What is wrong with a path that names one of the host's own files, or ""."""
    if OWN_PREFIX in path and f"/{OWN_PREFIX}" in path:
        return f"{path!r:.200} has a part that begins with {OWN_PREFIX!r}; such names are the host's own"
    return ""
