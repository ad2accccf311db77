"""WriteFile and DeleteFile: what they do where they are granted, and what each failure leaves behind: nothing."""

import errno
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from fxcell.host.broker import Context, perform_locally
from fxcell.host.effects import drafts, usage
from fxcell.policies.builtin import DeleteFile, WriteFile
from fxcell.policies.errors import EffectDenied, EffectFailed
from tests.host.granted import Place, remove_tree

MODES = ("create", "replace", "append")


@pytest.fixture(params=["unnamed drafts", "named drafts"])
def place(request, tmp_path, monkeypatch):
    """Both ways of writing: with O_TMPFILE, and as on file systems that lack it."""
    if request.param == "named drafts":
        monkeypatch.setattr(drafts, "_unnamed", lambda _directory: None)
    return Place(tmp_path.resolve())


@pytest.fixture
def umask():
    """Sets the process's umask and puts it back."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def write(place, name, content=b"new", mode="replace"):
    return WriteFile(path=place.path(name), content=content, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_file_that_is_not_there_is_made_by_every_mode(place, mode):
    assert place.perform(write(place, "a", b"x\0\xff", mode)) is None
    assert (place.root / "a").read_bytes() == b"x\0\xff"
    assert place.left() == ["a"]


def test_create_leaves_a_file_that_is_there_as_it_is(place):
    (place.root / "a").write_bytes(b"old")
    assert place.kind_of(write(place, "a", mode="create")) == "exists"
    assert (place.root / "a").read_bytes() == b"old"
    assert place.left() == ["a"]


def test_replace_gives_the_name_to_a_new_file_and_an_open_reader_keeps_the_old_one(place):
    (place.root / "a").write_bytes(b"old content")
    with open(place.root / "a", "rb") as reader:
        place.perform(write(place, "a"))
        assert reader.read() == b"old content"
    assert (place.root / "a").read_bytes() == b"new"
    assert place.left() == ["a"]


def test_append_adds_to_the_end_of_the_same_file(place):
    (place.root / "a").write_bytes(b"old ")
    inode = (place.root / "a").stat().st_ino
    place.perform(write(place, "a", mode="append"))
    place.perform(write(place, "a", b"", mode="append"))
    assert (place.root / "a").read_bytes() == b"old new"
    assert (place.root / "a").stat().st_ino == inode


def test_content_of_several_pieces_is_written_whole(place):
    content = os.urandom(3 * 2**20 + 7)
    place.perform(write(place, "a", content))
    assert (place.root / "a").read_bytes() == content


@pytest.mark.parametrize(("mask", "bits"), [(0o022, 0o644), (0o077, 0o600), (0, 0o644)], ids=oct)
@pytest.mark.parametrize("mode", MODES)
def test_new_file_is_never_executable_and_keeps_to_the_umask(place, umask, mask, bits, mode):
    umask(mask)
    place.perform(write(place, "a", b"#!/bin/sh\n", mode))
    assert stat.S_IMODE((place.root / "a").stat().st_mode) == bits


@pytest.mark.parametrize(("before", "after"), [(0o600, 0o600), (0o755, 0o644), (0o4755, 0o644), (0o666, 0o644)], ids=oct)
def test_replaced_file_never_gets_wider_rights_than_it_had(place, umask, before, after):
    umask(0o022)
    (place.root / "a").touch()
    (place.root / "a").chmod(before)
    place.perform(write(place, "a"))
    assert stat.S_IMODE((place.root / "a").stat().st_mode) == after


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_write_protected_file_stays_as_it_is_also_for_root(place, mode):
    (place.root / "a").write_bytes(b"old")
    (place.root / "a").chmod(0o444)
    assert place.kind_of(write(place, "a", mode=mode)) == "permission"
    assert (place.root / "a").read_bytes() == b"old"


def test_missing_parent_is_not_made_unless_the_rule_says_so(place):
    assert place.kind_of(write(place, "b/c/d")) == "not_found"
    assert place.left() == []
    place.ruled(create_parents=True).perform(write(place, "b/c/d"))
    assert (place.root / "b" / "c" / "d").read_bytes() == b"new"
    place.perform(write(place, "b/c/e"))
    assert sorted(os.listdir(place.root / "b" / "c")) == ["d", "e"]


def test_made_parents_keep_to_the_umask(place, umask):
    umask(0o027)
    place.ruled(create_parents=True).perform(write(place, "b/c"))
    assert stat.S_IMODE((place.root / "b").stat().st_mode) == 0o750


def test_file_as_parent_is_not_found(place):
    (place.root / "a").touch()
    assert place.ruled(create_parents=True).kind_of(write(place, "a/b")) == "not_found"


def test_directory_that_the_host_may_not_write_to_is_permission(place):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    place.root.chmod(0o555)
    try:
        assert place.kind_of(write(place, "a")) == "permission"
    finally:
        place.root.chmod(0o755)


@pytest.mark.parametrize("mode", MODES)
def test_disk_that_fills_up_in_mid_write_leaves_everything_as_it_was(place, monkeypatch, mode):
    if mode != "create":
        (place.root / "a").write_bytes(b"old")
    before = place.left()
    written = os.write

    def full_at_the_second_piece(descriptor, piece):
        if os.fstat(descriptor).st_size > 2**19 and stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(descriptor, piece)

    monkeypatch.setattr(os, "write", full_at_the_second_piece)
    assert place.kind_of(write(place, "a", b"x" * (3 * 2**20), mode)) == "no_space"
    assert place.left() == before
    assert mode == "create" or (place.root / "a").read_bytes() == b"old"


@pytest.mark.parametrize("mode", MODES)
def test_worker_that_dies_in_mid_write_leaves_everything_as_it_was(place, mode):
    if mode != "create":
        (place.root / "a").write_bytes(b"old")
    before, asked = place.left(), []

    def dead_after_two_questions(_seconds):
        asked.append(1)
        return len(asked) > 3

    context = Context("w1", place.policy, time.monotonic() + 30, dead_after_two_questions, print)
    from fxcell.host.effects.writing import perform_write_file

    with pytest.raises(EffectFailed) as failed:
        perform_write_file(write(place, "a", b"x" * (8 * 2**20), mode), context)
    assert failed.value.kind == "cancelled"
    assert place.left() == before
    assert mode == "create" or (place.root / "a").read_bytes() == b"old"


def test_delete_removes_one_file_and_says_when_there_is_none(place):
    (place.root / "a").touch()
    (place.root / "b").touch()
    assert place.perform(DeleteFile(path=place.path("a"))) is None
    assert place.left() == ["b"]
    for name in ("a", "c/d", "b/c"):
        assert place.kind_of(DeleteFile(path=place.path(name))) == "not_found"


def test_delete_never_removes_a_directory(place):
    (place.root / "d").mkdir()
    assert place.kind_of(DeleteFile(path=place.path("d"))) == "not_regular"
    assert place.left() == ["d"]


def test_effects_that_the_policy_lacks_are_denied(place):
    place.policy = place.policy.replaced(effects={"ReadFile": {"under": [str(place.root)]}})
    for effect in (write(place, "a"), DeleteFile(path=place.path("a"))):
        with pytest.raises(EffectDenied, match="not in its list"):
            place.perform(effect)
    assert place.left() == []


def test_host_writes_and_deletes_for_itself_where_it_likes(tmp_path, monkeypatch):
    def local(effect):
        return perform_locally(effect, Context("host", None, time.monotonic() + 30, threading.Event().wait, print))

    local(WriteFile(path=str(tmp_path / ".hidden"), content=b"x"))
    assert (tmp_path / ".hidden").read_bytes() == b"x"
    monkeypatch.chdir(tmp_path)
    local(WriteFile(path="a", content=b"y"))
    local(DeleteFile(path=str(tmp_path / ".hidden")))
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(EffectFailed, match="bad_request"):
        local(WriteFile(path=f"{tmp_path}/", content=b""))


def test_tmpfs_is_written_to_like_any_other(tmp_path):
    folder = Path(f"/dev/shm/fxcell-{os.getpid()}-writing-test")
    folder.mkdir()
    try:
        place = Place(tmp_path.resolve())
        place.root.rmdir()
        place.root.symlink_to(folder)  # the policy's author may grant a link; /dev itself can never be granted
        for mode in MODES:
            assert place.kind_of(write(place, f"{mode}d", mode=mode)) == "done"
        assert place.left() == ["appendd", "created", "replaced"]
        assert place.kind_of(DeleteFile(path=place.path("created"))) == "done"
    finally:
        remove_tree(folder)


def test_file_system_that_cannot_sync_a_directory_is_written_to_all_the_same(place, monkeypatch):
    synced = os.fsync

    def no_directories(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", no_directories)
    assert place.kind_of(write(place, "a")) == "done"
    assert place.kind_of(DeleteFile(path=place.path("a"))) == "done"


def test_file_system_without_locks_for_directories_is_refused_and_not_written_to(place, monkeypatch):
    def no_locks(_descriptor, _operation):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(usage.fcntl, "flock", no_locks)
    assert place.kind_of(write(place, "a")) == "unsupported"
    assert place.left() == []


def test_no_descriptor_and_no_lock_is_left_behind(place):
    (place.root / "link").symlink_to("a")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a", "link", "x/y", "a/b"):
        for mode in MODES:
            place.kind_of(write(place, name, mode=mode))
        place.kind_of(DeleteFile(path=place.path(name)))
    assert len(os.listdir("/proc/self/fd")) == before
    assert place.kind_of(write(place, "z"), seconds=5) == "done"


def test_texts_of_failures_name_only_what_the_plugin_gave(place):
    (place.root / "link").symlink_to("../outside/secret")
    (place.root / "d").mkdir()
    for name in ("link", "d", "x/y", "link/z"):
        for effect in (write(place, name), DeleteFile(path=place.path(name))):
            with pytest.raises(EffectFailed) as failed:
                place.perform(effect)
            assert "secret" not in str(failed.value)
            assert str(failed.value).count("/") == place.path(name).count("/")
