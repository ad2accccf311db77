"""Checks of what a pool is given. Raises: EffectError, with what was given."""

from __future__ import annotations

import math

from fxcell.policies.errors import EffectError


def check_count(name: str, value: object, low: int, high: int) -> None:
    """A whole number from low to high."""
    if type(value) is not int or not low <= value <= high:
        raise EffectError(f"{name} must be a whole number from {low} to {high}, got {value!r:.100}")


def check_seconds(name: str, value: object) -> None:
    """A finite number above 0."""
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator]
        raise EffectError(f"{name} must be a finite number of seconds above 0, got {value!r:.100}")
