"""The leak counter itself: each kind of thing that is left is seen and named, and what goes away is not."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import leaks


def test_clean_block_passes():
    with leaks.assert_nothing_left(), tempfile.NamedTemporaryFile(prefix="fxcell"):
        subprocess.run([sys.executable, "-c", ""], check=True)


def test_child_still_running_is_named():
    with pytest.raises(AssertionError, match="processes: pid"), leaks.assert_nothing_left(patience_s=0):
        child = subprocess.Popen(["sleep", "60"])
    child.kill()
    child.wait()


def test_child_that_is_on_its_way_out_is_waited_for():
    with leaks.assert_nothing_left():
        child = subprocess.Popen(["sleep", "0.1"])
    child.wait()


def test_process_that_forked_twice_into_its_own_session_is_named():
    reader, writer = os.pipe()
    script = (
        "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        f"os.write({writer}, b'x')\ntime.sleep(60)"
    )
    before = leaks.snapshot()
    with pytest.raises(AssertionError, match="processes: pid"), leaks.assert_nothing_left(patience_s=0.3):
        subprocess.run([sys.executable, "-c", script], check=True, pass_fds=[writer])
        assert os.read(reader, 1) == b"x"  # it is there
    os.close(reader)
    os.close(writer)
    stray = [pid for pid, _ in leaks.snapshot().processes.keys() - before.processes.keys()]
    for pid in stray:
        os.kill(pid, 9)
    assert not [line for line in leaks.wait_until_gone(before, 5) if line.startswith("processes")]


def test_open_descriptor_is_named():
    with pytest.raises(AssertionError, match=r"descriptors: \d+ -> pipe"), leaks.assert_nothing_left(patience_s=0):
        ends = os.pipe()
    for end in ends:
        os.close(end)


def test_file_in_the_temporary_folder_is_named():
    with pytest.raises(AssertionError, match=r"files: .*fxcell-left"), leaks.assert_nothing_left(patience_s=0):
        left = Path(tempfile.mkdtemp(prefix="fxcell-left-"))
    left.rmdir()


def test_file_of_another_live_host_is_not_ours():
    name = Path(tempfile.gettempdir(), "fxcell-1-of-another-host")
    name.mkdir()
    try:
        assert str(name) not in leaks.snapshot().files
    finally:
        name.rmdir()


@pytest.mark.needs_root
def test_mount_is_named(tmp_path):
    with pytest.raises(AssertionError, match=r"mounts: .*tmpfs"), leaks.assert_nothing_left(patience_s=0):
        subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    subprocess.run(["umount", tmp_path], check=True)
