"""Whether audit files are whole: every line read, every hash computed again. Nothing is written.

Files are put in order by the number in their first line. What cannot be seen from the files alone: lines cut off at the
end, and whole files before the first that was given; `expect` finds the former, `first_seq` tells the latter.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fxcell.host.audit.chain import GENESIS, AuditError, digest, split

_LINE_BYTES_MAX = 2**20


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
    Raises: AuditError - a file cannot be read, or the log is keyed and no key was given.
    """
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
        if expect is not None and not hmac.compare_digest(expect.strip().lower(), chain.head.decode()):
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
        if torn_before is not None:
            vouched = record.get("torn_bytes"), record.get("torn_sha256")
            if vouched != (len(torn_before), hashlib.sha256(torn_before).hexdigest()):
                raise _Broken("the line before it is no record, and this one does not vouch for it")
            self.torn = None
        if first and not self.records and record.get("event") == "opened":
            self.head, self.seq = str(record.get("prev")).encode(), record["seq"] - 1
            self.first_seq = record["seq"]
        if (first or not self.records) and record.get("event") != "opened":
            raise _Broken("the file does not begin with an `opened` line: lines before it were removed")
        if record["seq"] != self.seq + 1:
            raise _Broken(
                f"record {record['seq']} stands where record {self.seq + 1} is next: lines were removed, added or moved"
            )
        if record.get("event") == "opened":
            self._check_opened(record)
        if not hmac.compare_digest(digest(self.head, found[0], self._key), found[1]):
            raise _Broken(
                f"its hash is not that of the record before it and its own text: record {record['seq']} or one before was changed"
            )
        self.head, self.seq = found[1], record["seq"]
        self.records += 1
        if record.get("event") == "lost":
            self.lost += record["count"]

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
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or type(record.get("seq")) is not int:
        raise _Broken("it is not a record")
    return record


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
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(_LINE_BYTES_MAX):
                number += 1
                yield number, line
    except OSError as error:
        raise AuditError(f"the audit log {path!r} cannot be read: {error.strerror}") from error
