"""A plugin that may write below one folder tries to write, list and delete elsewhere, and to have more than its quota."""

from __future__ import annotations

import os

import pytest

from fxcell import FX, EffectDenied, EffectFailed, PluginError, WorkerCrash, run, zef_function
from tests.escapes.conftest import compute


@zef_function
def plant(paths):
    """Write to each path by effect, and by hand; answer what worked."""
    import contextlib
    import os

    done = []
    for path in paths:
        for mode in ("create", "replace", "append"):
            with contextlib.suppress(Exception):
                FX.WriteFile(path=path, content=b"planted", mode=mode) | run
                done.append((path, mode))
        for flags in (os.O_CREAT | os.O_WRONLY, os.O_CREAT | os.O_TRUNC | os.O_RDWR):
            with contextlib.suppress(Exception):
                os.close(os.open(path, flags, 0o666))
                done.append((path, "by hand"))
    return done


@zef_function
def look_and_remove(paths):
    import contextlib

    done = []
    for path in paths:
        for effect in (FX.ListDirectory(path=path), FX.DeleteFile(path=path), FX.ReadFile(path=path)):
            with contextlib.suppress(Exception):
                done.append((path, effect | run))
    return done


@zef_function
def plant_by_hand(paths):
    done = []
    for path in paths:
        try:
            with open(path, "xb") as file:
                file.write(b"planted")
            done.append(path)
        except OSError:
            pass
    return done


@zef_function
def fill(folder, count, size):
    done = 0
    for number in range(count):
        try:
            FX.WriteFile(path=f"{folder}/{number}", content=b"x" * size, mode="create") | run
            done += 1
        except EffectFailed:
            pass
    return done


@zef_function
def keep_a_table(folder):
    """Honest."""
    FX.WriteFile(path=f"{folder}/table.csv", content=b"a,1\n", mode="create") | run
    FX.WriteFile(path=f"{folder}/table.csv", content=b"b,2\n", mode="append") | run
    FX.WriteFile(path=f"{folder}/draft.csv", content=b"") | run
    FX.DeleteFile(path=f"{folder}/draft.csv") | run
    names = [entry["name"] for entry in FX.ListDirectory(path=folder) | run]
    return names, FX.ReadFile(path=f"{folder}/table.csv") | run, FX.GetEnvironment(name="FXCELL_TEST_LABEL") | run


@pytest.fixture
def folder(arena):
    made = arena.folder.resolve() / "granted"
    made.mkdir()
    return made


def granting(folder, **rule):
    return compute(
        name="one folder",
        effects={
            "ReadFile": {"under": [str(folder)]},
            "WriteFile": {"under": [str(folder)], **rule},
            "ListDirectory": {"under": [str(folder)]},
            "DeleteFile": {"under": [str(folder)]},
            "GetEnvironment": {"names": ["FXCELL_TEST_LABEL"]},
        },
    )


def spellings(arena, folder):
    """Names that are not there yet, beside the granted folder or where code is loaded from, in many spellings."""
    beside = str(folder.parent)
    home = os.path.expanduser("~")
    return [
        f"{beside}/new", f"{folder}/../new", f"{folder}/./../new", f"{folder}//../new", f"{folder}/x/../../new",
        f"{folder}-twin/new", f"{str(folder).upper()}/new", f"{folder}\u200b/new", f"{folder}/\0/../new",
        f"/proc/self/root{beside}/new", "/proc/self/cwd/../new", "../new", "new", f"file://{beside}/new",
        f"{home}/.fxcell-test-bashrc", f"{home}/.config/fxcell-test.pth", "/etc/fxcell-test", "/etc/cron.d/fxcell-test",
        os.path.join(os.path.dirname(os.__file__), "fxcell_test_sitecustomize.py"), "/dev/shm/fxcell-test", "/tmp/fxcell-test",
        f"{folder}/.bashrc", f"{folder}/.git/hooks/pre-commit", f"{folder}/.fxcell-00000000000000000000000000000000",
    ]  # fmt: skip


def test_nothing_can_be_planted_beside_the_granted_folder_under_any_spelling(arena, folder):
    paths = spellings(arena, folder)
    before = sorted(os.listdir(folder.parent))
    outcome = arena.attack(plant([*paths, str(arena.sentinel), str(folder)]), granting(folder, create_parents=True))
    assert outcome == []
    assert sorted(os.listdir(folder.parent)) == before
    assert os.listdir(folder) == []
    assert not [path for path in paths if path.startswith("/") and "\0" not in path and os.path.lexists(path)]


def test_control_the_same_names_are_planted_where_nothing_holds_it(arena, folder):
    planted = arena.control(plant_by_hand([f"{folder.parent}/new", f"{folder}/../new2", f"{folder}/.bashrc"]))
    assert len(planted) == 3
    assert (folder.parent / "new").read_bytes() == b"planted"


def test_nothing_outside_the_granted_folder_is_listed_read_or_removed(arena, folder):
    (folder / "link").symlink_to(arena.sentinel)
    (folder / "up").symlink_to("..")
    paths = [
        str(arena.sentinel), str(arena.folder), "/", "/etc", "/etc/hostname", f"{folder}/link", f"{folder}/up", f"{folder}/..",
        f"{folder}/up/sentinel", f"{folder}/../sentinel", "/proc/self", "/proc/self/environ", "/dev", os.path.expanduser("~"),
    ]  # fmt: skip
    assert arena.attack(look_and_remove(paths), granting(folder)) == []
    assert sorted(os.listdir(folder)) == ["link", "up"]


def test_quota_ends_a_plugin_that_fills_the_folder_and_the_next_worker_too(arena, folder):
    policy = granting(folder, max_bytes="1 KiB", quota_bytes="4 KiB", max_files=20)
    assert arena.attack(fill(str(folder), 100, 0), policy) == 20
    assert arena.attack(fill(str(folder), 100, 0), policy) == 0
    for name in os.listdir(folder):
        (folder / name).unlink()
    assert arena.attack(fill(str(folder), 100, 1024), policy) == 4


def test_content_over_the_size_is_denied_with_the_line_to_add(arena, folder):
    policy = granting(folder, max_bytes="1 KiB", quota_bytes="4 KiB")
    outcome = arena.attack(fill(str(folder), 1, 1025), policy)
    assert isinstance(outcome, EffectDenied)
    assert outcome.suggestion == "effects.WriteFile.max_bytes = 1025"


def test_honest_plugin_keeps_a_table(arena, folder, monkeypatch):
    monkeypatch.setenv("FXCELL_TEST_LABEL", "north")
    outcome = arena.attack(keep_a_table(str(folder)), granting(folder))
    assert not isinstance(outcome, PluginError | WorkerCrash), outcome
    assert outcome == (["table.csv"], b"a,1\nb,2\n", "north")
