"""`fxcell policy explain` and `fxcell policy show`: complete, true to the filter, and nothing is started."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from fxcell import Limits, Policy, load_policy
from fxcell.host import explain_calls, templates
from fxcell.host.commands import exits
from fxcell.host.commands.policy import explain_policy, show_policy
from fxcell.host.disassemble import disassemble
from fxcell.host.explain import explain
from fxcell.policies.loader import profile_names
from fxcell.policies.toml_text import to_toml
from fxcell.policies.words import WORDS
from fxcell.sandbox import plan, syscalls
from fxcell.sandbox.filter import compile_filter
from fxcell.sandbox.syscalls import Compare
from tests.sandbox import bpf

SANDBOXED = [name for name in profile_names() if name != "trusted"]
ARCHITECTURE = bpf.ARCHITECTURES.get(os.uname().machine, 0)


def loaded(text, tmp_path, name="again"):
    file = tmp_path / f"{name}.toml"
    file.write_text(text)
    return load_policy(str(file))


# --- show


@pytest.mark.parametrize("name", profile_names())
def test_shown_profile_loads_to_the_same_policy(tmp_path, capsys, name):
    assert show_policy(name) == exits.VALUE
    text = capsys.readouterr().out
    policy = load_policy(name)
    assert loaded(text, tmp_path, name) == policy
    assert policy.digest in text
    assert "extends" not in text


UNUSUAL = {
    "odd numbers": Policy(limits=Limits(memory_bytes=2**24 + 1, cpu_s=0.1 + 0.2, wall_s=1 / 3, message_bytes=10**9)),
    "largest": Policy(limits=Limits(memory_bytes=2**42, wall_s=2_592_000.0, effects=2**31 - 1)),
    "words and rules": Policy(
        name="odd \"name\"\n[limits]\nmemory = 'none'", description='with "quotes", \\ and \x7f and é',
        allow=frozenset({"threads", "scratch", "processes"}), limits=Limits(scratch_bytes=4096, processes=3),
        visible=("/srv/a b", '/srv/"quoted"'), preload=("json", "csv"),
        effects={
            "HTTPRequest": {"hosts": ["api.example.com", "127.0.0.1:8080"], "private_hosts": True, "max_calls": 3, "ports": [443]},
            "ReadFile": {"under": ["/srv/data"], "max_bytes": 12345},
            "Log": {"level": ["info", 'odd "level"']},
            "Sleep": {"max_seconds": 0.25},
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL)
def test_shown_policy_of_ones_own_loads_to_the_same_digest(tmp_path, name):
    policy = UNUSUAL[name]
    again = loaded(to_toml(policy), tmp_path)
    assert again.digest == policy.digest
    assert again.description == policy.description


def test_unusable_policy_is_usage_for_both(capsys, tmp_path):
    assert show_policy("computer") == exits.USAGE
    assert explain_policy("computer", as_json=False, show_filter=False) == exits.USAGE
    assert capsys.readouterr().err.count("'computer'") == 2
    file = tmp_path / "sees.toml"
    file.write_text(f'extends = "compute"\nvisible = ["{tmp_path.resolve()}/gone"]\n')
    assert explain_policy(str(file), as_json=False, show_filter=False) == exits.USAGE
    assert "visible" in capsys.readouterr().err


# --- explain


@pytest.mark.parametrize("name", profile_names())
def test_explained_profile_says_everything_and_starts_nothing(capsys, name):
    before = dict(templates._templates)
    assert explain_policy(name, as_json=True, show_filter=True) == exits.VALUE
    told = json.loads(capsys.readouterr().out)
    assert templates._templates == before
    policy = load_policy(name)
    layers = plan.CONTAINMENT_LAYERS if name == "trusted" else plan.LAYERS
    assert [row["layer"] for row in told["layers"]] == list(layers)
    assert all(row["reason"] for row in told["layers"])
    assert {row["word"]: row["opens"] for row in told["words"]} == {word: WORDS[word] for word in policy.allow}
    assert [row["effect"] for row in told["effects"]] == list(policy.effects)
    units = {"bytes": "_bytes", "s": "_s", "": ""}
    assert {row["limit"] + units[row["unit"]]: row["value"] for row in told["limits"]} == policy.limits.to_data()
    assert (told["digest"], told["accepts"]["tier"]) == (policy.digest, policy.isolation.value)
    assert (told["calls"] is None) == (told["filter"] is None) == (told["view"] is None) == (name == "trusted")


@pytest.mark.parametrize("name", SANDBOXED)
def test_explained_calls_are_what_the_compiled_filter_answers(name):
    policy = load_policy(name)
    told = explain(policy)["calls"]
    program = compile_filter(policy.allow)
    numbers = {explain_calls.syscall_name(number): number for number in range(syscalls.NEW_CALLS.start)}
    answers = {call: bpf.reachable(program, number, ARCHITECTURE) for call, number in numbers.items()}
    allowed = {row["name"] for row in told["allowed"]}
    assert {call for call, possible in answers.items() if bpf.ALLOW in possible} == allowed & set(numbers)
    assert told["reachable"] == len(allowed)
    for call in told["ends_the_worker"]:
        assert answers[call] == {bpf.NOTIFY}, call
    for group in told["refused"]:
        for call in set(group["names"]) & set(numbers) - allowed:
            assert answers[call] == {bpf.ERRNO | getattr(errno, group["errno"])}, call


@pytest.mark.parametrize("name", SANDBOXED)
def test_every_row_has_a_reason_and_every_comparison_words(name):
    told = explain(load_policy(name))["calls"]
    rows = syscalls.allowed(load_policy(name).allow)
    assert all(row["reason"] for row in told["allowed"])
    assert {row["name"] for row in told["allowed"] if row["condition"]} == {row.name for row in rows if row.when}
    assert not [
        row for row in told["allowed"] if "argument " in row["condition"]
    ]  # each argument that is compared has a name


@pytest.mark.parametrize(
    ("call", "compare", "words"),
    [
        ("mprotect", Compare(2, 0, 4), "protection without PROT_EXEC"),
        ("mmap", Compare(2, 4, 6), "protection with PROT_EXEC and without PROT_WRITE"),
        ("socketpair", Compare(0, 1, 0xFFFFFFFF), "family is AF_UNIX"),
        (
            "socketpair",
            Compare(1, 1, 0xFFFFFFFF & ~0x80800),
            "type is SOCK_STREAM (with or without SOCK_NONBLOCK|SOCK_CLOEXEC)",
        ),
        ("sendto", Compare(4, 0), "address is nothing"),
        ("kill", Compare(0, syscalls.WORKER_PID, 0xFFFFFFFF), "process is the worker itself"),
        ("unheard_of", Compare(5, 0x123, 0xFFFFFFFF), "argument 5 is 0x123"),
    ],
)
def test_comparison_reads_as_a_sentence(call, compare, words):
    assert explain_calls.condition(call, compare) == words


def test_instructions_are_counted_and_disassembled_one_by_one():
    program = compile_filter(load_policy("compute").allow)
    told = explain(load_policy("compute"), disassembled=True)["filter"]
    assert (told["instructions"], told["bytes"]) == (len(program) // 8, len(program))
    lines = told["disassembly"]
    assert [line[:4] for line in lines] == [f"{number:04}" for number in range(len(program) // 8)]
    assert lines[0].endswith("ld   architecture")
    assert not [line for line in lines if "code 0x" in line]
    text = "\n".join(lines)
    machine = os.uname().machine
    for part in (machine, "x32" if machine == "x86_64" else "", " write ", "ret  allow", "ret  notify", "errno ENOSYS"):
        assert part in text


def test_disassembly_of_what_is_no_filter_of_ours_still_answers():
    lines = disassemble(bytes.fromhex("2000000000000000150001002600000087000000010000000600000000000380"))
    assert lines[0] == "0000: ld   number"
    assert "code 0x87" in lines[2]
    assert lines[3] == "0003: ret  0x80030000"


def test_unprivileged_policy_is_told_with_both_sets_of_layers():
    told = explain(load_policy("compute").replaced(isolation="unprivileged"))
    assert told["layers_without_namespaces"] == list(plan.UNPRIVILEGED_LAYERS)
    assert "exist" in told["accepts"]["means"]


def test_visible_folder_is_in_the_view(tmp_path):
    folder = str(tmp_path.resolve())
    told = explain(load_policy("compute").replaced(visible=(folder,)))
    assert folder in told["view"]["trees"]
    assert not [tree for tree in told["view"]["trees"] if tree.endswith("/host")]


@pytest.mark.parametrize(
    "arguments", [["explain", "compute", "--filter"], ["explain", "trusted"], ["show", "network"]], ids=" ".join
)
def test_command_as_a_user_calls_it(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "fxcell", "policy", *arguments], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    if arguments[0] == "explain":
        assert lines[0].startswith(f"Policy {arguments[1]}, digest ")
        assert "Limits" in lines
    if "--filter" in arguments:
        assert any("System calls that reach the kernel" in line for line in lines)
        assert max(len(line) for line in lines) <= 120
