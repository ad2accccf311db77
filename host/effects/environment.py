"""GetEnvironment: one variable of the host's environment, by its exact name."""

from __future__ import annotations

import os

from fxcell.host.effects.context import Context
from fxcell.policies.builtin import GetEnvironment
from fxcell.policies.errors import EffectFailed

MAX_VALUE_BYTES = 128 * 1024
"""What Linux takes as one string of an environment (MAX_ARG_STRLEN of linux/binfmts.h, with pages of 4 KiB)."""


def perform_get_environment(effect: GetEnvironment, _context: Context) -> str | None:
    """Answer the value now, or None where the variable is not set.

    Raises: EffectFailed - not_text: the value is not valid UTF-8; too_large: it has more than 128 KiB.
    """
    # By bytes: what the host's locale makes of a value is not what the plugin asked for.
    value = os.environb.get(effect.name.encode(errors="surrogatepass"))
    if value is None:
        return None
    if len(value) > MAX_VALUE_BYTES:
        raise EffectFailed("GetEnvironment", "too_large", f"{effect.name!r:.200} is over {MAX_VALUE_BYTES} bytes")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise EffectFailed("GetEnvironment", "not_text", f"{effect.name!r:.200} is not valid UTF-8") from error
