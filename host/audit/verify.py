"""Whether audit files are whole: every line read, every hash computed again. Nothing is written.

Files are put in order by the number in their first line. What cannot be seen from the files alone: lines cut off at the
end, and whole files before the first that was given; `expect` finds the former, `first_seq` tells the latter.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fxcell.host.audit.chain import GENESIS, AuditError, digest, split
from fxcell.policies.names import short

_LINE_BYTES_MAX = 2**20
_NUMBER_MAX = 2**63
_SETTLE_S = 0.3
"""For so long a torn end is looked at again: a write(2) of the host that still writes is seen in parts."""
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    whole: True if nothing is wrong.    file, line, why: the first thing that is wrong, or None.
    records: lines that are right.      first_seq: number of the first line: above 1, earlier files were not given.
    head: hash of the last right line.  keyed: whether it needs the key to compute.
    lost: records that the host itself said it could not keep.
    """

    whole: bool
    records: int
    first_seq: int
    head: str
    keyed: bool
    lost: int
    file: str | None = None
    line: int | None = None
    why: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Broken(Exception):
    pass


def verify(paths: Sequence[str], *, expect: str | None = None, key: bytes | None = None) -> Report:
    """Read audit files and say whether they are whole.

    expect: the hash that the last line must have, as `head` said it.
    Raises: AuditError - a file cannot be read, `expect` is no hash, or the log is keyed and no key was given.
    """
    if expect is not None:
        expect = expect.strip().lower()
        if not _HASH.fullmatch(expect):
            raise AuditError(f"the expected hash must be 64 hex digits, as `fxcell audit head` says it, not {short(expect)}")
    chain = _Chain(key)
    path, number = "", 0
    try:
        for path in _in_order(paths):
            number = 0
            chain.torn = None
            first = True
            for number, line in _lines(path):  # noqa: B007
                chain.take(line, first=first)
                first = False
            if first:
                number = 1
                raise _Broken("the file is empty: it was cut, or its host was killed before the first line")
            if chain.torn is not None:
                raise _Broken(
                    f"the last line is torn after {len(chain.torn)} bytes: it was cut, or its host was killed"
                )
        if expect is not None and not hmac.compare_digest(expect, chain.head.decode()):
            raise _Broken(
                f"the log ends in hash {chain.head.decode()}, not in the expected one: lines after it were removed"
            )
    except _Broken as broken:
        return chain.report(path, number, str(broken))
    return chain.report()


class _Chain:
    def __init__(self, key: bytes | None) -> None:
        self._key = key
        self.head, self.seq = GENESIS, 0
        self.first_seq = self.records = self.lost = 0
        self.torn: bytes | None = None

    def take(self, line: bytes, *, first: bool) -> None:
        torn_before = self.torn
        found = split(line[:-1]) if line.endswith(b"\n") else None
        if torn_before is None and found is None:
            self.torn = line.removesuffix(b"\n")  # right only if the next line vouches for it
            return
        if found is None:
            raise _Broken("it does not end in a hash")
        record = _record(found[0])
        if torn_before is None and record.get("event") == "opened" and "torn_bytes" in record:
            raise _Broken("it vouches for a torn line before it, which is not there: it was removed")
        if torn_before is not None:
            vouched = record.get("torn_bytes"), record.get("torn_sha256")
            if vouched != (len(torn_before), hashlib.sha256(torn_before).hexdigest()):
                raise _Broken("the line before it is no record, and this one does not vouch for it")
            self.torn = None
        if first and not self.records and record.get("event") == "opened":
            self.head, self.seq = _hash_before(record), record["seq"] - 1
            self.first_seq = record["seq"]
        if (first or not self.records) and record.get("event") != "opened":
            raise _Broken("the file does not begin with an `opened` line: lines before it were removed")
        if record["seq"] != self.seq + 1:
            raise _Broken(
                f"record {record['seq']} stands where record {self.seq + 1} is next: lines were removed, added or moved"
            )
        if record.get("event") == "opened":
            self._check_opened(record)
        lost = _number(record, "count") if record.get("event") == "lost" else 0
        if not hmac.compare_digest(digest(self.head, found[0], self._key), found[1]):
            raise _Broken(
                f"its hash is not that of the record before it and its own text: record {record['seq']} or one before was changed"
            )
        self.head, self.seq = found[1], record["seq"]
        self.records += 1
        self.lost += lost

    def _check_opened(self, record: dict[str, Any]) -> None:
        if record.get("keyed") and self._key is None:
            raise AuditError("this audit log is keyed: give the key file with --key")
        if not record.get("keyed") and self._key is not None:
            raise _Broken("a key was given, and this part of the log is not keyed: anyone could have written it")
        if record.get("prev") != self.head.decode():
            raise _Broken(
                "it names another hash before it than the one that is there: lines or a file were removed or changed"
            )

    def report(self, file: str | None = None, line: int | None = None, why: str | None = None) -> Report:
        head, keyed = self.head.decode(errors="replace"), self._key is not None
        return Report(why is None, self.records, self.first_seq, head, keyed, self.lost, file, line, why)


def _record(body: bytes) -> dict[str, Any]:
    """The record in a line without its hash. What two readers could read as two different records is none."""
    try:
        record = json.loads(body.decode(), object_pairs_hook=_once_each)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise _Broken("it is not a record")
    if "hash" in record:
        raise _Broken("it holds the key 'hash' twice")
    _number(record, "seq")
    return record


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise _Broken(f"it holds the key {short(key)} twice")
        table[key] = value
    return table


def _number(record: dict[str, Any], key: str) -> int:
    number = record.get(key)
    if type(number) is not int or not 1 <= number < _NUMBER_MAX:
        raise _Broken(f"it is not a record: {key!r} must be a whole number from 1, below 2 to the power of 63")
    return number


def _hash_before(record: dict[str, Any]) -> bytes:
    prev = record.get("prev")
    if type(prev) is not str or not _HASH.fullmatch(prev):
        raise _Broken("it is not a record: 'prev' must be 64 hex digits")
    return prev.encode()


def _in_order(paths: Sequence[str]) -> list[str]:
    def number(path: str) -> int:
        for _, line in _lines(path):
            found = split(line.removesuffix(b"\n"))
            try:
                return int(_record(found[0])["seq"]) if found else 2**63
            except _Broken:
                return 2**63
        return 2**63

    return sorted(paths, key=number)


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    number = start = 0
    give_up = None
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as raw:
            if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
                raise AuditError(f"the audit log {path!r} is not a regular file")
            file = io.BufferedReader(raw)
            while line := file.readline(_LINE_BYTES_MAX):
                if not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
                    give_up = give_up or time.monotonic() + _SETTLE_S
                    if _goes_on(raw.fileno(), start, line, give_up):
                        file.detach()
                        raw.seek(start)
                        file = io.BufferedReader(raw)  # the old one would answer from its buffer
                        continue
                number, start = number + 1, start + len(line)
                yield number, line
    except OSError as error:
        raise AuditError(f"the audit log {path!r} cannot be read: {error.strerror}") from error


def _goes_on(descriptor: int, start: int, torn: bytes, give_up: float) -> bool:
    """Whether a torn end was only a living host's write seen half done, or one that the disk did not take, taken back."""
    while os.pread(descriptor, len(torn) + 1, start) == torn:
        if time.monotonic() > give_up:
            return False
        time.sleep(0.002)
    return True
