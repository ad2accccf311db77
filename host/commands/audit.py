"""`fxcell audit verify` and `fxcell audit head`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from fxcell.host.audit.chain import AuditError, read_key
from fxcell.host.audit.verify import verify
from fxcell.host.commands import exits
from fxcell.host.effects.basic import visible

_BROKEN = 1


def verify_files(files: Sequence[str], *, expect: str | None, key_file: str | None, as_json: bool) -> int:
    """Print whether the files are whole; answer 0, 1 where they are not, 2 where they cannot be read."""
    try:
        report = verify(files, expect=expect, key=read_key(key_file) if key_file else None)
    except AuditError as error:
        print(f"fxcell: {visible(str(error))}", file=sys.stderr)
        return exits.USAGE
    if as_json:
        print(json.dumps(report.to_dict()))
    elif not report.whole:
        print(visible(f"broken: {report.file}, line {report.line}: {report.why}"))
    else:
        print(f"whole: {report.records} records, {report.first_seq} to {report.first_seq + report.records - 1}")
        if report.first_seq > 1:
            print(f"records 1 to {report.first_seq - 1} are in earlier files, which were not given")
        if report.lost:
            print(f"the host says that it could not keep {report.lost} records")
        print(f"{'keyed' if report.keyed else 'not keyed'}, head {report.head}")
    return exits.VALUE if report.whole else _BROKEN


def print_head(file: str, *, key_file: str | None) -> int:
    """Print the hash of the last line of a whole file; exit codes as verify_files."""
    try:
        report = verify([file], key=read_key(key_file) if key_file else None)
    except AuditError as error:
        print(f"fxcell: {visible(str(error))}", file=sys.stderr)
        return exits.USAGE
    if not report.whole:
        print(visible(f"fxcell: broken: {report.file}, line {report.line}: {report.why}"), file=sys.stderr)
        return _BROKEN
    print(report.head)
    return exits.VALUE
