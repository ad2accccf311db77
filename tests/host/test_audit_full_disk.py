"""The audit log when the disk takes no more: effects are denied, or performed and counted as missing, and the log stays whole.

Each host is a process of its own: the limit that stands for a full disk would hit the file that pytest writes to as well.
"""

import subprocess
import sys

import pytest

HOST = [sys.executable, "-m", "tests.programs.full_disk_host"]


def happens(story, folder, wrap=()):
    """A host of its own goes through a story of tests/programs/full_disk_host.py, and says nothing against it."""
    host = subprocess.run(
        [*wrap, *HOST, story, str(folder)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert host.returncode == 0, host.stderr[-2000:]


def test_full_disk_denies_effects_and_they_are_granted_again_when_there_is_room(tmp_path):
    happens("denied_until_there_is_room", tmp_path)


def test_full_disk_with_drop_performs_and_counts_what_is_missing(tmp_path):
    happens("dropped_and_counted", tmp_path)


def test_lost_line_says_how_many_are_missing(tmp_path):
    happens("lost_line_counts_them", tmp_path)


def test_line_that_the_disk_did_not_take_is_no_torn_line_for_who_verifies_at_that_moment(tmp_path):
    happens("verified_while_writes_fail", tmp_path)


@pytest.mark.needs_root
def test_full_file_system_denies_effects_until_there_is_room(tmp_path):
    mounted = f'mount -t tmpfs -o size=64k fxcell-full {tmp_path} && exec "$@"'
    happens("full", tmp_path, wrap=["unshare", "-m", "sh", "-c", mounted, "sh"])
