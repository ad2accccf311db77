"""Quotas of WriteFile, counted on disk, among workers and hosts; and what a host that is killed leaves behind."""

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fxcell.host.effects import drafts, usage, writing
from fxcell.policies.builtin import DeleteFile, ListDirectory, ReadFile, WriteFile
from fxcell.policies.errors import EffectDenied, EffectFailed
from tests.host.granted import Place
from tests.programs.writing_host import RULE, SIZE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path.resolve())


def write(place, name, size=10, mode="replace"):
    return WriteFile(path=place.path(name), content=b"x" * size, mode=mode)


@contextlib.contextmanager
def writing_host(place, job, drafts_are="unnamed", *numbers):
    command = [sys.executable, "-m", "tests.programs.writing_host", str(place.root), job, drafts_are, *map(str, numbers)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as host:
        try:
            assert host.stdout.readline() == "ready\n"
            yield host
        finally:
            host.kill()


# --- one writer


def test_bytes_of_the_directory_are_bounded_by_what_is_on_disk(place):
    place.ruled(max_bytes=60, quota_bytes=100)
    (place.root / "of others").write_bytes(b"x" * 50)
    assert place.kind_of(write(place, "a", 50)) == "done"
    assert place.kind_of(write(place, "b", 1)) == "quota"
    assert place.kind_of(write(place, "b", 0)) == "done"
    assert place.kind_of(write(place, "b", 1, "append")) == "quota"
    (place.root / "of others").unlink()
    assert place.kind_of(write(place, "b", 50, "append")) == "done"


def test_replaced_bytes_are_given_back(place):
    place.ruled(max_bytes=100, quota_bytes=100)
    for size in (100, 100, 1, 100):
        assert place.kind_of(write(place, "a", size)) == "done"
    assert place.kind_of(write(place, "b", 1)) == "quota"
    place.perform(DeleteFile(path=place.path("a")))
    assert place.kind_of(write(place, "b", 100)) == "done"


def test_number_of_files_is_bounded_whoever_made_them(place):
    place.ruled(max_files=4)
    (place.root / "d").mkdir()
    (place.root / "d" / "link").symlink_to("nowhere")
    for name in ("a", "b"):
        assert place.kind_of(write(place, name)) == "done"
    assert place.kind_of(write(place, "c")) == "quota"
    assert place.kind_of(write(place, "d/c")) == "quota"
    assert place.kind_of(write(place, "b", 20)) == "done"
    assert place.left() == ["a", "b", "d"]


def test_many_small_files_end_at_the_quota(place):
    place.ruled(max_files=50)
    kinds = [place.kind_of(write(place, f"f{number}", 0)) for number in range(80)]
    assert kinds == ["done"] * 50 + ["quota"] * 30


def test_control_many_small_files_without_the_quota_are_all_there(place):
    for number in range(80):
        (place.root / f"f{number}").touch()
    assert len(place.left()) == 80


def test_counting_stops_soon_above_the_quota(place):
    for number in range(300):
        (place.root / f"f{number}").touch()
    root = os.open(place.root, os.O_RDONLY)
    try:
        assert usage.measure(root, 100, Still()).files == 101
        assert usage.measure(root, 1000, Still()).files == 300
    finally:
        os.close(root)


class Still:
    """A pace without an end."""

    effect = "WriteFile"

    def check(self):
        pass


def test_append_over_the_size_of_one_file_is_too_large(place):
    place.ruled(max_bytes=100, quota_bytes=1000)
    place.perform(write(place, "a", 60))
    assert place.kind_of(write(place, "a", 41, "append")) == "too_large"
    assert place.kind_of(write(place, "a", 40, "append")) == "done"


def test_quota_names_its_key_and_not_what_the_directory_holds(place):
    place.ruled(max_bytes=100, quota_bytes=100)
    (place.root / "private name").write_bytes(b"x" * 77)
    with pytest.raises(EffectFailed, match=r"more than effects.WriteFile.quota_bytes = 100") as failed:
        place.perform(write(place, "a", 50))
    assert "private" not in str(failed.value)
    assert "77" not in str(failed.value)


def test_directory_below_that_cannot_be_read_stops_writing(place):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (place.root / "closed").mkdir(mode=0)
    try:
        assert place.kind_of(write(place, "a")) == "unmeasurable"
    finally:
        (place.root / "closed").chmod(0o755)


# --- several writers


def test_second_writer_waits_until_the_first_has_written_what_it_counted(place, monkeypatch):
    place.ruled(max_files=1)
    counted, go_on = threading.Event(), threading.Event()
    measured = usage.measure

    def slow(*arguments):
        found = measured(*arguments)
        counted.set()
        assert go_on.wait(60)
        return found

    monkeypatch.setattr(writing, "measure", slow)
    first = threading.Thread(target=place.kind_of, args=(write(place, "a"),))
    first.start()
    try:
        assert counted.wait(60)
        assert place.kind_of(write(place, "b"), seconds=0.2) == "timeout"
    finally:
        go_on.set()
        first.join()
    assert place.kind_of(write(place, "b")) == "quota"
    assert place.left() == ["a"]


def test_control_without_the_lock_two_writers_both_have_the_last_of_the_quota(place, monkeypatch):
    place.ruled(max_files=1)
    both = threading.Barrier(2)
    measured = usage.measure

    def together(*arguments):
        found = measured(*arguments)
        both.wait(60)
        return found

    monkeypatch.setattr(writing, "measure", together)
    monkeypatch.setattr(writing, "alone", lambda *_: contextlib.nullcontext())
    writers = [threading.Thread(target=place.kind_of, args=(write(place, name),)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert place.left() == ["a", "b"]


@pytest.mark.parametrize(("size", "most"), [(10, RULE["max_files"]), (300_000, RULE["quota_bytes"] // 300_000)])
def test_hosts_that_write_at_once_never_exceed_the_quota_together(place, size, most):
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(writing_host(place, "many", "unnamed", 15, size)) for _ in range(3)]
        for host in hosts:
            host.stdin.write("go\n")
            host.stdin.flush()
        written = [int(host.stdout.readline()) for host in hosts]
    assert sum(written) == len(place.left()) == most


# --- hosts that are killed


@pytest.mark.slow
@pytest.mark.parametrize("drafts_are", ["unnamed", "named"])
def test_host_that_is_killed_leaves_the_old_file_or_the_new_one_and_its_draft_is_swept(place, drafts_are):
    for writes in (0, 1, 2, 3, 5, 8):
        with writing_host(place, "replace", drafts_are) as host:
            for _ in range(writes):
                host.stdout.readline()
            host.kill()
            host.wait()
        if (place.root / "a").exists():
            content = (place.root / "a").read_bytes()
            assert content in (b"A" * SIZE, b"B" * SIZE)
        else:
            assert writes == 0
        found = [name for name in place.left() if name not in ("a", "b")]
        assert len(found) <= 1
        assert all(re.fullmatch(r"\.fxcell-[0-9a-f]{32}", name) for name in found)
        listed = [entry["name"] for entry in place.perform(ListDirectory(path=str(place.root)))]
        assert set(listed) <= {"a", "b"}
        place.perform(write(place, "b", 1))
        assert set(place.left()) <= {"a", "b"}


@pytest.mark.slow
def test_host_that_is_killed_loses_no_acknowledged_append(place):
    acknowledged = 0
    for lines in (1, 3, 9, 20):
        before = (place.root / "a").read_bytes().count(b"\n") if acknowledged else 0
        with writing_host(place, "append") as host:
            for _ in range(lines):
                acknowledged = before + int(host.stdout.readline())
            host.kill()
            host.wait()
        assert (place.root / "a").read_bytes().count(b"\n") >= acknowledged


def test_draft_of_a_dead_host_is_swept_and_does_not_count(place):
    place.ruled(max_files=1)
    (place.root / f".fxcell-{'0' * 32}").write_bytes(b"x" * 1000)
    assert place.kind_of(write(place, "a")) == "done"
    assert place.left() == ["a"]


def test_draft_of_a_living_host_is_neither_swept_nor_shown_and_counts(place):
    place.ruled(max_files=2)
    name = f".fxcell-{'0' * 32}"
    with open(place.root / name, "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert place.kind_of(write(place, "a")) == "done"
        assert place.kind_of(write(place, "b")) == "quota"
        assert place.left() == [name, "a"]
        assert [entry["name"] for entry in place.perform(ListDirectory(path=str(place.root)))] == ["a"]


def test_no_effect_names_a_draft(place):
    place.ruled(hidden=True)
    name = f".fxcell-{'0' * 32}"
    (place.root / name).write_bytes(b"half")
    for effect in (write(place, name), DeleteFile(path=place.path(name)), ReadFile(path=place.path(name))):
        with pytest.raises(EffectDenied, match="the host's own"):
            place.perform(effect)
    assert (place.root / name).read_bytes() == b"half"


def test_special_files_and_directories_with_a_drafts_name_are_not_swept(place):
    (place.root / f".fxcell-{'1' * 32}").mkdir()
    (place.root / f".fxcell-{'2' * 32}").symlink_to("../outside/secret")
    os.mkfifo(place.root / f".fxcell-{'3' * 32}")
    before = place.left()
    assert place.kind_of(write(place, "a"), seconds=20) == "done"
    assert place.left() == sorted([*before, "a"])
    assert place.secret_is_untouched()


def test_names_of_drafts_cannot_be_guessed():
    names = {drafts._fresh_name() for _ in range(100)}
    assert len(names) == 100
    assert all(usage.DRAFT_NAME.fullmatch(name) for name in names)
