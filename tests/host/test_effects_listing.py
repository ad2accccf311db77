"""ListDirectory: what it shows of a directory, in which order, and where it stops."""

import os
import socket

import pytest

from fxcell.policies.builtin import ListDirectory
from fxcell.policies.decoding import decode_value
from fxcell.policies.encoding import encode_value
from fxcell.policies.policy import Policy
from tests.host.granted import Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path.resolve())


def listed(place, below=""):
    return place.perform(ListDirectory(path=f"{place.root}/{below}" if below else str(place.root)))


def test_names_kinds_and_sizes_are_answered_sorted(place):
    (place.root / "b").write_bytes(b"123")
    (place.root / "a").mkdir()
    (place.root / "a" / "c").write_bytes(b"1")
    (place.root / ".hidden").touch()
    assert listed(place) == [
        {"name": ".hidden", "kind": "file", "size_bytes": 0},
        {"name": "a", "kind": "directory", "size_bytes": None},
        {"name": "b", "kind": "file", "size_bytes": 3},
    ]
    assert listed(place, "a") == [{"name": "c", "kind": "file", "size_bytes": 1}]


def test_links_fifos_and_sockets_are_other_and_not_looked_through(place):
    (place.root / "link").symlink_to("../outside/secret")
    (place.root / "broken").symlink_to("nowhere")
    (place.root / "dir").symlink_to("..")
    os.mkfifo(place.root / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(place.root, os.O_PATH)
        try:
            server.bind(f"/proc/self/fd/{directory}/sock")
        finally:
            os.close(directory)
        rows = listed(place)
    assert [row["name"] for row in rows] == ["broken", "dir", "fifo", "link", "sock"]
    assert {(row["kind"], row["size_bytes"]) for row in rows} == {("other", None)}


def test_name_that_is_not_utf_8_is_bytes_in_its_place_and_travels(place):
    root = os.fsencode(place.root)
    for name in (b"a", b"a\xff", b"b", b"\xc3\xa9", b"\xed\xa0\x80"):
        with open(root + b"/" + name, "wb"):
            pass
    names = [row["name"] for row in listed(place)]
    assert names == ["a", b"a\xff", "b", "é", b"\xed\xa0\x80"]
    assert decode_value(encode_value(names), allow_calls=False) == names


def test_names_at_the_cap_are_listed_and_one_more_is_an_error(place):
    place.policy = Policy(name="few", effects={"ListDirectory": {"under": [str(place.root)], "max_entries": 3}})
    for name in "abc":
        (place.root / name).touch()
    (place.root / f".fxcell-{'0' * 32}").touch()
    assert [row["name"] for row in listed(place)] == ["a", "b", "c"]
    (place.root / "d").touch()
    assert place.kind_of(ListDirectory(path=str(place.root))) == "too_large"


def test_what_is_no_directory_is_not_found(place):
    (place.root / "a").touch()
    os.mkfifo(place.root / "fifo")
    for name in ("a", "fifo", "none", "none/x", "a/x"):
        assert place.kind_of(ListDirectory(path=place.path(name)), seconds=20) == "not_found"


def test_directory_that_the_host_may_not_read_is_permission(place):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (place.root / "closed").mkdir(mode=0)
    try:
        assert place.kind_of(ListDirectory(path=place.path("closed"))) == "permission"
    finally:
        (place.root / "closed").chmod(0o755)


def test_no_descriptor_is_left_behind(place):
    (place.root / "a").touch()
    before = len(os.listdir("/proc/self/fd"))
    for name in ("", "a", "none"):
        place.kind_of(ListDirectory(path=place.path(name).rstrip("/")))
    assert len(os.listdir("/proc/self/fd")) == before
