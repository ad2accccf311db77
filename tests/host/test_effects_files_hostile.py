"""Links, races, special files and odd names under WriteFile, DeleteFile and ListDirectory.

Another process of the machine is the attacker here: a plugin can make none of this itself. Each attack is also made on a
host that writes by path, which it does get through to.
"""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import time
from collections import Counter

import pytest

from fxcell.host.effects import drafts
from fxcell.policies.builtin import DeleteFile, ListDirectory, ReadFile, WriteFile
from tests.host.granted import Place, remove_tree, swapping

MODES = ("create", "replace", "append")
PATIENCE_S = 60.0


@pytest.fixture(params=["unnamed drafts", "named drafts"])
def place(request, tmp_path, monkeypatch):
    if request.param == "named drafts":
        monkeypatch.setattr(drafts, "_unnamed", lambda _directory: None)
    yield Place(tmp_path.resolve())
    remove_tree(tmp_path)


def naive_write(path, content, mode):
    """What a host without care does."""
    with open(path, {"create": "xb", "replace": "wb", "append": "ab"}[mode]) as file:
        file.write(content)


def write(place, name, mode="replace"):
    return WriteFile(path=place.path(name), content=b"planted", mode=mode)


# --- links


@pytest.mark.parametrize("target", ["../outside/secret", "../outside/new", "a", "nothing", "/etc/passwd", "."])
@pytest.mark.parametrize("mode", MODES)
def test_symbolic_link_is_neither_followed_nor_replaced_nor_removed(place, target, mode):
    (place.root / "link").symlink_to(target)
    for effect in (write(place, "link", mode), DeleteFile(path=place.path("link"))):
        assert place.kind_of(effect) == "permission"
    assert os.readlink(place.root / "link") == target
    assert place.left() == ["link"]
    assert place.secret_is_untouched()


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_control_symbolic_link_leads_a_naive_host_to_the_secret(place, mode):
    (place.root / "link").symlink_to("../outside/secret")
    naive_write(place.root / "link", b"planted", mode)
    assert not place.secret_is_untouched()


def test_symbolic_link_on_the_way_is_not_followed(place):
    (place.root / "way").symlink_to("../outside")
    (place.root / "far").symlink_to(place.outside)
    for name in ("way/secret", "way/new", "far/secret", "far/b/c"):
        for mode in MODES:
            assert place.ruled(create_parents=True).kind_of(write(place, name, mode)) == "permission"
        assert place.kind_of(DeleteFile(path=place.path(name))) == "permission"
    for name in ("way", "far"):
        assert place.kind_of(ListDirectory(path=place.path(name))) == "permission"
    assert place.secret_is_untouched()
    naive_write(place.root / "way" / "new", b"planted", "create")  # control
    assert not place.secret_is_untouched()


def test_chain_of_a_hundred_links_is_not_followed(place):
    (place.root / "l0").symlink_to("../outside/secret")
    for number in range(1, 100):
        (place.root / f"l{number}").symlink_to(f"l{number - 1}")
    assert place.kind_of(write(place, "l99")) == "permission"
    assert place.kind_of(DeleteFile(path=place.path("l99"))) == "permission"
    assert place.secret_is_untouched()
    kinds = {entry["kind"] for entry in place.perform(ListDirectory(path=str(place.root)))}
    assert kinds == {"other"}


def test_hard_link_is_not_appended_to_and_replaced_without_touching_the_other_name(place):
    os.link(place.secret, place.root / "twin")
    assert place.kind_of(write(place, "twin", "append")) == "permission"
    assert place.kind_of(write(place, "twin", "create")) == "exists"
    assert place.secret_is_untouched()
    place.perform(write(place, "twin", "replace"))
    assert (place.root / "twin").read_bytes() == b"planted"
    assert place.secret_is_untouched()


def test_control_hard_link_leads_a_naive_host_to_the_secret(place):
    os.link(place.secret, place.root / "twin")
    naive_write(place.root / "twin", b"planted", "append")
    assert not place.secret_is_untouched()


def test_delete_of_a_hard_link_leaves_the_other_name(place):
    os.link(place.secret, place.root / "twin")
    place.perform(DeleteFile(path=place.path("twin")))
    assert place.left() == []
    assert place.secret_is_untouched()


# --- races


def file_and_link(place):
    """Steps that make root/raced a file and a link to the secret in turn, each by one rename."""
    return (
        lambda: (place.root / "new").write_bytes(b""),
        lambda: os.replace(place.root / "new", place.root / "raced"),
        lambda: (place.root / "new").symlink_to("../outside/secret"),
        lambda: os.replace(place.root / "new", place.root / "raced"),
    )


@pytest.mark.parametrize("mode", MODES)
def test_race_of_file_and_link_never_reaches_the_secret(place, mode):
    with swapping(*file_and_link(place)):
        seen = {place.kind_of(write(place, "raced", mode)) for _ in range(200)}
        seen |= {place.kind_of(DeleteFile(path=place.path("raced"))) for _ in range(200)}
    assert place.secret_is_untouched()
    assert seen <= {"done", "permission", "exists", "busy", "not_found"}


def test_control_race_of_file_and_link_reaches_the_secret_of_a_host_that_looks_first(place):
    def look_then_write():
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.lstat(place.root / "raced").st_mode):
                naive_write(place.root / "raced", b"planted", "append")

    end = time.monotonic() + PATIENCE_S
    with swapping(*file_and_link(place)):
        while place.secret_is_untouched() and time.monotonic() < end:
            look_then_write()
    assert not place.secret_is_untouched()


def directory_and_link(place):
    """Steps that make root/way a directory and a link to the outside in turn."""
    (place.root / "aside").symlink_to("../outside")
    (place.root / "way").mkdir()
    return (
        lambda: os.rename(place.root / "way", place.root / "kept"),
        lambda: os.rename(place.root / "aside", place.root / "way"),
        lambda: os.rename(place.root / "way", place.root / "aside"),
        lambda: os.rename(place.root / "kept", place.root / "way"),
    )


@pytest.mark.parametrize("mode", MODES)
def test_race_of_directory_and_link_on_the_way_never_leads_outside(place, mode):
    with swapping(*directory_and_link(place)):
        for _ in range(200):
            place.kind_of(write(place, "way/x", mode))
            place.kind_of(DeleteFile(path=place.path("way/secret")))
            with contextlib.suppress(Exception):
                names = [entry["name"] for entry in place.perform(ListDirectory(path=place.path("way")))]
                assert "secret" not in names
    assert place.secret_is_untouched()


def test_race_of_directory_and_link_never_makes_parents_outside(place):
    place.ruled(create_parents=True)
    with swapping(*directory_and_link(place)):
        for number in range(200):
            place.kind_of(write(place, f"way/d{number}/x"))
    assert place.secret_is_untouched()


def test_control_race_of_directory_and_link_leads_a_host_that_looks_first_outside(place):
    end = time.monotonic() + PATIENCE_S
    with swapping(*directory_and_link(place)):
        while place.secret_is_untouched() and time.monotonic() < end:
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(os.lstat(place.root / "way").st_mode):
                    naive_write(place.root / "way" / "x", b"planted", "append")
    assert not place.secret_is_untouched()


SWAP = """
import contextlib, os, sys
new, raced, secret = sys.argv[1:]
print("ready", flush=True)
while True:
    with contextlib.suppress(OSError):
        open(new, "wb").close()
        os.replace(new, raced)
        os.link(secret, new)
        os.replace(new, raced)
"""


def test_race_of_file_and_hard_link_never_appends_to_the_secret(place):
    # A process of its own: a thread would wait for the interpreter just when it matters. In 25 s without more than one look
    # at the names of the file it got through eleven times.
    command = [sys.executable, "-c", SWAP, place.root / "new", place.root / "raced", place.secret]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout.readline() == b"ready\n"
            begun, seen, wanted = time.monotonic(), Counter(), {"done", "permission"}
            # Four seconds, and on until both have been seen: whether a file stays long enough to be appended to is chance.
            while (lasted := time.monotonic() - begun) < 4.0 or (not wanted <= seen.keys() and lasted < PATIENCE_S):
                seen.update([place.kind_of(write(place, "raced", "append"))])
        finally:
            swapper.kill()
    assert place.secret_is_untouched()
    assert wanted <= seen.keys() <= wanted | {"exists", "busy", "not_found"}, seen


# --- what is no regular file


@pytest.mark.parametrize("mode", MODES)
def test_fifo_is_neither_written_to_nor_replaced_nor_waited_for(place, mode):
    os.mkfifo(place.root / "fifo")
    for effect in (write(place, "fifo", mode), DeleteFile(path=place.path("fifo")), ReadFile(path=place.path("fifo"))):
        assert place.kind_of(effect, seconds=20) == "not_regular"
    assert stat.S_ISFIFO((place.root / "fifo").stat().st_mode)


def test_control_fifo_takes_what_a_naive_host_writes(place):
    os.mkfifo(place.root / "fifo")
    reader = os.open(place.root / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        naive_write(place.root / "fifo", b"planted", "append")
        assert os.read(reader, 100) == b"planted"
    finally:
        os.close(reader)


@pytest.mark.parametrize("mode", MODES)
def test_socket_and_directory_are_not_regular(place, mode):
    (place.root / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(place.root, os.O_PATH)
        try:
            server.bind(f"/proc/self/fd/{directory}/s")
        finally:
            os.close(directory)
        for name in ("s", "d"):
            assert place.kind_of(write(place, name, mode)) == "not_regular"
            assert place.kind_of(DeleteFile(path=place.path(name))) == "not_regular"
    assert place.left() == ["d", "s"]


@pytest.mark.needs_root
@pytest.mark.parametrize("mode", MODES)
def test_device_is_not_written_to(place, mode):
    os.mknod(place.root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for effect in (write(place, "null", mode), DeleteFile(path=place.path("null"))):
        assert place.kind_of(effect) == "not_regular"
    assert place.perform(ListDirectory(path=str(place.root))) == [{"name": "null", "kind": "other", "size_bytes": None}]


# --- sizes and depths


def nest(root, names):
    """Directories one inside the other, by descriptors: the whole path may be longer than a path can be."""
    at = os.open(root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def test_thousand_directories_deep_are_counted_and_written_to(place):
    nest(place.root, ["d"] * 1000)
    deep = "/".join(["d"] * 1000)
    assert place.ruled(max_files=1000).kind_of(write(place, "a")) == "quota"
    assert place.ruled(max_files=1002).kind_of(write(place, "a")) == "done"
    assert place.kind_of(write(place, f"{deep}/b")) == "done"
    assert place.perform(ListDirectory(path=place.path(deep))) == [{"name": "b", "kind": "file", "size_bytes": 7}]
    assert place.kind_of(DeleteFile(path=place.path(f"{deep}/b"))) == "done"


def test_depth_beyond_any_path_stops_writing_and_not_the_host(place):
    nest(place.root, ["d" * 250] * 40)
    assert place.kind_of(write(place, "a"), seconds=20) == "unmeasurable"
    assert place.left() == ["d" * 250]
    assert place.kind_of(ListDirectory(path=str(place.root))) == "done"


def test_thousand_parents_are_made_only_within_the_quota(place):
    deep = "/".join(["d"] * 1000)
    place.ruled(create_parents=True, max_files=1000)
    assert place.kind_of(write(place, f"{deep}/a")) == "quota"
    assert place.left() == []
    assert place.ruled(create_parents=True, max_files=1001).kind_of(write(place, f"{deep}/a")) == "done"


def test_sparse_file_of_others_counts_with_the_size_that_readers_see(place):
    with open(place.root / "sparse", "wb") as file:
        for exponent in (50, 43, 40, 33):  # 1 PiB, or what this file system takes
            with contextlib.suppress(OSError):
                file.truncate(2**exponent)
                break
    assert place.kind_of(write(place, "sparse", "append")) == "too_large"
    assert place.kind_of(write(place, "a")) == "quota"
    assert place.kind_of(write(place, "sparse", "replace")) == "done"  # it frees more than it takes


def test_no_effect_makes_a_file_larger_than_its_content(place):
    place.perform(write(place, "a"))
    place.perform(write(place, "a", "append"))
    found = (place.root / "a").stat()
    assert found.st_size == 2 * len(b"planted")
    assert found.st_blocks > 0


# --- names


@pytest.mark.parametrize(
    "name", ["CaSe", "case", "caf\u00e9", "cafe\u0301", "\u202etxt.exe", "a\nb", "a\\b", " ", "\x7f", "~", "*", "-rf"]
)
def test_odd_name_is_that_name_and_no_other(place, name):
    place.perform(write(place, name))
    assert place.left() == [name]
    assert [entry["name"] for entry in place.perform(ListDirectory(path=str(place.root)))] == [name]
    assert place.perform(ReadFile(path=place.path(name))) == b"planted"
    place.perform(DeleteFile(path=place.path(name)))
    assert place.left() == []


def test_twins_in_case_and_unicode_are_two_files(place):
    for name in ("CASE", "case", "caf\u00e9", "cafe\u0301"):
        place.perform(WriteFile(path=place.path(name), content=name.encode()))
    assert len(place.left()) == 4
    assert place.perform(ReadFile(path=place.path("caf\u00e9"))) == "caf\u00e9".encode()


def test_name_that_is_too_long_is_not_found(place):
    assert place.kind_of(write(place, "x" * 256)) == "not_found"
    assert place.kind_of(write(place, "é" * 128)) == "not_found"
    assert place.kind_of(write(place, "x" * 255)) == "done"
