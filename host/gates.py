"""What a rule says beyond an effect's fields: rates, byte budgets, and asking somebody. One Gate per worker and effect.

    admit:   argument bytes -> rate -> ask       before the effect is performed
    settle:  answer bytes                        after it was

The broker has gates only for rules that need one; all other effects never come here. One thread at a time uses a gate.
Workers of one registered plugin (FX.CallPlugin starts one per call) share the buckets of its rates, and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from fxcell.host import asking
from fxcell.host.asked_text import asked_text
from fxcell.host.effects.context import Context
from fxcell.policies import values
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied, EncodeError
from fxcell.policies.policy import Policy
from fxcell.policies.rates import MAX_COUNT, Rate, parse_rate
from fxcell.policies.rule import Rule
from fxcell.policies.toml_text import bytes_text


def gates_for(policy: Policy, shared: Mapping[str, Bucket] | None = None) -> dict[str, Gate]:
    """A fresh gate for each effect whose rule needs one. shared: effect -> the bucket that other workers use as well."""
    shared = shared or {}
    return {name: Gate(policy.name, name, rule, shared.get(name)) for name, rule in policy.effects.items() if rule.gated}


def buckets_for(policy: Policy) -> dict[str, Bucket]:
    """A full bucket for each effect whose rule has a rate, to be shared by workers under the policy."""
    now_s = time.monotonic()
    rated = [(name, rule) for name, rule in policy.effects.items() if rule.rate is not None]
    return {name: Bucket(parse_rate(rule.rate), rule.burst, now_s) for name, rule in rated}


class Bucket:
    """A token bucket on the monotonic clock: full at first, refilled at the rate, never above the burst. Safe from threads."""

    def __init__(self, rate: Rate, burst: int | None, now_s: float) -> None:
        self.per_second = rate.per_second
        self.burst = float(rate.number if burst is None else burst)
        self._tokens = self.burst
        self._filled_s = now_s
        self._turn = threading.Lock()

    def take(self, now_s: float) -> float:
        """Take one token and answer 0.0; without one, the seconds until there is one, and nothing is taken."""
        with self._turn:
            # Another thread may have read its clock later and be here before.
            self._tokens = min(self.burst, self._tokens + max(0.0, now_s - self._filled_s) * self.per_second)
            self._filled_s = max(now_s, self._filled_s)
            if self._tokens >= 1.0:
                self._tokens -= 1.0
                return 0.0
            return (1.0 - self._tokens) / self.per_second


class Gate:
    """Counts and questions of one effect of one worker. shared: its bucket, where other workers use it as well."""

    def __init__(self, policy: str, effect: str, rule: Rule, shared: Bucket | None = None) -> None:
        self._policy = policy
        self._effect = effect
        self._rule = rule
        self._bucket = shared
        self._who = "the worker asks" if shared is None else "the plugin, over all its calls, asks"
        if rule.rate is not None and shared is None:
            self._bucket = Bucket(parse_rate(rule.rate), rule.burst, time.monotonic())
        self._used_bytes = 0
        self._ask = rule.ask
        self._refused = False

    def begin_command(self) -> None:
        """Start what is counted per command afresh; the rate and a standing `always` go on."""
        self._used_bytes = 0
        self._refused = False

    def admit(self, effect: Effect, context: Context) -> None:
        """Let the effect through, or raise EffectDenied saying which count has no room, or who said no."""
        if self._rule.max_total_bytes is not None:
            count = values.pack(effect).total_bytes
            if self._used_bytes + count > self._rule.max_total_bytes:
                raise self._over(count, "its arguments")
            self._used_bytes += count
        if self._bucket is not None and (wait_s := self._bucket.take(time.monotonic())) > 0.0:
            rate, number, unit = self._rule.rate, *parse_rate(self._rule.rate)
            rule = f"{self._who} more often than {rate} with a burst of {self._bucket.burst:g}; next in {wait_s:.3g} s"
            more = min(number * 2, MAX_COUNT)
            raise self._denied(rule, f'rate = "{more}/{unit}"' if more > number else f"burst = {MAX_COUNT}")
        if self._ask:
            self._put(effect, context)

    def settle(self, result: Any) -> None:
        """Count the answer. Raises EffectDenied when it does not fit: the effect was performed, its answer is withheld."""
        budget = self._rule.max_total_bytes
        if budget is None:
            return
        try:
            count = values.pack(result).total_bytes
        except EncodeError:
            return  # whoever sends it says so
        if self._used_bytes + count > budget:
            refusal = self._over(count, "it was performed, but its answer")
            self._used_bytes = budget  # the next one is not performed for nothing
            raise refusal
        self._used_bytes += count

    def _over(self, count: int, what: str) -> EffectDenied:
        total, budget = self._used_bytes + count, self._rule.max_total_bytes
        rule = f"{what} of {count:,} bytes would bring the command to {total:,}, over max_total_bytes = {budget:,}"
        return self._denied(rule, f'max_total_bytes = "{bytes_text(total)}"')

    def _put(self, effect: Effect, context: Context) -> None:
        if self._refused:
            raise self._denied("ask = true, and the answer to an earlier question of this command was no", "ask = false")
        deadline = min(context.deadline, time.monotonic() + asking.ANSWER_S)
        question = asking.Question(context.worker, self._policy, effect, asked_text(effect), deadline)
        answer, why = asking.put(question, context.cancelled)
        if answer is asking.Answer.NO:
            self._refused = True
            raise self._denied(f"ask = true, and {why}", "ask = false")
        if answer is asking.Answer.ALWAYS:
            self._ask = False

    def _denied(self, rule: str, line: str) -> EffectDenied:
        return EffectDenied(self._effect, None, rule, self._policy, f"effects.{self._effect}.{line}")
