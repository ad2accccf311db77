"""Names of plugins: what a plugin's state is kept under and what other plugins call it by.

One spelling each: lower case only, so that no two names differ in case alone, and nothing that means something in a path.
"""

from __future__ import annotations

import re

from fxcell.policies.errors import PolicyError
from fxcell.policies.names import short

MAX_NAME_CHARACTERS = 64

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)

FORM = f"lower-case ASCII letters, digits, '.', '_' and '-', at most {MAX_NAME_CHARACTERS}, a letter or digit first"


def is_plugin_name(name: object) -> bool:
    """True for a name that a plugin can be known by."""
    return type(name) is str and _NAME.fullmatch(name) is not None


def check_plugin_name(what: str, name: object) -> None:
    """Raise PolicyError, about the key `what`, unless this is a plugin's name."""
    if not is_plugin_name(name):
        raise PolicyError(f"{what}: {short(name)} is not a plugin's name: {FORM}", at=(what,))
