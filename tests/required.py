"""Which skips are failures where everything must be there: FXCELL_REQUIRE=full, as .ci/run sets it.

A test that is skipped because the kernel lacks a layer proves nothing; in CI that must not look like success. Other skips
stay skips, each with its reason (pytest -rs): socket families this Python does not know, another architecture, a compiler
or library that is not installed, and what only root or only an ordinary user can try.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

VARIABLE = "FXCELL_REQUIRE"
_LAYERS = re.compile(r"namespace|landlock|seccomp|user notification|\btier\b", re.IGNORECASE)
_GROUPS = re.compile(r"cgroup", re.IGNORECASE)

_PROGRAM = """
import json
from fxcell.host import cgroups
from fxcell.sandbox import probe
found = probe.look()
print(json.dumps({"namespaces": found.namespaces_error, "landlock": found.landlock_abi, "seccomp": found.seccomp_notify,
                  "cgroups": sorted(cgroups.places())}))
"""


def everything() -> bool:
    """True where a missing feature of the kernel is a failure."""
    return os.environ.get(VARIABLE) == "full"


def is_failure(reason: str, uid: int) -> bool:
    """True when a skip with this reason means that a required feature is missing. Only root must have cgroups."""
    return bool(_LAYERS.search(reason)) or (uid == 0 and bool(_GROUPS.search(reason)))


def missing() -> list[str]:
    """The required features that this machine lacks for this user, in words."""
    # In a process of its own: looking can move it into another cgroup.
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    lacks = [f"namespaces: {found['namespaces']}"] if found["namespaces"] else []
    lacks += [] if found["landlock"] else ["Landlock"]
    lacks += [] if found["seccomp"] else ["seccomp with user notification"]
    if os.geteuid() == 0:
        lacks += [f"a {name} cgroup for root" for name in ("memory", "pids") if name not in found["cgroups"]]
    return lacks
