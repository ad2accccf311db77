"""`fxcell run` as a user runs it: real processes, their exit codes and what they print."""

import base64
import datetime
import decimal
import json
import os
import signal
import subprocess
import sys
import uuid

import numpy as np
import pytest

from fxcell.host.commands import exits, shown
from fxcell.host.commands.run import parse_arguments, split_target
from fxcell.policies.builtin import Print
from fxcell.policies.errors import UserError
from tests.leaks import assert_nothing_left

PLUGIN = """
import os
from fxcell import FX, run

def main(**given):
    return given

def talk():
    print('printed')
    FX.Print(content='shown') | run
    return b'bytes'

def fail():
    raise ValueError('bad \\x1b[31m value')

def ask_now():
    return FX.Now() | run

def read(path):
    return FX.ReadFile(path=path) | run

def segfault():
    import ctypes
    ctypes.string_at(0)

def leave():
    os._exit(0)

def spin():
    while True: pass

def spin_loudly():
    FX.Print(content='started') | run
    spin()
"""


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "plug.py").write_text(PLUGIN)
    return str(tmp_path / "plug.py")


def fxcell(*arguments, code=None):
    """Run the command line, which must leave nothing behind and print no traceback of its own."""
    code = ["-m", "fxcell"] if code is None else ["-c", code]
    with assert_nothing_left():
        done = subprocess.run([sys.executable, *code, *arguments], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    return done


def only_line(done):
    """The one line on stderr."""
    (line,) = done.stderr.splitlines()
    return line


def test_a_value_is_printed_and_exits_0(plugin):
    done = fxcell("run", plugin, "--arg", "n=3", "-a", 'list=[1, null]', "-a", "text=plain words", "-a", "empty=")
    assert (done.returncode, done.stderr) == (exits.VALUE, "")
    assert done.stdout == "{'n': 3, 'list': [1, None], 'text': 'plain words', 'empty': ''}\n"


def test_json_keeps_stdout_to_one_object(plugin):
    done = fxcell("run", f"{plugin}:talk", "--json")
    assert (done.returncode, done.stderr) == (exits.VALUE, "printed\nshown\n")
    assert json.loads(done.stdout) == {"outcome": "value", "value": {"$bytes": base64.b64encode(b"bytes").decode()}}


def test_a_plugin_that_raises_exits_1_with_one_harmless_line(plugin):
    done = fxcell("run", f"{plugin}:fail")
    assert done.returncode == exits.PLUGIN_ERROR
    assert only_line(done) == r"fxcell: the plugin raised ValueError: bad \x1b[31m value (plug.py, line 14, in fail)"
    told = json.loads(fxcell("run", f"{plugin}:fail", "--json").stdout)
    assert (told["outcome"], told["type"], told["message"]) == ("PluginError", "ValueError", r"bad \x1b[31m value")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["PLUGIN:nothing"], "but plug.py has none. Functions it has: ask_now, fail"),
        (["/nowhere/p.py"], "there is no plugin '/nowhere/p.py'"),
        (["PLUGIN", "--policy", "computer"], "there is no profile 'computer'; did you mean 'compute'"),
        (["PLUGIN", "--policy", "./nowhere.toml"], "nowhere.toml: cannot be read"),
        (["PLUGIN", "--arg", "n"], "--arg 'n' must be name=value"),
        (["PLUGIN", "--arg", "n=1", "--arg", "n=2"], "given twice"),
        (["PLUGIN", "--deadline", "0"], "--deadline must be a number of seconds above 0"),
        (["PLUGIN", "--deadline", "nan"], "--deadline must be"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_exits_2(plugin, arguments, says):
    arguments = [text.replace("PLUGIN", plugin) for text in arguments]
    done = fxcell("run", *arguments)
    assert (done.returncode, done.stdout) == (exits.USAGE, "")
    assert says in only_line(done)


def test_a_wrong_option_exits_2(plugin):
    assert fxcell("run", plugin, "--colour").returncode == exits.USAGE
    assert fxcell("run").returncode == exits.USAGE


def test_usage_errors_are_json_objects_too(plugin):
    told = json.loads(fxcell("run", f"{plugin}:nothing", "--json").stdout)
    assert told["outcome"] == "PluginNotUsable"
    assert "plug.py has none" in told["message"]


def test_an_effect_that_is_not_granted_exits_3_and_says_what_to_add(plugin):
    done = fxcell("run", f"{plugin}:read", "-a", "path=/etc/shadow")
    assert done.returncode == exits.DENIED
    assert 'add to the policy: effects.ReadFile = { under = ["/etc"] }' in only_line(done)
    told = json.loads(fxcell("run", f"{plugin}:read", "-a", "path=/etc/shadow", "--json").stdout)
    assert (told["outcome"], told["effect"], told["policy"]) == ("EffectDenied", "ReadFile", "compute")


def test_an_effect_that_the_manifest_does_not_request_exits_3_and_names_the_manifest(tmp_path):
    (tmp_path / "plugin.toml").write_text('name = "n"\nversion = "1"\nentry = "plug:ask_now"\neffects = ["Print"]\n')
    (tmp_path / "plug.py").write_text(PLUGIN)
    done = fxcell("run", str(tmp_path))
    assert done.returncode == exits.DENIED
    assert only_line(done) == (
        f"fxcell: FX.Now is denied: {tmp_path}/plugin.toml does not request it. "
        'To allow it, write there: effects = ["Now", "Print"]'
    )
    told = json.loads(fxcell("run", str(tmp_path), "--json").stdout)
    assert (told["outcome"], told["suggestion"]) == ("EffectDenied", 'effects = ["Now", "Print"]')


def test_a_granted_effect_that_fails_exits_4(plugin, tmp_path):
    (tmp_path / "p.toml").write_text(f'extends = "compute"\neffects.ReadFile = {{ under = ["{tmp_path}"] }}\n')
    done = fxcell("run", f"{plugin}:read", "-a", f"path={tmp_path}/none", "--policy", str(tmp_path / "p.toml"))
    assert done.returncode == exits.EFFECT_FAILED
    assert "FX.ReadFile failed (not_found)" in only_line(done)


def test_a_granted_effect_answers(plugin, tmp_path):
    (tmp_path / "p.toml").write_text(f'extends = "compute"\neffects.ReadFile = {{ under = ["{tmp_path}"] }}\n')
    (tmp_path / "data").write_bytes(b"found")
    done = fxcell("run", f"{plugin}:read", "-a", f"path={tmp_path}/data", "--policy", str(tmp_path / "p.toml"))
    assert (done.returncode, done.stdout) == (exits.VALUE, "b'found'\n")


def test_a_signal_exits_128_plus_its_number(plugin):
    done = fxcell("run", f"{plugin}:segfault", "--json")
    assert done.returncode == 128 + signal.SIGSEGV
    assert only_line(done).startswith("fxcell: the worker crashed: signal: the worker died of SIGSEGV")
    told = json.loads(done.stdout)
    assert (told["outcome"], told["reason"], told["signal_name"]) == ("WorkerCrash", "signal", "SIGSEGV")


def test_an_exit_without_an_answer_exits_120(plugin):
    done = fxcell("run", f"{plugin}:leave")
    assert (done.returncode, done.stdout) == (exits.CRASH, "")
    assert "exited with status 0 instead of answering" in only_line(done)


def test_a_passed_deadline_exits_137(plugin):
    done = fxcell("run", f"{plugin}:spin", "--deadline", "0.3")
    assert done.returncode == 128 + signal.SIGKILL
    assert only_line(done) == "fxcell: the worker crashed: deadline: no answer within 0.3 s"


def test_a_worker_that_cannot_start_exits_125(plugin, tmp_path):
    (tmp_path / "p.toml").write_text('extends = "compute"\npreload = ["no_such_library"]\n')
    done = fxcell("run", plugin, "--policy", str(tmp_path / "p.toml"))
    assert done.returncode == exits.SANDBOX
    assert "no_such_library" in only_line(done)


def test_another_system_than_linux_exits_125(plugin):
    code = "import platform; platform.system = lambda: 'Darwin'\nfrom fxcell.host.commands import main; main()"
    done = fxcell("run", plugin, code=code)
    assert done.returncode == exits.SANDBOX
    assert only_line(done) == "fxcell: workers need Linux: seccomp, Landlock and namespaces; this is Darwin"


def test_ctrl_c_ends_the_worker_and_exits_130(plugin):
    command = [sys.executable, "-m", "fxcell", "run", f"{plugin}:spin_loudly"]
    with assert_nothing_left():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (exits.INTERRUPTED, "", "fxcell: interrupted; the worker was ended\n")


def test_help_lists_every_exit_code():
    text = fxcell("run", "--help").stdout
    for code in ("0", "1", "2", "3", "4", "120", "125", "128+N", "130"):
        assert any(line.split()[:1] == [code] for line in text.splitlines()), code


def test_an_answer_that_the_terminal_cannot_show_is_escaped(plugin):
    command = [sys.executable, "-m", "fxcell", "run", plugin, "-a", "t=\u03c0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, "{'t': '\\u03c0'}\n")


def test_version_is_the_packages():
    import fxcell as package

    assert fxcell("--version").stdout == f"fxcell {package.__version__}\n"


def test_importing_the_package_loads_no_command_line():
    code = "import sys, fxcell; fxcell.FX, fxcell.run; print(*{'typer', 'rich', 'click'} & set(sys.modules))"
    assert fxcell(code=code).stdout == "\n"


def test_a_target_is_a_path_and_perhaps_a_function(tmp_path):
    colon = tmp_path / "a:b"
    colon.write_text("")
    assert split_target("p.py:f") == ("p.py", "f")
    assert split_target("p.py") == ("p.py", None)
    assert split_target("c:/p.py") == ("c:/p.py", None)
    assert split_target(str(colon)) == (str(colon), None)
    assert split_target(f"{colon}:f") == (str(colon), "f")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1.5", 1.5), ("true", True), ('"1"', "1"), ("{}", {}), ("NaN", "NaN"), ("0x1", "0x1"), ("[" * 5000, "[" * 5000)],
    ids=lambda value: str(value)[:8],
)  # fmt: skip
def test_an_argument_is_json_or_text(text, value):
    assert parse_arguments([f"a={text}"]) == {"a": value}


def test_an_argument_needs_a_name():
    for text in ("=1", "a b=1", "1a=1"):
        with pytest.raises(UserError, match="name=value"):
            parse_arguments([text])


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (b"\xff", {"$bytes": "/w=="}),
        ((1, (2,)), {"$tuple": [1, {"$tuple": [2]}]}),
        ({2, 1}, {"$set": [1, 2]}),
        (float("inf"), {"$float": "inf"}),
        (2**80, {"$int": hex(2**80)}),
        (1 - 2j, {"$complex": [1.0, -2.0]}),
        (decimal.Decimal("1.50"), {"$decimal": "1.50"}),
        (uuid.UUID(int=1), {"$uuid": "00000000-0000-0000-0000-000000000001"}),
        (datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.UTC), {"$datetime": "2024-01-02T03:00:00+00:00"}),
        (datetime.date(2024, 1, 2), {"$date": "2024-01-02"}),
        (datetime.timedelta(seconds=1.5), {"$timedelta": 1.5}),
        ({1: "a"}, {"$map": [[1, "a"]]}),
        ({"$bytes": "forged"}, {"$map": [["$bytes", "forged"]]}),
        (np.array([[1.5, np.nan]]), {"$ndarray": {"dtype": "<f8", "shape": [1, 2], "data": [[1.5, {"$float": "nan"}]]}}),
        (np.float64(2.5), 2.5),
        (Print(content=b""), {"$fx": {"name": "Print", "fields": {"content": {"$bytes": ""}}}}),
        ("\ud800\x1b", "\ud800\x1b"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_every_value_has_its_json_form(value, encoded):
    text = shown.to_json(value)
    assert text.isascii()
    assert json.loads(text) == encoded


def test_readable_values_hold_no_control_characters_and_stay_short():
    assert shown.readable("\x1b[31m") == r"'\x1b[31m'"
    assert shown.readable(b"x" * 5000).startswith("<5,000 bytes: b'xxx")
    assert len(shown.readable(10**5000)) < 200
    assert os.linesep in shown.readable([list(range(100))])
