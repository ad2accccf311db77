"""Peers side by side, as ratios of one run: `make bench`, or `python -m benchmarks [row ...]`.

Each file measures one thing and its peers, interleaved so that noise hits all alike. Figures are medians; only ratios are
judged. Rows: call (round trip to a warm worker), start (a hardened worker),
audit (a record of the audit log).
"""
