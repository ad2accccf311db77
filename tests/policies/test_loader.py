"""Policies from TOML: what is read, and that every error names file and line."""

from __future__ import annotations

import re
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxcell.policies.errors import PolicyError
from fxcell.policies.loader import MAX_FILE_BYTES, load_policy, load_profile, profile_names
from fxcell.policies.policy import Isolation, Policy
from fxcell.policies.toml_lines import key_lines

WHOLE = """
description = "..."
extends = "compute"        # shipped profile or a relative path
isolation = "full"
allow = ["threads"]
visible = ["/srv/data"]
preload = ["numpy"]
[limits]
memory = "256 MiB"
wall = "30 s"
processes = 1
[effects]
Print = true
Sleep = { max_seconds = 10 }
HTTPRequest = { hosts = ["api.example.com"], methods = ["GET"] }
ReadFile = { under = ["/srv/data"], max_bytes = "16 MiB" }
RandomBytes = false
"""


@pytest.fixture
def load(tmp_path):
    def load(text: str, name: str = "mine.toml") -> Policy:
        (tmp_path / name).write_text(textwrap.dedent(text))
        return load_policy(tmp_path / name)

    return load


def test_whole_file_is_read(load):
    policy, base = load(WHOLE), load_policy("compute")
    assert (policy.name, policy.description, policy.isolation) == ("mine", "...", Isolation.FULL)
    assert policy.allow == {"threads"}
    assert (policy.visible, policy.preload) == (("/srv/data",), ("numpy",))
    assert (policy.limits.memory_bytes, policy.limits.wall_s) == (256 * 2**20, 30.0)
    assert policy.limits.cpu_s == base.limits.cpu_s
    assert set(policy.effects) == {"Print", "Log", "Now", "Sleep", "HTTPRequest", "ReadFile"}
    assert policy.effects["Sleep"].maxima == {"seconds": 10.0}
    assert policy.effects["HTTPRequest"].methods == ("GET",)
    assert policy.effects["ReadFile"].max_bytes == 16 * 2**20


def test_empty_file_grants_nothing(load):
    assert load("").replaced(name="unnamed") == Policy()


def test_policy_is_itself_and_paths_and_names_are_told_apart(tmp_path, monkeypatch):
    assert load_policy(Policy()) == Policy()
    (tmp_path / "compute").write_text('description = "a file"')
    monkeypatch.chdir(tmp_path)
    assert load_policy("compute") is load_profile("compute")
    assert load_policy("./compute").description == "a file"
    assert load_policy(tmp_path / "compute").description == "a file"


@pytest.mark.parametrize("spec", [None, 5, b"compute", ["compute"]], ids=repr)
def test_spec_of_another_type_is_a_policy_error(spec):
    with pytest.raises(PolicyError, match="a profile's name, a path or a Policy"):
        load_policy(spec)


@pytest.mark.parametrize("name", ["comput", "Compute", "", "..", "compute\0", "profiles"])
def test_unknown_profile_lists_the_profiles(name):
    with pytest.raises(PolicyError, match="there is no profile") as caught:
        load_policy(name)
    assert all(known in str(caught.value) for known in profile_names())


def test_unknown_profile_names_the_nearest():
    with pytest.raises(PolicyError, match="did you mean 'compute'"):
        load_policy("comput")


def test_extends_a_relative_file_which_extends_a_profile(load, tmp_path):
    (tmp_path / "base").mkdir()
    load('extends = "compute"\nlimits.memory = "300 MiB"', "base/base.toml")
    policy = load('extends = "base/base.toml"\nlimits.cpu = "1 s"\neffects.Print = false')
    assert (policy.limits.memory_bytes, policy.limits.cpu_s) == (300 * 2**20, 1.0)
    assert "Print" not in policy.effects
    assert "Log" in policy.effects
    assert policy.description == ""


def test_rule_given_replaces_the_inherited_rule_as_a_whole(load):
    load('[effects]\nHTTPRequest = { hosts = ["a.example"], methods = ["POST"] }', "base.toml")
    policy = load('extends = "./base.toml"\neffects.HTTPRequest = { hosts = ["b.example"] }')
    assert policy.effects["HTTPRequest"].hosts == ("b.example",)
    assert policy.effects["HTTPRequest"].methods == ("GET", "HEAD")


def test_isolation_is_inherited_unless_given(load):
    assert load('extends = "trusted"').isolation is Isolation.TRUSTED
    assert load('extends = "trusted"\nisolation = "full"').isolation is Isolation.FULL


# text, line, message
BAD = [
    ("nme = 1", 1, "no key 'nme'"),
    ("\n\nextend = 'compute'", 3, "did you mean 'extends'"),
    ("[limit]\nmemory = '1 GiB'", 1, "did you mean 'limits'"),
    ("[limits]\nmemory = '1 GiB'\nwall = 30\n", 3, 'write it as "30 s"'),
    ("[limits]\nmemory = 256\n", 2, 'write it as "256 MiB"'),
    ("limits.memory = 'x'", 1, "not a number and a unit"),
    ("limits = { cpu = '1 s', memory = '1 B' }", 1, "limits.memory_bytes must be"),
    ("limits = 5", 1, "limits must be a table"),
    ("limits = []", 1, "limits must be a table"),
    ("[limits]\n# memory = 1\nprocesses = 2", 3, "without effect: limits.processes"),
    ("[limits]\nmemory_bytes = 5", 2, "write 'memory'"),
    ("[limits]\nthread = 5", 2, "did you mean 'threads'"),
    ("[limits]\nthreads = '5'", 2, "limits.threads must be"),
    ("[limits]\nthreads = nan", 2, "limits.threads must be"),
    ("effects = true", 1, "effects must be a table"),
    ("[effects]\nPrint = true\nPront = true", 3, "did you mean 'Print'"),
    ("[effects]\nPrint = true\n[effects.Pront]\n", 3, "did you mean 'Print'"),
    ("[effects]\nPrint = 1", 2, "must be true or a table"),
    ("[effects]\nPrint = false", 2, "without effect: it is not inherited"),
    ("[effects]\nPrnt = false", 2, "did you mean 'Print'"),
    ("[effects]\nStopWorkerProcess = true", 2, "can never be granted"),
    ("[effects]\nHTTPRequest = { methods = ['GET'] }", 2, "needs 'hosts'"),
    ("[effects.HTTPRequest]\nmethods = ['GET']\nhosts = ['A.b']", 3, "lower-case"),
    ("[effects.HTTPRequest]\nhosts = ['a.b']\nmethod = ['GET']", 3, "did you mean 'methods'"),
    ("[effects]\nHTTPRequest.hosts = ['a.b']\nHTTPRequest.ports = [0]", 3, "ports must be"),
    ("[effects]\nReadFile = { under = ['/a'], max_bytes = '5' }", 2, "not a number and a unit"),
    ("effects.Sleep.max_second = 5", 1, "did you mean 'max_seconds'"),
    ("[effects.Sleep]\nmax_calls = 5\nmax_seconds = -5", 3, "finite number"),
    ("allow = [\n  'threads',\n  'thread',\n]", 1, "did you mean 'threads'"),
    ("visible = ['/srv']\nallow = ['ptrace']", 2, "can never be granted"),
    ("allow = 'threads'", 1, "must be a list"),
    ("\nallow = ['scratch']", 2, "without effect"),
    ("[limits]\nscratch = '1 MiB'", 2, "without effect"),
    ("isolation = 'none'", 1, "isolation must be"),
    ("isolation = 'trusted'\nvisible = ['/srv']", 2, "without effect"),
    ("visible = ['srv']", 1, "not an absolute path"),
    ("preload = ['a b']", 1, "not the dotted name"),
    ("description = 5", 1, "description must be a text"),
    ("description = '''\nallow = 5\n'''\nallow = 5", 4, "must be a list"),
    ("'allow' = 5", 1, "must be a list"),
    ('"extends" = 5', 1, "extends must be"),
    ("extends = ''", 1, "extends must be"),
    ("\nextends = 'comput'", 2, "did you mean 'compute'"),
    ("extends = './none.toml'", 1, "there is no file"),
    ("extends = './bad.toml'", 1, "leads back"),
    ("extends = 'trusted'\nallow = ['threads']", 2, "without effect"),
    ("allow = [\n'threads'", 2, "not valid TOML"),
    ("a = 1\na = 2", 2, "not valid TOML"),
    ("\n\nallow", 3, "not valid TOML"),
    ("a = 1979-13-01", 1, "not valid TOML"),
    ("\ufeffallow = []", 1, "not valid TOML"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD, ids=[repr(text)[:60] for text, _, _ in BAD])
def test_error_names_file_and_line(tmp_path, text, line, message):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(str(file))
    assert (caught.value.file, caught.value.line) == (str(file), line)
    assert str(caught.value).startswith(f"{file}:{line}: ")


def test_error_in_an_extended_file_names_that_file(load, tmp_path):
    with pytest.raises(PolicyError):
        load("\n\nallow = ['x']", "base.toml")
    with pytest.raises(PolicyError) as caught:
        load("extends = './base.toml'")
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "base.toml"), 3)


def test_inherited_word_that_loses_its_effect_is_an_error_at_extends(load):
    load("allow = ['threads']\n[limits]\nthreads = 1", "base.toml")
    with pytest.raises(PolicyError, match="without effect") as caught:
        load("description = ''\nextends = './base.toml'\nlimits.threads = 0")
    assert caught.value.line == 2


def test_cycle_over_two_files_is_an_error(load, tmp_path):
    (tmp_path / "a.toml").write_text("extends = './b.toml'")
    with pytest.raises(PolicyError, match="leads back to a file that extends this one"):
        load("extends = '../" + tmp_path.name + "/a.toml'", "b.toml")


def test_chain_that_is_too_long_is_an_error(load, tmp_path):
    for n in range(30):
        (tmp_path / f"p{n}.toml").write_text(f"extends = './p{n + 1}.toml'")
    with pytest.raises(PolicyError, match="chain of over 16 files"):
        load_policy(tmp_path / "p0.toml")


@pytest.mark.parametrize("content", [b"allow = []\n# \xff", b"\n\xc3("], ids=["comment", "second line"])
def test_bytes_that_are_not_utf8_name_the_line(tmp_path, content):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(PolicyError, match="UTF-8") as caught:
        load_policy(tmp_path / "x.toml")
    assert caught.value.line == 2


def test_file_over_the_cap_is_an_error(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"#" * MAX_FILE_BYTES)
    assert load_policy(tmp_path / "x.toml").name == "x"
    (tmp_path / "x.toml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(PolicyError, match="larger than"):
        load_policy(tmp_path / "x.toml")


def test_missing_file_folder_and_device_are_errors(tmp_path):
    with pytest.raises(PolicyError, match="cannot be read") as caught:
        load_policy(tmp_path / "none.toml")
    assert caught.value.file == str(tmp_path / "none.toml")
    with pytest.raises(PolicyError, match="not a regular file"):
        load_policy(tmp_path)
    with pytest.raises(PolicyError, match="not a regular file"):
        load_policy("/dev/zero")
    with pytest.raises(PolicyError):
        load_policy("x\0/y.toml")


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 20_000 + "]" * 20_000, "a = " + "{a=" * 5_000 + "1" + "}" * 5_000, "a = " + "9" * 5_000],
    ids=["lists", "tables", "digits"],
)  # fmt: skip
def test_hostile_toml_is_a_policy_error(load, text):
    with pytest.raises(PolicyError):
        load(text)


def test_windows_line_ends_count_as_one(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"allow = []\r\n\r\nvisible = 5\r\n")
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path / "x.toml")
    assert caught.value.line == 3


LINES = '''\
a = 1 # b = 2
"b c" = """
x = 1
""" # c
'd' = \'\'\'
[e]
\'\'\'
f.g . h = [ # comment ]
  { i = 1, j = "}" },
  "]", ']', # k = 1
]
[l.m]
n = { o = { p = 1, "q" = [1, 2] }, r.s = 2 }
t = "a\\"b = 1"

[l."u.v"]
w = 1979-05-27T07:32:00Z
[[x]]
y = 1
[[x]]
y = 2
'''


def test_lines_of_keys():
    assert dict(key_lines(LINES)) == {
        ("a",): 1, ("b c",): 2, ("d",): 5, ("f",): 8, ("f", "g"): 8, ("f", "g", "h"): 8, ("f", "g", "h", "i"): 9,
        ("f", "g", "h", "j"): 9, ("l",): 12, ("l", "m"): 12, ("l", "m", "n"): 13, ("l", "m", "n", "o"): 13,
        ("l", "m", "n", "o", "p"): 13, ("l", "m", "n", "o", "q"): 13, ("l", "m", "n", "r"): 13,
        ("l", "m", "n", "r", "s"): 13, ("l", "m", "t"): 14, ("l", "u.v"): 16, ("l", "u.v", "w"): 17, ("x",): 18,
        ("x", "y"): 19,
    }  # fmt: skip


KEY = st.from_regex(r"[A-Za-z0-9_-]{1,4}", fullmatch=True)
SCALAR = st.sampled_from(["1", "true", "-0.5", '"a # b"', "'c = {'", '"""x\n]y = 1"""', "'''\n[z]\n'''", "1979-05-27"])
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"), max_leaves=4
)


@given(st.lists(st.tuples(KEY, VALUE, st.integers(0, 2)), unique_by=lambda row: row[0], max_size=8))
def test_lines_of_any_keys_are_where_they_were_written(rows):
    text, expected = "", {}
    for key, value, blanks in rows:
        text += "\n" * blanks
        expected[(key,)] = text.count("\n") + 1
        text += f"{key} = {value} # {key} = 2\n"
    assert dict(key_lines(text)) == expected


def test_suggestion_of_a_denial_can_be_pasted_into_the_file(load):
    from fxcell.policies.builtin import HTTPRequest
    from fxcell.policies.errors import EffectDenied
    from fxcell.policies.rules import check

    effect = HTTPRequest(url="https://b.example/")
    text = "effects.HTTPRequest.hosts = ['a.example']"
    with pytest.raises(EffectDenied) as caught:
        check(load(text), effect)
    check(load(caught.value.suggestion), effect)
    assert re.fullmatch(r"effects\.\w+\.hosts = \[.*\]", caught.value.suggestion)
