"""The rules of KeyValue effects and of CallPlugin: what is refused when a policy is read, and what at an effect."""

import pytest

from fxcell.policies import rules
from fxcell.policies.builtin import CallPlugin, KeyValueDelete, KeyValueGet, KeyValueList, KeyValueSet
from fxcell.policies.errors import EffectDenied, PolicyError
from fxcell.policies.limits import MiB
from fxcell.policies.loader import load_policy
from fxcell.policies.plugin_names import is_plugin_name
from fxcell.policies.policy import Policy
from fxcell.policies.toml_text import to_toml

STATE = {"directory": "/srv/app/state"}


def policy(**effects):
    return Policy(name="p", effects=effects)


def refused(tmp_path, text):
    """(line, message) of the error about a policy file with this text."""
    file = tmp_path / "app.toml"
    file.write_text(text)
    with pytest.raises(PolicyError) as error:
        load_policy(file)
    assert error.value.file == str(file)
    return error.value.line, error.value.message


def test_set_rule_has_quotas_by_default_and_reads_units():
    rule = policy(KeyValueSet=STATE).effects["KeyValueSet"]
    assert (rule.max_bytes, rule.max_value_bytes, rule.max_keys) == (16 * MiB, MiB, 10_000)
    rule = policy(KeyValueSet={**STATE, "max_bytes": "1 MiB", "max_value_bytes": "64 KiB"}).effects["KeyValueSet"]
    assert (rule.max_bytes, rule.max_value_bytes) == (MiB, 65536)


def test_policy_with_state_and_calls_written_out_is_the_same_policy(tmp_path):
    given = policy(KeyValueSet=STATE, KeyValueGet=STATE, CallPlugin={"plugins": ["b", "a"], "max_depth": 2})
    (tmp_path / "out.toml").write_text(to_toml(given))
    assert load_policy(tmp_path / "out.toml").digest == given.digest
    assert Policy.from_data(given.to_data()) == given


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ("true", "directory"), ('{ directory = "state" }', "absolute"), ('{ directory = "/srv/../state" }', "'..'"),
        ('{ directory = "/" }', "never be granted"), ('{ directory = "/proc/1/root" }', "never be granted"),
        ('{ directory = "/srv/s", max_bytes = 0 }', "max_bytes"), ('{ directory = "/srv/s", max_keys = 0 }', "max_keys"),
        ('{ directory = "/srv/s", max_keys = 1.5 }', "max_keys"), ('{ directory = "/srv/s", max_bytes = "1 MB" }', "max_bytes"),
        ('{ directory = "/srv/s", max_bytes = "1 KiB" }', "max_value_bytes"),
        ('{ directory = "/srv/s", max_value_bytes = "1 GiB" }', "max_value_bytes"),
        ('{ directory = "/srv/s", max_key = 3 }', "did you mean 'max_keys'"),
    ],
)  # fmt: skip
def test_unusable_set_rule_is_refused_with_file_and_line(tmp_path, rule, word):
    line, message = refused(tmp_path, f'extends = "strict"\n[effects]\nNow = true\nKeyValueSet = {rule}\n')
    assert line == 4
    assert word in message


def test_quota_in_a_rule_that_has_none_is_refused():
    with pytest.raises(PolicyError, match="KeyValueGet has no key 'max_bytes'"):
        policy(KeyValueGet={**STATE, "max_bytes": 10})


def test_effects_that_name_two_directories_are_refused_with_file_and_line(tmp_path):
    text = '[effects]\nKeyValueGet = { directory = "/srv/a" }\nKeyValueSet = { directory = "/srv/b" }\n'
    line, message = refused(tmp_path, text)
    assert line == 3
    assert "'/srv/b'" in message
    assert "'/srv/a'" in message


@pytest.mark.parametrize("under", ["/srv/app/state", "/srv/app", "/srv/app/state/deep"])
def test_effect_on_files_that_reaches_into_the_state_is_refused_with_file_and_line(tmp_path, under):
    text = f'[effects]\nReadFile = {{ under = ["{under}"] }}\nKeyValueGet = {{ directory = "/srv/app/state" }}\n'
    line, message = refused(tmp_path, text)
    assert line == 2
    assert "keep state outside" in message


def test_effect_on_files_beside_the_state_is_accepted():
    policy(ReadFile={"under": ["/srv/app/state2", "/srv/app/stat"]}, KeyValueGet=STATE)


@pytest.mark.parametrize("key", ["", "nul\0byte", "lone\ud800", "k" * 513, "ü" * 257])
def test_impossible_key_is_denied_for_every_effect(key):
    granted = policy(KeyValueGet=STATE, KeyValueSet=STATE, KeyValueDelete=STATE)
    for effect in (KeyValueGet(key=key), KeyValueSet(key=key, value=b""), KeyValueDelete(key=key)):
        with pytest.raises(EffectDenied) as denied:
            rules.check(granted, effect)
        assert denied.value.field == "key"
        assert denied.value.suggestion == ""


def test_longest_key_and_any_other_text_is_granted():
    granted = policy(KeyValueGet=STATE, KeyValueList=STATE)
    for key in ("k" * 512, "ü" * 256, "../../etc/passwd", "'; DROP TABLE entries; --", "\n\x1b[31m", "e\u0301"):
        rules.check(granted, KeyValueGet(key=key))
        rules.check(granted, KeyValueList(prefix=key, after=key))
    rules.check(granted, KeyValueList())


def test_prefix_that_no_key_can_have_is_denied():
    with pytest.raises(EffectDenied) as denied:
        rules.check(policy(KeyValueList=STATE), KeyValueList(prefix="a\0"))
    assert denied.value.field == "prefix"


def test_value_over_the_limit_is_denied_with_the_line_that_would_grant_it():
    granted = policy(KeyValueSet={**STATE, "max_value_bytes": 10})
    rules.check(granted, KeyValueSet(key="k", value=bytes(10)))
    with pytest.raises(EffectDenied) as denied:
        rules.check(granted, KeyValueSet(key="k", value=bytes(11)))
    assert denied.value.suggestion == 'effects.KeyValueSet.max_value_bytes = "11 B"'
    wider = policy(KeyValueSet={**STATE, "max_value_bytes": "11 B"})
    rules.check(wider, KeyValueSet(key="k", value=bytes(11)))


def test_value_over_the_whole_quota_suggests_nothing():
    granted = policy(KeyValueSet={**STATE, "max_bytes": 100, "max_value_bytes": 10})
    with pytest.raises(EffectDenied) as denied:
        rules.check(granted, KeyValueSet(key="k", value=bytes(101)))
    assert denied.value.suggestion == ""


def test_plugin_that_is_not_named_is_denied_with_the_line_that_would_grant_it():
    granted = policy(CallPlugin={"plugins": ["resize"]})
    rules.check(granted, CallPlugin(plugin="resize"))
    with pytest.raises(EffectDenied) as denied:
        rules.check(granted, CallPlugin(plugin="thumbs"))
    assert denied.value.suggestion == 'effects.CallPlugin.plugins = ["resize", "thumbs"]'


@pytest.mark.parametrize("twin", ["Resize", "resize ", "re\u200bsize", "ｒesize", "resize.", "./resize", "../resize", ""])
def test_twin_of_a_plugins_name_is_denied(twin):
    with pytest.raises(EffectDenied):
        rules.check(policy(CallPlugin={"plugins": ["resize"]}), CallPlugin(plugin=twin))


def test_call_that_is_not_granted_suggests_the_narrowest_rule():
    with pytest.raises(EffectDenied) as denied:
        rules.check(policy(), CallPlugin(plugin="resize"))
    assert denied.value.suggestion == 'effects.CallPlugin = { plugins = ["resize"] }'


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ("true", "needs 'plugins'"), ("{ plugins = [] }", "grants no call"), ('{ plugins = ["Resize"] }', "lower-case"),
        ('{ plugins = ["a", "a"] }', "twice"), ('{ plugins = ["a"], max_depth = 0 }', "max_depth"),
        ('{ plugins = ["a"], max_depth = 9 }', "max_depth"), ('{ plugins = ["a"], depth = 2 }', "did you mean 'max_depth'"),
    ],
)  # fmt: skip
def test_unusable_call_rule_is_refused_with_file_and_line(tmp_path, rule, word):
    line, message = refused(tmp_path, f"[effects]\nCallPlugin = {rule}\n")
    assert line == 2
    assert word in message


@pytest.mark.parametrize("name", ["notes", "a", "0", "my-plugin_2.1", "a" * 64])
def test_ordinary_name_is_a_plugins_name(name):
    assert is_plugin_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0", "a\n", "Notes", "ñ", "ａ", "a b", "-x", "_x", "a" * 65, 1, None, b"a"]
)
def test_name_that_means_something_in_a_path_or_has_a_twin_is_none(name):
    assert not is_plugin_name(name)
