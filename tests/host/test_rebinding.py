"""Names that lead elsewhere, with the system's own resolver and a real name server that lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent.parent / "programs" / "rebinding_host.py"


@pytest.mark.needs_root
def test_name_server_that_lies_leads_no_request_to_the_hosts_own_network(tmp_path):
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:5 attempts:1\n")
    command = ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, PROGRAM, tmp_path / "resolv.conf"]
    root = str(PROGRAM.parents[2])
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # Control: the name server and the server work where the policy says that the name may lead there.
    assert told.pop("granted.example") == [["done", "done"], 2, 2]
    # Looked up once for each request: the address that was judged is the one that is connected to, and it is not there.
    assert told.pop("rebinds.example") == [["connection", "refused_address"], 0, 2]
    for outcome, reached, _asked in told.values():
        assert outcome == ["refused_address", "refused_address"]
        assert reached == 0
    assert set(told) == {"mixed.example", "inner.example", "metadata.example", "zero.example"}
