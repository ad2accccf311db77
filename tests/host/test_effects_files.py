"""ReadFile: only regular files below the granted directory, whatever stands at the path, and no waiting."""

import contextlib
import os
import threading
import time

import pytest

from fxcell.host.broker import Broker, Context, perform_locally
from fxcell.host.effects import file_errors, files
from fxcell.policies.builtin import ReadFile
from fxcell.policies.errors import EffectDenied, EffectFailed
from fxcell.policies.policy import Policy

MAX_BYTES = 1000


@pytest.fixture
def root(tmp_path):
    """A granted directory, beside a secret that is not."""
    granted = tmp_path.resolve() / "granted"
    granted.mkdir()
    (granted / "a.txt").write_bytes(b"content of a")
    (granted / "deep").mkdir()
    (granted / "deep" / "b.txt").write_bytes(b"content of b")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    return granted


def read(root, name, **policy):
    granted = Policy(name="files", effects={"ReadFile": {"under": [str(root)], "max_bytes": MAX_BYTES}}, **policy)
    asked = Context("w3", granted, time.monotonic() + 30, threading.Event().wait, print)
    return Broker(granted, "w3").perform(ReadFile(path=f"{root}/{name}"), asked)


def kind_of(root, name):
    with pytest.raises(EffectFailed) as failed:
        read(root, name)
    return failed.value.kind


def local(path, seconds=30.0):
    return perform_locally(
        ReadFile(path=str(path)), Context("host", None, time.monotonic() + seconds, threading.Event().wait, print)
    )


def test_file_below_the_granted_directory_is_read(root):
    assert read(root, "a.txt") == b"content of a"
    assert read(root, "deep/b.txt") == b"content of b"


def test_hard_link_is_an_ordinary_file(root):
    os.link(root / "a.txt", root / "same.txt")
    assert read(root, "same.txt") == b"content of a"


def test_file_on_a_mount_below_the_granted_directory_is_read(root):
    # /dev/shm is a mount of its own; what is tested is that no flag forbids crossing one.
    shm = f"/dev/shm/fxcell-{os.getpid()}-mount-test"
    with open(shm, "wb") as file:
        file.write(b"on a tmpfs")
    try:
        directory = os.open("/", os.O_PATH | os.O_DIRECTORY)
        try:
            descriptor = files.open_beneath(directory, shm.encode()[1:], os.O_RDONLY)
            os.close(descriptor)
        finally:
            os.close(directory)
    finally:
        os.unlink(shm)


def test_missing_file_is_not_found(root):
    assert kind_of(root, "none.txt") == "not_found"
    assert kind_of(root, "a.txt/below") == "not_found"
    assert kind_of(root, "x" * 300) == "not_found"


def test_missing_granted_directory_is_not_found(root):
    assert kind_of(root / "gone", "a.txt") == "not_found"


@pytest.mark.parametrize("target", ["a.txt", "../secret.txt", "/etc/passwd", "/proc/self/environ"])
def test_symbolic_link_is_refused_wherever_it_leads(root, target):
    (root / "link").symlink_to(target)
    assert kind_of(root, "link") == "permission"


def test_symbolic_link_in_the_middle_is_refused(root):
    (root / "way").symlink_to("deep")
    (root / "out").symlink_to("..")
    assert kind_of(root, "way/b.txt") == "permission"
    assert kind_of(root, "out/secret.txt") == "permission"


def test_parent_directory_in_the_path_is_denied_by_the_rules(root):
    with pytest.raises(EffectDenied):
        read(root, "../secret.txt")


@pytest.mark.parametrize("path", [b"../secret.txt", b"deep/../../secret.txt", b"/etc/passwd"])
def test_parent_directory_that_passed_the_rules_is_stopped_by_the_kernel(root, path):
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as refused:
            files.open_beneath(directory, path, os.O_RDONLY)
    finally:
        os.close(directory)
    assert file_errors.KINDS[refused.value.errno][0] == "permission"


def test_symbolic_link_swapped_in_between_look_and_open_is_not_followed(root, monkeypatch):
    opened = files.open_beneath
    calls = []

    def swap_before_second(directory, path, flags):
        calls.append(flags)
        if len(calls) == 2:
            (root / "a.txt").unlink()
            (root / "a.txt").symlink_to("../secret.txt")
        return opened(directory, path, flags)

    monkeypatch.setattr(files, "open_beneath", swap_before_second)
    assert kind_of(root, "a.txt") == "permission"
    assert len(calls) == 2


def test_fifo_swapped_in_between_look_and_open_does_not_block(root, monkeypatch):
    opened = files.open_beneath
    calls = []

    def swap_before_second(directory, path, flags):
        calls.append(flags)
        if len(calls) == 2:
            (root / "a.txt").unlink()
            os.mkfifo(root / "a.txt")
        return opened(directory, path, flags)

    monkeypatch.setattr(files, "open_beneath", swap_before_second)
    assert kind_of(root, "a.txt") == "not_regular"
    assert len(calls) == 2


def test_race_of_file_and_symbolic_link_never_shows_the_secret(root):
    (root / "link").symlink_to("../secret.txt")
    os.link(root / "a.txt", root / "keep")
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            os.link(root / "keep", root / "new")
            os.replace(root / "new", root / "raced")
            (root / "new").symlink_to("../secret.txt")
            os.replace(root / "new", root / "raced")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(300):
            try:
                seen.add(read(root, "raced"))
            except EffectFailed as failed:
                seen.add(failed.kind)
    finally:
        stop.set()
        swapper.join()
    assert seen <= {b"content of a", "permission", "not_found"}


def test_fifo_is_refused_without_blocking_and_without_waking_its_writer(root):
    os.mkfifo(root / "fifo")
    assert kind_of(root, "fifo") == "not_regular"
    with pytest.raises(OSError, match="No such device"):  # ENXIO: there never was a reader
        os.open(root / "fifo", os.O_WRONLY | os.O_NONBLOCK)


def test_socket_is_not_regular(root):
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(root, os.O_PATH)
        try:
            server.bind(f"/proc/self/fd/{directory}/s")
        finally:
            os.close(directory)
        assert kind_of(root, "s") == "not_regular"


def test_directory_is_not_regular(root):
    assert kind_of(root, "deep") == "not_regular"


@pytest.mark.needs_root
def test_device_is_not_regular(root):
    import stat

    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert kind_of(root, "null") == "not_regular"


def test_file_at_the_cap_is_read_and_one_byte_more_is_too_large(root):
    (root / "full").write_bytes(b"x" * MAX_BYTES)
    assert len(read(root, "full")) == MAX_BYTES
    (root / "over").write_bytes(b"x" * (MAX_BYTES + 1))
    assert kind_of(root, "over") == "too_large"


def test_sparse_tebibyte_is_too_large_at_once(root):
    with open(root / "sparse", "wb") as file:
        try:
            file.truncate(2**40)
        except OSError:
            file.truncate(2**33)  # file systems without files of 1 TiB
    assert kind_of(root, "sparse") == "too_large"


def test_file_that_grows_while_it_is_read_is_too_large(root):
    class Growing(files.Pace):
        """Appends whenever the reader looks whether it may go on: after each piece."""

        def check(self):
            with open(root / "log", "ab") as file:
                file.write(b"x" * 100)

    (root / "log").write_bytes(b"x")
    effect = ReadFile(path=f"{root}/log")
    descriptor = os.open(root / "log", os.O_RDONLY)
    try:
        with pytest.raises(EffectFailed) as failed:
            files._read(descriptor, MAX_BYTES, effect, Growing("ReadFile", time.monotonic() + 30, bool))
    finally:
        os.close(descriptor)
    assert failed.value.kind == "too_large"


def test_unreadable_file_is_permission(root):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (root / "a.txt").chmod(0)
    assert kind_of(root, "a.txt") == "permission"


def test_texts_of_failures_name_only_what_the_plugin_gave(root):
    (root / "link").symlink_to("../secret.txt")
    for name in ("link", "none", "deep"):
        with pytest.raises(EffectFailed) as failed:
            read(root, name)
        assert "secret" not in str(failed.value)
        assert str(failed.value).count("/") == f"{root}/{name}".count("/")


def test_no_descriptor_is_left_behind(root):
    (root / "link").symlink_to("a.txt")
    os.mkfifo(root / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a.txt", "link", "fifo", "deep", "none"):
        with contextlib.suppress(EffectFailed):
            read(root, name)
    assert len(os.listdir("/proc/self/fd")) == before


def test_local_read_has_the_hosts_own_authority(root):
    (root / "link").symlink_to("../secret.txt")
    assert local(root / "link") == b"secret"


def test_local_read_of_a_proc_file_of_size_0_is_its_content():
    assert b"Name:" in local(f"/proc/{os.getpid()}/status")


def test_local_read_of_a_fifo_does_not_block(root):
    os.mkfifo(root / "fifo")
    with pytest.raises(EffectFailed) as failed:
        local(root / "fifo")
    assert failed.value.kind == "not_regular"


@pytest.mark.parametrize("name", ["nul\0byte", "lone\ud800"])
def test_local_read_of_an_impossible_name_is_bad_request(name):
    with pytest.raises(EffectFailed) as failed:
        local(f"/tmp/{name}")
    assert failed.value.kind == "bad_request"
