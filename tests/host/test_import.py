"""`import fxcell` alone is cheap: names, and what they need, are loaded when they are first used."""

import subprocess
import sys

_PROGRAM = """
import sys
before = set(sys.modules)
import fxcell
loaded = set(sys.modules) - before
print(*sorted(name for name in loaded if name.startswith("fxcell.")))
print(*sorted(loaded & {"asyncio", "capnp", "cloudpickle", "httpx", "logging", "msgspec", "numpy", "psutil", "ssl", "subprocess"}))
"""


def test_import_loads_no_module_of_ours_and_no_library():
    done = subprocess.run([sys.executable, "-I", "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
