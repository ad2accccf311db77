"""What a worker prints: counted, kept as a tail for the evidence, and shown where the policy grants FX.Print."""

from __future__ import annotations

import sys

from fxcell.host.effects.basic import visible
from fxcell.policies.errors import EffectDenied
from fxcell.policies.policy import Policy
from fxcell.policies.toml_text import bytes_text

_TAIL_BYTES = 8 * 1024


class Outputs:
    """The two streams of one worker. print() is FX.Print by another spelling: without that grant nothing is shown.

    told_bytes: of FX.Print and FX.Log, in this command.
    """

    def __init__(self, policy: Policy) -> None:
        self._shown = "Print" in policy.effects
        self._policy = policy
        self._left_bytes = policy.limits.output_bytes
        self.told_bytes = 0
        self._tails = {1: b"", 2: b""}
        self._partial = {1: bytearray(), 2: bytearray()}

    def add(self, stream: int, data: bytes) -> bool:
        """Take a chunk; False when the worker has now written more than it may."""
        number = 2 if stream == 2 else 1
        self._left_bytes -= len(data)
        self._tails[number] = (self._tails[number] + data)[-_TAIL_BYTES:]
        if self._left_bytes < 0:
            return False
        if self._shown:
            *lines, rest = data.split(b"\n")
            for line in lines:
                self._partial[number] += line
                self.end_line(number)
            self._partial[number] += rest
        return True

    def end_line(self, number: int) -> None:
        """Show what was printed of a line, if anything or a line end came."""
        line = self._partial[number]
        self._partial[number] = bytearray()
        _write(line.decode("utf-8", "backslashreplace"), number)

    def end_command(self) -> None:
        """Show lines that were begun and not ended: the next command's output is not theirs."""
        for number, line in self._partial.items():
            if line:
                self.end_line(number)

    def begin_command(self) -> None:
        """FX.Print and FX.Log have their whole budget again: a worker that serves for long logs for long."""
        self.told_bytes = 0

    def spend(self, effect: str, count: int) -> None:
        """Count bytes of FX.Print or FX.Log. Raises EffectDenied, and counts nothing, where they would be over limits.output."""
        limit = self._policy.limits.output_bytes
        if self.told_bytes + count > limit:
            rule = f"the command has used up limits.output = {bytes_text(limit)} by FX.Print and FX.Log"
            suggestion = f'limits.output = "{bytes_text(max(limit, count) * 2)}"'
            raise EffectDenied(effect, None, rule, self._policy.name, suggestion)
        self.told_bytes += count

    def line(self, text: str) -> None:
        """One line of FX.Print, escaped already."""
        _write(text, 1)

    def tail(self, stream: int) -> str:
        """The last of what came, as text."""
        return self._tails[stream].decode("utf-8", "backslashreplace")


def _write(text: str, stream: int) -> None:
    target = sys.stderr if stream == 2 else sys.stdout
    try:
        target.write(visible(text) + "\n")
        target.flush()
    except (OSError, ValueError, AttributeError, UnicodeError):
        pass  # the host's own stream is closed or cannot show it: no reason to fail a plugin
