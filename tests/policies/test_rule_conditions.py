"""What every rule can say: rate, burst, max_total_bytes, ask. Read exactly, kept in every form, refused with file and line."""

from __future__ import annotations

import pickle

import pytest

from fxcell.policies.effects import Effect
from fxcell.policies.errors import PolicyError
from fxcell.policies.limits import Limits
from fxcell.policies.loader import load_policy
from fxcell.policies.policy import Policy
from fxcell.policies.rates import parse_rate
from fxcell.policies.rules import PlainRule, rule_for
from fxcell.policies.toml_text import to_toml


class Spin(Effect):
    """An effect whose fields are called like the keys of a rule."""

    rate: float
    ask: str = "x"
    burst: int = 1


RULES = [
    ("Now", {"rate": "10/s"}),
    ("Now", {"rate": "10/s", "burst": 20, "max_calls": 3, "ask": True, "max_total_bytes": 4096}),
    ("Sleep", {"max_seconds": 5.0, "rate": "5/h"}),
    ("HTTPRequest", {"hosts": ["a.example"], "rate": "600/min", "ask": True, "max_total_bytes": 2**20}),
    ("ReadFile", {"under": ["/srv"], "max_total_bytes": 2**20}),
    ("Spin", {"rate": [1.5, 2.0], "ask": ["x"], "max_burst": 5, "max_rate": 9.0}),
]


@pytest.mark.parametrize(("effect", "rule"), RULES, ids=lambda value: str(value)[:60])
def test_rule_survives_data_toml_and_pickle_with_the_same_digest(effect, rule, tmp_path):
    policy = Policy(effects={effect: rule})
    again = Policy.from_data(policy.to_data())
    (tmp_path / "written.toml").write_text(to_toml(policy))
    for other in (again, load_policy(tmp_path / "written.toml"), pickle.loads(pickle.dumps(policy))):
        assert other.digest == policy.digest
        assert other.effects == policy.effects
    assert rule.items() <= policy.effects[effect].to_data().items()


@pytest.mark.parametrize(
    "change", [{"rate": "10/min"}, {"rate": "11/s"}, {"burst": 7}, {"ask": True}, {"max_total_bytes": 9}, {"max_calls": 1}], ids=str
)
def test_every_condition_is_part_of_the_digest(change):
    base = {"rate": "10/s", "burst": 6, "max_total_bytes": 8}
    one, two = Policy(effects={"Now": base}), Policy(effects={"Now": base | change})
    assert one.digest != two.digest
    assert one.effects["Now"] != two.effects["Now"]


def test_conditions_that_are_not_used_leave_the_digest_as_it_was():
    assert rule_for("Now", True).to_data() == {}
    assert rule_for("Now", {"ask": False}) == rule_for("Now", True)
    assert set(rule_for("ReadFile", {"under": ["/srv"]}).to_data()) == {"under", "max_bytes"}
    assert not rule_for("Now", {"max_calls": 3}).gated


def test_sizes_are_written_with_units_in_toml(tmp_path):
    (tmp_path / "p.toml").write_text('[effects]\nNow = { max_total_bytes = "4 KiB", rate = "10 / s" }\n')
    rule = load_policy(tmp_path / "p.toml").effects["Now"]
    assert (rule.max_total_bytes, rule.rate) == (4096, "10/s")


BAD = [
    ('Now = { rate = "10" }', 'rate = \'10\' has no unit; write it as "10/s"'),
    ("Now = { rate = 10 }", 'rate = 10 has no unit; write it as "10/s"'),
    ('Now = { rate = "0/s" }', "allows nothing"),
    ('Now = { rate = "-1/s" }', "is not a whole number"),
    ('Now = { rate = "1.5/s" }', "is not a whole number"),
    ('Now = { rate = "10/S" }', "unknown unit 'S'"),
    ('Now = { rate = "10/mins" }', "unknown unit 'mins'; did you mean 'min'?"),
    ('Now = { rate = "1000001/s" }', "is over 1000000"),
    ('Now = { rate = "١٠/s" }', "is not a whole number"),
    ("Now = { rate = true }", 'rate must be a text such as "10/s", got bool'),
    ("Now = { burst = 5 }", "burst = 5 is without effect: there is no rate"),
    ('Now = { rate = "1/s", burst = 0 }', "burst must be a whole number from 1"),
    ('Now = { rate = "1/s", burst = true }', "burst must be a whole number from 1"),
    ('Now = { rate = "1/s", burst = "5" }', "burst must be a whole number from 1"),
    ('Now = { rate = "10001/s" }', "effects.Now.rate lets 10001 through at once, limits.effects = 10000 fewer"),
    ('Now = { rate = "1/s", burst = 10001 }', "effects.Now.burst lets 10001 through at once"),
    ("Now = { max_total_bytes = 0 }", "max_total_bytes = 0 allows nothing"),
    ("Now = { max_total_bytes = -1 }", "max_total_bytes must be a size"),
    ('Now = { max_total_bytes = "10" }', "is not a number and a unit"),
    ('Now = { ask = "yes" }', "ask must be true or false, got 'yes'"),
    ("Now = { ask = 1 }", "ask must be true or false, got 1"),
    ('Now = { rates = "1/s" }', "effects.Now has no key 'rates'; did you mean 'rate'?"),
    ('ReadFile = { under = ["/srv"], rats = "1/s" }', "effects.ReadFile has no key 'rats'; did you mean 'rate'?"),
    ('ReadFile = { under = ["/srv"], burst = 5 }', "effects.ReadFile: burst = 5 is without effect"),
    ('HTTPRequest = { hosts = ["a.example"], rate = "5" }', "effects.HTTPRequest: rate = '5' has no unit"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_condition_that_cannot_be_is_an_error_with_file_and_line(line, message, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(f"description = 'x'\n\n[effects]\nPrint = true\n{line}\n")
    with pytest.raises(PolicyError) as refused:
        load_policy(path)
    assert message in str(refused.value)
    assert (refused.value.file, refused.value.line) == (str(path), 5)


def test_rate_that_the_inherited_limit_lets_no_command_reach_is_refused():
    with pytest.raises(PolicyError, match=r"limits\.effects = 5"):
        Policy(effects={"Now": {"rate": "6/s"}}, limits=Limits(effects=5))
    assert Policy(effects={"Now": {"rate": "6/s", "burst": 5}}, limits=Limits(effects=5))


def test_key_that_is_both_a_field_and_a_condition_is_refused():
    with pytest.raises(PolicyError, match="cannot be both"):
        PlainRule(allowed={"rate": [1.0]}, rate="1/s")


@pytest.mark.parametrize(("text", "per_second"), [("10/s", 10.0), ("600/min", 10.0), ("36000/h", 10.0), ("1 / h", 1 / 3600)])
def test_rates_in_all_units(text, per_second):
    assert parse_rate(text).per_second == pytest.approx(per_second)
