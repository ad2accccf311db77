"""WriteRule, ListRule, EnvironmentRule and DeleteFile's rule: what is granted, and that no other spelling of it is."""

from __future__ import annotations

import pytest

from fxcell.policies.builtin import DeleteFile, GetEnvironment, ListDirectory, ReadFile, WriteFile
from fxcell.policies.errors import EffectDenied, EffectError, PolicyError
from fxcell.policies.loader import load_policy
from fxcell.policies.policy import Policy
from fxcell.policies.rules import EnvironmentRule, ListRule, UnderRule, WriteRule, check, granted_root


def policy(**effects) -> Policy:
    return Policy(name="test", effects=effects)


def denied(held, effect) -> EffectDenied:
    with pytest.raises(EffectDenied) as caught:
        check(held, effect)
    return caught.value


HELD = policy(
    ReadFile={"under": ["/srv/data"]},
    WriteFile={"under": ["/srv/data"]},
    DeleteFile={"under": ["/srv/data"]},
    ListDirectory={"under": ["/srv/data"]},
    GetEnvironment={"names": ["TZ", "LANG"]},
)
TWINS = [
    "/srv/Data/a", "/SRV/data/a", "/srv/dat\u0430/a", "/srv/data\u200b/a", "/srv/\uff44ata/a", "/srv/data/../x", "/srv/data/a/..",
    "/srv/data/./a", "/srv/data//a", "//srv/data/a", "/srv/data/a/", "srv/data/a", "./a", "../a", "", "/", "/etc/passwd",
    "/srv/database/a", "/srv/data/a\0", "/srv/data\0/a", "/srv/data/\ud800", "/srv/data/" + "a/" * 2048 + "a",
    "file:///srv/data/a", "~/a", "/srv/data/.fxcell-0123", "/srv/data/.fxcell-a/b", "/proc/self/fd/3", "/dev/null",
]  # fmt: skip


@pytest.mark.parametrize("path", TWINS, ids=lambda path: ascii(path)[:40])
@pytest.mark.parametrize("make", [
    lambda path: ReadFile(path=path), lambda path: WriteFile(path=path, content=b""), lambda path: DeleteFile(path=path),
    lambda path: ListDirectory(path=path),
], ids=["read", "write", "delete", "list"])  # fmt: skip
def test_other_spelling_of_a_granted_path_is_denied(make, path):
    assert denied(HELD, make(path)).field == "path"


def test_granted_paths_are_granted():
    for path in ("/srv/data/a", "/srv/data/a/b.txt", "/srv/data/a b\n", "/srv/data/é"):
        for effect in (ReadFile(path=path), WriteFile(path=path, content=b""), DeleteFile(path=path), ListDirectory(path=path)):
            check(HELD, effect)
            assert granted_root(HELD, path, effect.effect_name) == ("/srv/data", path.removeprefix("/srv/data/"))


def test_granted_directory_itself_can_be_listed_and_nothing_else_done_to_it():
    check(HELD, ListDirectory(path="/srv/data"))
    assert granted_root(HELD, "/srv/data", "ListDirectory") == ("/srv/data", "")
    denied(HELD, ListDirectory(path="/srv"))
    denied(HELD, DeleteFile(path="/srv/data"))
    denied(HELD, WriteFile(path="/srv/data", content=b""))


@pytest.mark.parametrize("name", [".bashrc", ".git/hooks/pre-commit", "a/.ssh/authorized_keys", ".../x"])
def test_hidden_path_is_written_only_where_the_rule_says_so(name):
    effect = WriteFile(path=f"/srv/data/{name}", content=b"")
    error = denied(HELD, effect)
    assert (error.field, error.suggestion) == ("path", "effects.WriteFile.hidden = true")
    check(policy(WriteFile={"under": ["/srv/data"], "hidden": True}), effect)
    check(policy(WriteFile={"under": ["/srv/.data"]}), WriteFile(path="/srv/.data/a", content=b""))


def test_mode_is_one_of_three_and_one_that_the_rule_names():
    held = policy(WriteFile={"under": ["/a"], "modes": ["create"]})
    check(held, WriteFile(path="/a/b", content=b"", mode="create"))
    error = denied(held, WriteFile(path="/a/b", content=b"", mode="append"))
    assert (error.field, error.suggestion) == ("mode", 'effects.WriteFile.modes = ["create", "append"]')
    for mode in ("Create", "w", "create ", 0o777, b"create", None):
        with pytest.raises(EffectError):
            WriteFile(path="/a/b", content=b"", mode=mode)


def test_content_is_bytes_and_nothing_else():
    for content in ("text", 5, None, [1], {"a": 1}):
        with pytest.raises(EffectError, match=r"content must be bytes"):
            WriteFile(path="/a/b", content=content)


def test_content_over_the_size_is_denied_with_the_size_it_needs():
    held = policy(WriteFile={"under": ["/a"], "max_bytes": 10, "quota_bytes": 20})
    check(held, WriteFile(path="/a/b", content=b"x" * 10))
    error = denied(held, WriteFile(path="/a/b", content=b"x" * 11))
    assert (error.field, error.suggestion) == ("content", "effects.WriteFile.max_bytes = 11")
    over_both = denied(held, WriteFile(path="/a/b", content=b"x" * 21))
    assert 'max_bytes = "21 B", quota_bytes = "21 B"' in over_both.suggestion


@pytest.mark.parametrize("name", ["tz", "TZ ", " TZ", "TZ\0", "Т" + "Z", "TZ=x", "", "*", "T*", "PATH", "ＴＺ", "\ud800"])
def test_other_name_of_a_variable_is_denied(name):
    assert denied(HELD, GetEnvironment(name=name)).field == "name"


def test_variable_that_is_not_granted_is_offered_alone():
    assert denied(policy(), GetEnvironment(name="PATH")).suggestion == 'effects.GetEnvironment = { names = ["PATH"] }'
    assert denied(HELD, GetEnvironment(name="PATH")).suggestion == 'effects.GetEnvironment.names = ["LANG", "TZ", "PATH"]'
    assert denied(HELD, GetEnvironment(name="A*")).suggestion == ""


BAD = [
    ("WriteFile", "{}", "needs 'under'"),
    ("WriteFile", "true", "needs 'under'"),
    ("WriteFile", '{ under = ["/"] }', "can never be granted"),
    ("WriteFile", '{ under = ["/proc/sys"] }', "can never be granted"),
    ("WriteFile", '{ under = ["/a"], max_byte = "1 MiB" }', "did you mean 'max_bytes'"),
    ("WriteFile", '{ under = ["/a"], max_bytes = "5" }', "not a number and a unit"),
    ("WriteFile", '{ under = ["/a"], max_bytes = "2 MiB", quota_bytes = "1 MiB" }', "quota_bytes .* is below max_bytes"),
    ("WriteFile", '{ under = ["/a"], quota_bytes = "1 MiB" }', "is below max_bytes"),
    ("WriteFile", '{ under = ["/a"], max_bytes = "1 GiB" }', "is below max_bytes"),
    ("WriteFile", '{ under = ["/a"], quota_bytes = "2 TiB" }', "quota_bytes must be a size"),
    ("WriteFile", '{ under = ["/a"], max_files = 0 }', "from 1 to 100,000"),
    ("WriteFile", '{ under = ["/a"], max_files = 100001 }', "from 1 to 100,000"),
    ("WriteFile", '{ under = ["/a"], max_files = true }', "from 1 to 100,000"),
    ("WriteFile", '{ under = ["/a"], modes = [] }', "grants no write"),
    ("WriteFile", '{ under = ["/a"], modes = ["creat"] }', "did you mean 'create'"),
    ("WriteFile", '{ under = ["/a"], modes = ["create", "create"] }', "twice"),
    ("WriteFile", '{ under = ["/a"], hidden = 1 }', "true or false"),
    ("WriteFile", '{ under = ["/a"], create_parents = "yes" }', "true or false"),
    ("WriteFile", '{ under = ["/a/.fxcell-b"] }', "the host's own"),
    ("ListDirectory", '{ under = ["/a"], max_entries = 0 }', "from 1 to 100,000"),
    ("ListDirectory", '{ under = ["/a"], max_bytes = "1 MiB" }', "no key 'max_bytes'"),
    ("DeleteFile", '{ under = ["/a"], max_bytes = "1 MiB" }', "no key 'max_bytes'"),
    ("DeleteFile", "{ under = [] }", "grants no file"),
    ("GetEnvironment", "true", "needs 'names'"),
    ("GetEnvironment", "{ names = [] }", "grants no variable"),
    ("GetEnvironment", '{ names = ["*"] }', "patterns are not taken"),
    ("GetEnvironment", '{ names = ["AWS_*"] }', "patterns are not taken"),
    ("GetEnvironment", '{ names = ["A=B"] }', "not the name of a variable"),
    ("GetEnvironment", '{ names = ["TZ", "TZ"] }', "twice"),
    ("GetEnvironment", '{ names = "TZ" }', "must be a list"),
    ("GetEnvironment", '{ name = ["TZ"] }', "did you mean 'names'"),
]


@pytest.mark.parametrize(("effect", "rule", "message"), BAD, ids=[f"{effect} {rule}" for effect, rule, _ in BAD])
def test_rule_that_cannot_be_is_an_error_with_file_and_line(tmp_path, effect, rule, message):
    file = tmp_path / "p.toml"
    file.write_text(f'extends = "compute"\n\n[effects]\nSleep = false\n{effect} = {rule}\n')
    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(str(file))
    assert (caught.value.file, caught.value.line) == (str(file), 5)


def test_rule_objects_and_tables_are_the_same():
    objects = policy(
        WriteFile=WriteRule(under=["/a"], modes=["replace", "create"], max_bytes=2**20),
        ListDirectory=ListRule(under=["/a"], max_entries=5),
        DeleteFile=UnderRule(under=["/a"], max_calls=2),
        GetEnvironment=EnvironmentRule(names=["TZ", "LANG"]),
    )
    tables = policy(
        WriteFile={"under": ["/a"], "modes": ["create", "replace"], "max_bytes": "1 MiB"},
        ListDirectory={"under": ["/a"], "max_entries": 5},
        DeleteFile={"under": ["/a"], "max_calls": 2},
        GetEnvironment={"names": ["LANG", "TZ"]},
    )
    assert objects == tables


@pytest.mark.parametrize("effect", ["WriteFile", "DeleteFile"])
def test_directory_inside_another_is_refused_where_files_are_changed_and_harmless_where_they_are_read(effect):
    with pytest.raises(PolicyError, match=r"'/srv/data/deep' is inside '/srv/data', .*name only one of the two") as caught:
        policy(**{effect: {"under": ["/srv/data/deep", "/srv/data"], "max_calls": 1}})
    assert caught.value.at == ("effects", effect, "under")
    policy(**{effect: {"under": ["/srv/data", "/srv/database"]}})
    for reading in ("ReadFile", "ListDirectory"):
        held = policy(**{reading: {"under": ["/srv/data", "/srv/data/deep"]}})
        assert granted_root(held, "/srv/data/deep/a", reading) == ("/srv/data/deep", "a")


def test_suggestion_that_widens_a_writing_rule_leaves_out_what_it_covers():
    held = policy(WriteFile={"under": ["/srv/data/deep", "/opt/x"]})
    error = denied(held, WriteFile(path="/srv/data/file", content=b""))
    assert error.suggestion == 'effects.WriteFile.under = ["/opt/x", "/srv/data"]'
