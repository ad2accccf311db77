"""Each example runs alone, as a user would start it, with warnings as errors, and ends with what it promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.leaks import assert_nothing_left

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))
IMAGE_RESULTS = {
    "photo.jpg": "ok", "chart.png": "ok", "logo.gif": "ok", "scan.tif": "ok", "empty.jpg": "plugin error", "bomb.png": "crash",
}  # fmt: skip
"""What no version of Pillow changes; the other damaged files end as ok or plugin error."""


def output_of(name, *arguments):
    """Run an example in a folder of its own; its lines of output."""
    with assert_nothing_left():
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / name, *arguments], capture_output=True, text=True, timeout=170, cwd="/"
        )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


def table_of(lines):
    return {line[:52].strip(): line[53:66].strip() for line in lines[1:-1]}


@pytest.mark.slow
def test_each_drawn_picture_ends_as_ok_error_or_crash():
    lines = output_of("resize_images.py")
    results = table_of(lines)
    assert len(results) == 14
    assert set(results.values()) == {"ok", "plugin error", "crash"}
    assert IMAGE_RESULTS.items() <= results.items()
    assert "out_of_memory" in next(line for line in lines if line.startswith("bomb.png"))


@pytest.mark.slow
def test_pictures_of_a_folder_are_taken(tmp_path):
    from PIL import Image

    Image.new("RGB", (300, 300), "red").save(tmp_path / "red.png")
    (tmp_path / "words.png").write_text("this is no picture")
    (tmp_path / "a-folder").mkdir()
    lines = output_of("resize_images.py", "--images", tmp_path)
    assert table_of(lines) == {"red.png": "ok", "words.png": "plugin error"}
    assert "200 x 200" in lines[1]
    assert lines[-1] == "1 ok, 1 plugin error, 0 crash"


@pytest.mark.slow
def test_worker_is_replaced_after_each_crash():
    lines = output_of("respawn_after_crash.py")
    assert [line for line in lines if line.startswith("double")] == ["double(1) = 2", "double(2) = 4", "double(3) = 6"]
    deaths = [line for line in lines if line.startswith("worker died: signal: the worker died of SIGSEGV")]
    keys = [line.partition("dedup key ")[2] for line in lines if "dedup key" in line]
    assert len(deaths) == len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.slow
def test_digits_of_pi_are_right():
    first, last = output_of("digits_of_pi.py", "1000")
    assert first.startswith("3.14159265358979323846264338327950288419716939937510")
    assert last == "the last ten: 2164201989"


@pytest.mark.slow
def test_one_host_is_asked_and_the_other_is_not():
    lines = output_of("http_one_host.py")
    assert lines[1] == "    str: 200 the weather is fine"
    assert lines[3].startswith("    EffectDenied: FX.HTTPRequest, field 'url', is denied by policy 'weather'")
    assert lines[4] == "requests that arrived: 1 at the granted host, 0 at the other"


@pytest.mark.slow
def test_plugin_folder_gets_what_it_asks_for_and_the_policy_grants():
    lines = output_of("run_plugin_folder.py")
    assert lines[:3] == [
        "wordcount 1.0 asks for Print, ReadFile",
        "read 74 characters",
        "dict: {'the': 4, 'worker': 2, 'counts': 1}",
    ]
    assert re.match(r"EffectDenied: FX\.ReadFile, field 'path', is denied .* is not below /srv/data\.", lines[3])


@pytest.mark.slow
def test_learnt_policy_lets_the_plugin_pass_and_its_record_replays_without_service_and_file():
    lines = output_of("learn_record_replay.py")
    assert [line for line in lines if line.startswith("== exit code")] == [f"== exit code {code}" for code in (0, 0, 0, 1)]
    learnt = lines[lines.index("[effects]") + 1 :][:7]
    assert [line.split()[0] for line in learnt] == ["HTTPRequest", "Log", "Now", "Print", "RandomBytes", "ReadFile", "Sleep"]
    assert all("  # " in line and "; without it FX." in line for line in learnt)
    assert not [line for line in lines if line.startswith("allow")]  # it needs no word at all
    assert "3 cities, warmest is Pune" in lines
    assert "same: weather, 10 effects, the same result" in lines
    more = lines[lines.index("B allows what A does not") : lines.index("A allows what B does not")]
    found = {line.split(":")[0].strip() for line in more if line.startswith("  effects.")}
    assert found == {"effects.HTTPRequest", "effects.ReadFile"}


def test_every_example_is_run_here():
    source = Path(__file__).read_text()
    assert [name for name in NAMES if f'output_of("{name}"' not in source] == []


def test_own_effect_is_answered_and_its_other_arguments_are_denied():
    lines = output_of("own_effect.py")
    assert lines[:2] == ["de hallo!", "fr bonjour!"]
    assert lines[2].startswith("es FX.Translate, field 'to', is denied by policy 'greeter': 'es' is not exactly one of")
