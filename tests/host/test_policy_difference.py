"""`fxcell policy diff` and `check`: words that are true against the rules, for policies made at random."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxcell import Limits, Policy, load_policy
from fxcell.host import registry
from fxcell.host.commands import exits
from fxcell.host.commands.policy_compare import check_policy, diff_policies
from fxcell.host.difference import Side, difference
from fxcell.host.difference_rules import rules_differ
from fxcell.host.wide_grants import wide_grants
from fxcell.policies import builtin, rules
from fxcell.policies.errors import EffectDenied, PolicyError
from fxcell.policies.loader import profile_names
from fxcell.policies.plain_rule import PlainRule
from fxcell.policies.rule import Rule

HOSTS = [
    "*", "*.b.example", "*.a.b.example", "a.b.example", "b.example", "b.example:8080", "*:8080", "127.0.0.1", "8.8.8.8",
    "localhost:80",
]  # fmt: skip
NAMES = [
    "b.example", "y.b.example", "a.b.example", "x.a.b.example", "other.example", "127.0.0.1", "8.8.8.8", "localhost", "q.localhost",
]  # fmt: skip
FOLDERS = ["/srv", "/srv/data", "/srv/data/deep", "/srv/database", "/opt/x"]
METHODS = ["GET", "HEAD", "POST"]

REQUESTS = [
    builtin.HTTPRequest(url=f"{scheme}://{name}{port}/", method=method, body=body)
    for scheme in ("http", "https") for name in NAMES for port in ("", ":8080", ":443", ":80")
    for method in METHODS for body in (b"", b"x" * 5, b"x" * 50)
]  # fmt: skip
READS = [builtin.ReadFile(path=f"{folder}/file") for folder in [*FOLDERS, "/etc"]]
SLEEPS = [builtin.Sleep(seconds=seconds) for seconds in (0.0, 1.0, 2.0, 5.0, 30.0, 50.0, 90.0)]
LOGS = [builtin.Log(message=text, level=level) for level in ("info", "error", "debug") for text in ("a", "b", "c")]
SAMPLES = {"HTTPRequest": REQUESTS, "ReadFile": READS, "Sleep": SLEEPS, "Log": LOGS}


def subsets(values, low=1, high=3):
    return st.lists(st.sampled_from(values), min_size=low, max_size=high, unique=True)


http_rules = st.fixed_dictionaries(
    {"hosts": subsets(HOSTS)},
    optional={
        "methods": subsets(METHODS), "ports": subsets([80, 443, 8080], 0, 2), "private_hosts": st.booleans(),
        "max_body_bytes": st.sampled_from([0, 10, 100]), "max_calls": st.sampled_from([1, 10, 10_000]),
    },
)  # fmt: skip
file_rules = st.fixed_dictionaries({"under": subsets(FOLDERS)}, optional={"max_bytes": st.sampled_from([1, 2**24])})
sleep_rules = st.fixed_dictionaries(
    {}, optional={"max_seconds": st.sampled_from([1, 5, 50]), "seconds": subsets([1.0, 2.0, 30.0])}
)
log_rules = st.fixed_dictionaries({}, optional={"level": subsets(["info", "error"]), "message": subsets(["a", "b"])})
words = st.sampled_from([(), ("threads",), ("threads", "load_libraries"), ("writable_code",)])


@st.composite
def policies(draw):
    drawn = {}
    for name, kind in {"HTTPRequest": http_rules, "ReadFile": file_rules, "Sleep": sleep_rules, "Log": log_rules}.items():
        if draw(st.booleans()):
            rule = draw(kind)
            try:
                rules.rule_for(name, rule)
            except PolicyError:  # without effect: not a rule that a policy can hold
                continue
            if name == "Sleep" and "seconds" in rule and min(rule["seconds"]) > rule.get("max_seconds", 86_400):
                continue  # grants nothing
            drawn[name] = rule
    return Policy(
        effects=drawn, allow=frozenset(draw(words)), visible=tuple(draw(subsets(FOLDERS, 0, 2))),
        preload=tuple(draw(subsets(["json", "csv"], 0, 2))),
        limits=Limits(threads=16, effects=draw(st.sampled_from([10, 10_000]))),
    )  # fmt: skip


def granted(policy, effect):
    try:
        rules.check(policy, effect)
    except EffectDenied:
        return False
    return True


@settings(max_examples=150)
@given(policies(), policies())
def test_difference_is_empty_exactly_when_the_digests_are_equal(a, b):
    assert (difference(a, b) == ()) == (a.digest == b.digest)
    assert difference(a, a) == ()


@settings(max_examples=150)
@given(policies(), policies())
def test_difference_of_the_reverse_is_the_same_with_sides_exchanged(a, b):
    other = {Side.A: Side.B, Side.B: Side.A}
    there = {(other.get(change.side, change.side), change.at) for change in difference(b, a)}
    assert {(change.side, change.at) for change in difference(a, b)} == there


@settings(max_examples=100)
@given(policies(), policies())
def test_effect_that_one_grants_and_the_other_does_not_is_in_its_words_and_no_word_is_without_one(a, b):
    changes = difference(a, b)
    for name, samples in SAMPLES.items():
        at = f"effects.{name}"
        said = {side: {c.at for c in changes if c.side is side and c.at.startswith(at)} for side in Side}
        assert not said[Side.OTHER]
        by_a, by_b = (
            {place for place, effect in enumerate(samples) if name in policy.effects and granted(policy, effect)}
            for policy in (a, b)
        )
        for side, more, less in ((Side.B, by_b, by_a), (Side.A, by_a, by_b)):
            found = [samples[place] for place in more - less]
            if found:
                assert said[side], (found[0], changes)
            # Sizes of files, counts of calls and the addresses of names are not looked at by the rules alone; and a body's
            # bound is a difference for the methods that have one, which no sample need be granted.
            if {key for key in said[side] if not key.endswith(("max_calls", ".max_bytes", ".private_hosts", ".max_body_bytes"))}:
                assert found, changes


HOST_PAIRS = [
    # a, b, what b allows more (a part of the words), what a allows more
    ({"hosts": ["*.example.com"]}, {"hosts": ["*.example.com", "a.example.com"]}, None, None),
    ({"hosts": ["a.example.com"]}, {"hosts": ["*.example.com"]}, "every host below example.com", None),
    ({"hosts": ["*"]}, {"hosts": ["*.example.com"]}, None, "every public host"),
    ({"hosts": ["*"]}, {"hosts": ["localhost"], "private_hosts": True}, "localhost", "every public host"),
    ({"hosts": ["a.b"]}, {"hosts": ["a.b:8080"]}, "a.b, port 8080", "http at port 80 and https at port 443"),
    ({"hosts": ["a.b"]}, {"hosts": ["a.b"], "ports": [80, 443]}, "http at port 443, https at port 80", None),
    ({"hosts": ["a.b"]}, {"hosts": ["a.b"], "methods": ["GET", "POST"]}, "the method POST", "the method HEAD"),
    ({"hosts": ["a.b"], "max_calls": 5}, {"hosts": ["a.b"]}, "10,000 in one command; the other 5", None),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "more", "less"), HOST_PAIRS)
def test_requests_are_compared_by_what_is_asked_and_not_by_how_it_is_written(a, b, more, less):
    changes = difference(Policy(effects={"HTTPRequest": a}), Policy(effects={"HTTPRequest": b}))
    for side, part in ((Side.B, more), (Side.A, less)):
        texts = [change.text for change in changes if change.side is side]
        assert bool(texts) == (part is not None)
        assert not part or any(part in text for text in texts)
    assert changes


def test_folder_below_one_that_is_granted_is_no_news():
    a = Policy(effects={"ReadFile": {"under": ["/srv"]}})
    b = Policy(effects={"ReadFile": {"under": ["/srv", "/srv/data"]}})
    assert [change.side for change in difference(a, b)] == [Side.SAME]
    c = Policy(effects={"ReadFile": {"under": ["/srv/data", "/srv/database"]}})
    assert [change.text for change in difference(c, a)] == ["what is below /srv"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LaterRule(Rule):
    """A kind of rule, and keys, that the words know nothing of."""

    max_rows: int | None = None
    idle_s: float = 1.0
    colour: str = "red"
    eager: bool = False
    names: tuple[str, ...] = ()
    hidden: bool = False
    ask: bool = False
    rate: str | None = None


MAY = ". It may allow more: this version cannot compare them"
LATER = [
    # what A has, what B has, what A allows more, what B allows more
    ({"max_rows": 5}, {"max_rows": 9}, {}, {"max_rows": "up to 9; the other up to 5"}),
    ({"max_rows": 5}, {}, {}, {"max_rows": "without a bound; the other at most 5"}),
    ({"idle_s": 3.0}, {}, {"idle_s": f"3.0; the other 1.0{MAY}"}, {"idle_s": f"1.0; the other 3.0{MAY}"}),
    ({"colour": "blue"}, {}, {"colour": f'"blue"; the other "red"{MAY}'}, {"colour": f'"red"; the other "blue"{MAY}'}),
    ({"names": ("A",)}, {"names": ("A", "B")}, {}, {"names": "'B'"}),
    ({"hidden": True}, {}, {"hidden": "granted as well"}, {}),
    ({"ask": True}, {}, {}, {"ask": "without asking anybody; for the other somebody must agree to each"}),
    ({"rate": "90/min"}, {"rate": "2/s"}, {"burst": "90 at once; the other 2"}, {"rate": "2/s; the other 90/min"}),
    ({"rate": "90/min"}, {}, {}, {"rate": "as fast as it likes; the other 90/min"}),
    ({"rate": "2/s"}, {"rate": "60/min"}, {"rate": "2/s; the other 60/min"}, {"burst": "60 at once; the other 2"}),
    ({"rate": "1/s"}, {"rate": "60/min", "burst": 1000}, {}, {"burst": "1,000 at once; the other 1"}),
    ({"rate": "10/s"}, {"rate": "10/s", "burst": 1000}, {}, {"burst": "1,000 at once; the other 10"}),
    ({"eager": True}, {}, {"eager": f"true; the other false{MAY}"}, {"eager": f"false; the other true{MAY}"}),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "more_in_a", "more_in_b"), LATER, ids=range(len(LATER)))
def test_kind_of_rule_without_words_of_its_own_is_compared_key_by_key(a, b, more_in_a, more_in_b):
    found = rules_differ("Later", LaterRule(**a), LaterRule(**b), (10, 10))
    for side, expected in ((Side.A, more_in_a), (Side.B, more_in_b)):
        assert {change.at.removeprefix("effects.Later."): change.text for change in found if change.side is side} == expected
    assert {change.side for change in found} <= {Side.A, Side.B}


def test_burst_that_is_the_rates_own_number_is_the_same():
    a, b = LaterRule(rate="10/s"), LaterRule(rate="10/s", burst=10)
    assert [change.side for change in rules_differ("Later", a, b, (10, 10))] == [Side.SAME]


WIDER = {
    # key: a rule's values, and wider ones
    "max_calls": (5, 9), "rate": ("1/s", "2/s"), "burst": (1, 2), "max_total_bytes": (1, 2), "ask": (True, False),
    "under": (["/srv/a"], ["/srv/b"]), "max_bytes": (10, 20), "quota_bytes": (2**28, 2**29), "max_files": (1, 2),
    "modes": (["create"], ["append"]), "create_parents": (False, True), "hidden": (False, True), "max_entries": (1, 2),
    "names": (["TZ"], ["LANG"]), "directory": ("/srv/a", "/srv/b"), "max_value_bytes": (1, 2), "max_keys": (1, 2),
    "plugins": (["a"], ["b"]), "max_depth": (1, 2), "hosts": (["a.b"], ["c.d"]), "methods": (["GET"], ["PUT"]),
    "ports": ([80], [81]), "max_body_bytes": (1, 2), "private_hosts": (False, True),
    "secrets": ({"X-K": "env:A"}, {"X-K": "env:B"}), "secret_hosts": (["a.b"], ["c.d"]),
}  # fmt: skip
BESIDE = {
    "burst": {"rate": "1/s"}, "private_hosts": {"hosts": ["*"]},
    "secret_hosts": {"hosts": ["a.b", "c.d"], "secrets": {"X-K": "env:A"}}, "max_value_bytes": {"max_bytes": 9},
}  # fmt: skip
NEEDED = {"under": ["/srv/a"], "hosts": ["a.b"], "names": ["TZ"], "directory": "/srv/a", "plugins": ["a"]}
EVERY_KEY = [
    (name, field.name)
    for name in [*rules._KINDS, "Log"] for field in dataclasses.fields(rules.rule_kind(name))
    # Of PlainRule: its table has the effect's own fields, compared above; and secrets only effects of one's own have.
    if field.name not in ("allowed", "maxima") and (name, field.name) != ("Log", "secrets")
]  # fmt: skip


@pytest.mark.parametrize(("name", "key"), EVERY_KEY)
def test_value_that_is_wider_is_said_to_allow_more_for_every_key_of_every_rule(name, key):
    kind = rules.rule_kind(name)
    beside = {kind.required: NEEDED[kind.required]} if kind.required else {}
    if key == "max_bytes" and name == "KeyValueSet":
        beside["max_value_bytes"] = 1
    beside |= BESIDE.get(key, {})
    a, b = ({name: beside | {key: value}} for value in WIDER[key])
    found = difference(Policy(effects=a), Policy(effects=b))
    assert [change for change in found if change.side is Side.B]
    # The reverse of a list that was exchanged allows more as well; of a bound it does not.
    both = isinstance(WIDER[key][0], list | dict) or key == "directory"
    assert bool([change for change in found if change.side is Side.A]) is both


def test_secret_from_another_source_in_a_field_is_told_on_both_sides():
    a, b = PlainRule(secrets={"api_key": "env:A"}), PlainRule(secrets={"api_key": "env:B"})
    assert {change.side for change in rules_differ("Mine", a, b, (10, 10))} == {Side.A, Side.B}
    assert {change.side for change in rules_differ("Mine", PlainRule(), b, (10, 10))} >= {Side.B}


SECRET = {"hosts": ["a.b", "c.d"], "secrets": {"X-K": "env:A"}, "secret_hosts": ["a.b"]}
SECRETS = [
    ({**SECRET, "secret_hosts": ["c.d"]}, "env:A is sent to c.d, as X-K"),
    ({**SECRET, "secrets": {"X-K": "env:B"}}, "env:B is sent to a.b, as X-K"),
    ({"hosts": ["a.b", "c.d"]}, "the plugin itself may set X-K; the other's host sets it"),
    ({"hosts": ["a.b", "c.d"]}, "a.b over plain http; the other asks it over https, for its secrets"),
]


@pytest.mark.parametrize(("b", "text"), SECRETS, ids=range(len(SECRETS)))
def test_secret_that_goes_elsewhere_or_nowhere_is_said_to_allow_more(b, text):
    found = difference(Policy(effects={"HTTPRequest": SECRET}), Policy(effects={"HTTPRequest": b}))
    assert text in [change.text for change in found if change.side is Side.B]


def test_directory_with_a_quota_of_its_own_allows_more_than_one_quota_for_all():
    a, b = (Policy(effects={"WriteFile": {"under": under}}) for under in (["/srv"], ["/srv/a", "/srv/b"]))
    found = difference(a, b)
    assert [change.text for change in found if change.side is Side.B] == [
        "a quota of its own for /srv/a", "a quota of its own for /srv/b",
    ]  # fmt: skip


def test_word_brings_the_system_calls_that_it_alone_opens():
    found = {change.at: change.text for change in difference(load_policy("strict"), load_policy("compute"))}
    assert "epoll_create1" in found["allow: threads"]
    assert "With further arguments: mmap" in found["allow: load_libraries"]
    assert "epoll_create1" not in found["allow: load_libraries"]


@pytest.mark.parametrize("name", profile_names())
def test_profile_is_the_same_as_itself_and_exits_0(name, capsys):
    assert diff_policies(name, name, as_json=True) == exits.VALUE
    assert json.loads(capsys.readouterr().out)["changes"] == []


def test_different_policies_exit_1_and_say_both_directions_and_nothing_is_started(capsys):
    assert diff_policies("strict", "network", as_json=False) == exits.DIFFERENT
    text = capsys.readouterr().out
    assert "B allows what A does not\n" in text
    assert "A allows what B does not: nothing" in text
    assert max(map(len, text.splitlines())) <= 120
    assert diff_policies("strict", "networks", as_json=False) == exits.USAGE
    assert registry.list_living() == []


WIDE = {
    "isolation": {"isolation": "trusted"},
    "allow": {"allow": frozenset({"writable_code"})},
    "preload": {"preload": ("json",)},
    "visible": {"visible": ("/srv",)},
    "effects.HTTPRequest.hosts": {"effects": {"HTTPRequest": {"hosts": ["*"]}}},
    "effects.HTTPRequest.methods": {"effects": {"HTTPRequest": {"hosts": ["*.b.example"], "methods": ["POST"]}}},
    "effects.ReadFile.under": {"effects": {"ReadFile": {"under": ["/home/ada"]}}},
    "effects": {"effects": {"ReadFile": {"under": ["/srv/data"]}, "HTTPRequest": {"hosts": ["*"]}}},
}


@pytest.mark.parametrize("path", [
    "/usr/lib/python3/dist-packages", "/home/ada/.venv/lib/python3.11/site-packages", "/home/ada/bin", "/opt/x/sbin/deep",
    "/etc/cron.d", "/lib/systemd", "/usr/local/share",
])  # fmt: skip
@pytest.mark.parametrize("effect", ["WriteFile", "DeleteFile"])
def test_changing_files_where_programs_are_run_or_imported_from_is_warned_of_and_reading_them_is_not(effect, path):
    found = wide_grants(Policy(effects={effect: {"under": [path]}, "ReadFile": {"under": [path]}}))
    assert [at for at, text in found if f"{path} is a folder that programs" in text] == [f"effects.{effect}.under"]
    assert wide_grants(Policy(effects={effect: {"under": ["/srv/data/binary"]}})) == []


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "API_TOKEN", "db_password", "MY_CREDENTIALS"])
def test_variable_whose_name_looks_like_a_secret_is_warned_of(name):
    found = wide_grants(Policy(effects={"GetEnvironment": {"names": ["TZ", name]}}))
    assert [(at, text.split()[0]) for at, text in found] == [("effects.GetEnvironment.names", name)]


@pytest.mark.parametrize("host", ["169.254.169.254", "*"])
def test_private_hosts_and_metadata_addresses_are_warned_of(host):
    found = wide_grants(Policy(effects={"HTTPRequest": {"hosts": [host], "private_hosts": True}}))
    assert "effects.HTTPRequest.private_hosts" in [at for at, _ in found]
    assert ["metadata service" in text for at, text in found if at == "effects.HTTPRequest.hosts"].count(True) == 1


@pytest.mark.parametrize("at", WIDE)
def test_grant_that_is_seldom_meant_is_warned_of_at_its_key(at):
    assert at in [key for key, _ in wide_grants(Policy(**WIDE[at]))]


@pytest.mark.parametrize("name", ["strict", "compute"])
def test_narrow_policy_has_no_warnings(name):
    assert wide_grants(load_policy(name)) == []


def test_check_exits_by_what_it_found(capsys, tmp_path):
    assert check_policy("network", strict=False, as_json=False) == exits.VALUE
    assert "effects.HTTPRequest.hosts" in capsys.readouterr().out
    assert check_policy("network", strict=True, as_json=True) == exits.DIFFERENT
    assert json.loads(capsys.readouterr().out)["warnings"]
    file = tmp_path / "broken.toml"
    file.write_text('extends = "compute"\nalow = []\n')
    assert check_policy(str(file), strict=False, as_json=True) == exits.USAGE
    told = capsys.readouterr()
    assert json.loads(told.out)["line"] == 2
    assert "did you mean 'allow'" in told.err
