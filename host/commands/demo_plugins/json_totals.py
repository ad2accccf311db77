"""Honest: sums of JSON records, with the standard library's json, zlib and hashlib."""

from __future__ import annotations

import hashlib
import json
import zlib


def main(packed: bytes) -> dict[str, object]:
    """Sum what each customer paid; `packed` is zlib-compressed JSON."""
    raw = zlib.decompress(packed)
    totals: dict[str, int] = {}
    for record in json.loads(raw):
        totals[record["customer"]] = totals.get(record["customer"], 0) + record["cents"]
    return {"totals": totals, "sha256": hashlib.sha256(raw).hexdigest()[:8]}
