"""Files of the host: not there, whatever name leads to them."""

import os

import pytest

from fxcell import PluginError, zef_function
from tests.escapes.conftest import compute


@zef_function
def read_file(path):
    with open(path, "rb") as file:
        return file.read(4096)


@zef_function
def read_by_raw_openat2(path):
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(437, -100, os_fsencode(path), struct.pack("=QQQ", 0, 0, 0), 24)
    return ctypes.get_errno() if descriptor == -1 else b"opened"


def os_fsencode(path):
    return path.encode()


@zef_function
def list_folder(path):
    import os

    return sorted(os.listdir(path))


@zef_function
def walk_everything(name):
    import os

    return [folder for folder, _, files in os.walk("/") if name in files]


@zef_function
def climb_to_the_root():
    import os

    for _ in range(64):
        os.chdir("..")
    return os.getcwd()


HOST_PATHS = (
    "/etc/shadow",
    "/etc/passwd",
    "/etc/hostname",
    "/root/.ssh/id_rsa",
    "/home",
    "/proc/kcore",
    "/proc/1/environ",
    "/proc/self/root/etc/passwd",
    "/proc/self/fd/3",
    "/sys/kernel/notes",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/sda",
    "/dev/tty",
    "/run/docker.sock",
    "/var/run/docker.sock",
)


@pytest.mark.parametrize("policy", ["strict", "compute"])
def test_paths_of_the_host_do_not_exist(arena, policy):
    for path in (*HOST_PATHS, str(arena.sentinel), f"/proc/{os.getpid()}/root{arena.sentinel}"):
        outcome = arena.attack(read_file(path), policy)
        assert isinstance(outcome, PluginError), (path, outcome)
        assert outcome.type_name in ("FileNotFoundError", "PermissionError", "IsADirectoryError"), (path, outcome)


def test_where_nothing_stops_it_the_sentinel_is_read(arena):
    assert arena.control(read_file(str(arena.sentinel))) == arena.secret.encode()


@pytest.mark.parametrize("spelling", ["/..{}", "//{}", "/usr/../..{}", "/tmp/../{}", "/dev/fd/../../..{}", "/./{}"])
def test_other_spellings_of_the_sentinel_do_not_exist(arena, spelling):
    outcome = arena.attack(read_file(spelling.format(arena.sentinel)))
    assert isinstance(outcome, PluginError), outcome


def test_nul_byte_in_a_path_is_an_error_of_the_plugin(arena):
    assert arena.attack(read_file(f"{arena.sentinel}\0.txt")).type_name == "ValueError"


def test_openat2_is_not_there(arena):
    assert arena.attack(read_by_raw_openat2(str(arena.sentinel))) == 38


@pytest.mark.parametrize("path", ["/", "/root", "/tmp", "/dev", "/usr", ".."])
def test_folders_above_what_is_shown_cannot_be_listed(arena, path):
    outcome = arena.attack(list_folder(path))
    assert isinstance(outcome, PluginError), outcome
    assert outcome.type_name in ("PermissionError", "FileNotFoundError")


def test_the_sentinel_is_found_nowhere(arena):
    assert arena.attack(walk_everything(arena.sentinel.name)) == []


def test_leaving_the_root_by_going_up_is_refused(arena):
    assert isinstance(arena.attack(climb_to_the_root()), PluginError)


def test_link_in_a_granted_folder_leads_nowhere(arena):
    shown = arena.folder / "shown"
    shown.mkdir()
    shown.chmod(0o755)
    (shown / "public").write_text("public")
    (shown / "link").symlink_to(arena.sentinel)
    (shown / "up").symlink_to("..")
    policy = compute(name="one folder", visible=(str(shown),))
    assert arena.attack(read_file(str(shown / "public")), policy) == b"public"
    for path in (shown / "link", shown / "up" / "sentinel", shown / ".." / "sentinel"):
        outcome = arena.attack(read_file(str(path)), policy)
        assert isinstance(outcome, PluginError), outcome
        assert arena.control(read_file(str(path))) == arena.secret.encode()
