"""Where each key of a TOML document stands, which tomllib does not tell.

Only for documents that tomllib has accepted: this scanner finds keys and skips values, it checks nothing.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping

Path = tuple[str, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BASIC = re.compile(r'"((?:[^"\\]|\\.)*)"')
_LITERAL = re.compile(r"'([^']*)'")
_LONG_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL)
_PLAIN_VALUE = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> Mapping[Path, int]:
    """Path of each key and table -> its 1-based line, the first one where a path occurs again.

    Raises: RecursionError - values nested deeper than the interpreter's limit.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.found


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        self.newlines = [match.start() for match in re.finditer("\n", text)]

    def document(self) -> None:
        prefix: Path = ()
        while self.skip(_BLANK) < len(self.text):
            if self.text[self.at] != "[":
                self.entry(prefix)
                continue
            line = self.line()
            self.at += 2 if self.text.startswith("[[", self.at) else 1
            prefix = self.key(())
            self.note(prefix, line)
            self.at = self.text.find("]", self.at) + 1
            self.at += self.text.startswith("]", self.at)

    def entry(self, prefix: Path) -> None:
        line = self.line()
        path = self.key(prefix)
        self.note(path, line)
        self.at += 1  # the "="
        self.value(path)

    def key(self, prefix: Path) -> Path:
        """Read a key with its dots; stops behind it and its blanks."""
        while True:
            self.skip(_SPACE)
            quoted = _BASIC.match(self.text, self.at) or _LITERAL.match(self.text, self.at)
            bare = quoted or _BARE.match(self.text, self.at)
            if bare is None:
                raise ValueError(f"no key in line {self.line()}")
            prefix = (*prefix, quoted[1] if quoted else bare[0])
            self.at = bare.end()
            if self.skip(_SPACE) >= len(self.text) or self.text[self.at] != ".":
                return prefix
            self.at += 1

    def value(self, path: Path) -> None:
        self.skip(_SPACE)
        first = self.text[self.at]
        if first == "{":
            self.at += 1
            while self.text[self.skip(_BLANK)] != "}":
                self.entry(path)
            self.at += 1
        elif first == "[":
            self.at += 1
            while self.text[self.skip(_BLANK)] != "]":
                self.value(path)
            self.at += 1
        else:
            for pattern in (_LONG_BASIC, _LONG_LITERAL, _BASIC, _LITERAL, _PLAIN_VALUE):
                match = pattern.match(self.text, self.at)
                if match:
                    self.at = match.end()
                    return

    def skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at

    def line(self) -> int:
        return bisect.bisect_left(self.newlines, self.at) + 1

    def note(self, path: Path, line: int) -> None:
        for length in range(1, len(path) + 1):
            self.found.setdefault(path[:length], line)
