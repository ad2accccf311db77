"""One file for each line of the design's table of limits: measure(effort) gives its rows. `audit` is beside that table.

NAMES is the order of the table.
"""

NAMES = (
    "call", "call_pinned", "effect", "start", "fresh", "crash", "map", "large", "cpu", "inside", "memory", "imports",
    "audit",
)  # fmt: skip
