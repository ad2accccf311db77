import os
import socket
import sys

import pytest

from fxcell.host import plugin_files
from fxcell.host.plugins import load_plugin, narrowed
from fxcell.host.runtime import run
from fxcell.policies.builtin import SendCommandToWorkerProcess, StartWorkerProcess, StopWorkerProcess
from fxcell.policies.errors import EffectDenied, PluginError, PluginNotUsable, PolicyError
from fxcell.policies.loader import load_profile
from tests.leaks import assert_nothing_left

COMPUTE = load_profile("compute")
TOML = 'name = "pad"\nversion = "1.0"\nentry = "pad:main"\neffects = ["Now"]\n'


@pytest.fixture
def folder(tmp_path):
    """Writes a plugin folder; None for a file leaves it out."""

    def write(**files):
        top = tmp_path / "pad"
        top.mkdir(exist_ok=True)
        for name, text in {"plugin.toml": TOML, "pad.py": "def main(): return 'pad'", **files}.items():
            if text is not None:
                place = top / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(top)

    return write


@pytest.fixture
def file(tmp_path):
    def write(text, name="plug.py"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def in_worker():
    """Runs a call in one worker that lives as long as the test."""
    workers = {}

    def send(plugin, policy=COMPUTE, **arguments):
        granted = narrowed(policy, plugin)
        if granted.digest not in workers:
            workers[granted.digest] = run(StartWorkerProcess(policy=granted))
        return run(
            SendCommandToWorkerProcess(process=workers[granted.digest], command=plugin.call(**arguments), deadline_s=20.0)
        )

    yield send
    for worker in workers.values():
        run(StopWorkerProcess(process=worker))


def test_a_file_runs_its_main_and_another_function_by_name(file, in_worker):
    path = file("def main(a, b=2): return a + b\ndef other(): return 'other'")
    assert in_worker(load_plugin(path), a=40) == 42
    assert in_worker(load_plugin(path, "other")) == "other"


def test_a_folder_runs_its_entry_with_modules_packages_and_data(folder, in_worker):
    code = (
        "import pkgutil\nfrom tools.add import add\nfrom plain.helper import NAME\n"
        "def main(): return [add(1, 2), NAME, pkgutil.get_data('tools', 'data.bin')]"
    )
    path = folder(**{
        "pad.py": code, "tools/__init__.py": "", "tools/add.py": "def add(a, b): return a + b",
        "plain/helper.py": "NAME = 'no __init__'", "tools/data.bin": b"\x00\xff",
    })  # fmt: skip
    plugin = load_plugin(path)
    assert (plugin.name, plugin.version, plugin.requested_effects) == ("pad", "1.0", ("Now",))
    assert in_worker(plugin) == [3, "no __init__", b"\x00\xff"]


def test_the_host_reads_and_never_runs_a_plugin(file, tmp_path):
    path = file(f"open({str(tmp_path / 'ran')!r}, 'w')\nthis is no Python")
    before = set(sys.modules)
    plugin = load_plugin(path)
    assert plugin.call(x=1).definition.function is None
    assert not (tmp_path / "ran").exists()
    assert "plug" not in set(sys.modules) - before


def test_code_that_python_refuses_is_the_plugins_error(file, in_worker):
    with pytest.raises(PluginError, match="SyntaxError"):
        in_worker(load_plugin(file("def main(:")))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def other(): pass\nfrom os import getcwd", r"the entry is plug:main, but plug.py has none.*it has: other$"),
        ("main = 3", r"plug.py has no function of that name but 'int'"),
        ("", r"it has: none$"),
    ],
    ids=["another name", "no function", "empty"],
)
def test_a_wrong_entry_is_told_and_the_worker_lives(file, in_worker, text, says):
    with pytest.raises(PluginError, match=says):  # the worker says so, and could say anything: it is the plugin's error
        in_worker(load_plugin(file(text)))
    assert in_worker(load_plugin(file("def main(): return 1", "second.py"))) == 1


def test_plugins_with_the_same_module_names_in_one_worker_do_not_meet(folder, in_worker, tmp_path):
    first = load_plugin(folder(**{"pad.py": "import shared\ndef main(): return shared.WHO", "shared.py": "WHO = 1"}))
    second = load_plugin(folder(**{"pad.py": "import shared\ndef main(): return shared.WHO", "shared.py": "WHO = 2"}))
    assert [in_worker(first), in_worker(second), in_worker(first)] == [1, 2, 1]


@pytest.mark.parametrize("name", ["json.py", "my-plugin.py", "7.py", "a.b.py", "msgspec.py", "fxcell.py"])
def test_a_file_may_have_any_name(file, in_worker, name):
    assert in_worker(load_plugin(file("import json\ndef main(): return json.dumps(1)", name))) == "1"


def test_code_larger_than_a_frame_reaches_the_worker(folder, in_worker):
    path = folder(**{"big.bin": bytes(20 * 1024 * 1024), "pad.py": (
        "import pkgutil\ndef main(): return len(__spec__.loader.get_data('big.bin'))")})  # fmt: skip
    assert in_worker(load_plugin(path)) == 20 * 1024 * 1024


def test_only_requested_effects_are_left_of_a_policy(folder, file, in_worker):
    ask = "from fxcell import FX, run\ndef main(): return FX.Now() | run\ndef rnd(): return FX.RandomBytes(count=1) | run"
    plugin = load_plugin(folder(**{"pad.py": ask}))
    assert list(narrowed(COMPUTE, plugin).effects) == ["Now"]
    assert in_worker(plugin) > 0
    with pytest.raises(EffectDenied, match="RandomBytes is denied by policy 'compute, narrowed to what pad requests'"):
        in_worker(load_plugin(folder(**{"pad.py": ask}), "rnd"))
    assert narrowed(COMPUTE, load_plugin(file(ask))) is COMPUTE


def test_requesting_what_the_policy_lacks_grants_nothing(folder):
    plugin = load_plugin(folder(**{"plugin.toml": TOML.replace('["Now"]', '["ReadFile"]')}))
    assert dict(narrowed(COMPUTE, plugin).effects) == {}


def test_a_manifest_without_effects_requests_none(folder):
    assert load_plugin(folder(**{"plugin.toml": TOML.replace('effects = ["Now"]\n', "")})).requested_effects == ()


def test_the_digest_is_of_the_files_and_the_entry(folder):
    first = load_plugin(folder())
    assert load_plugin(folder()).digest == first.digest
    assert load_plugin(folder(), "other").digest != first.digest
    assert load_plugin(folder(**{"data.txt": "x"})).digest != first.digest


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (TOML + "colour = 1\n", 5, "there is no key 'colour'"),
        (TOML.replace("effects", "efects"), 4, "did you mean 'effects'"),
        ("version = '1'\nentry = 'pad:main'", None, "the key 'name' is missing"),
        (TOML.replace('"pad:main"', '"pad"'), 3, "entry must be a text such as"),
        (TOML.replace('"pad:main"', '"pad:main()"'), 3, "entry must be a text such as"),
        (TOML.replace('"pad:main"', '"../pad:main"'), 3, "entry must be a text such as"),
        (TOML.replace('"pad:main"', '"nope:main"'), 3, r"no file nope.py.*Its .py files: pad.py"),
        (TOML.replace('"pad:main"', '"json:dumps"'), 3, "every worker has already"),
        (TOML.replace('"Now"', '"Nwo"'), 4, "did you mean 'Now'"),
        (TOML.replace('"Now"', '"StartWorkerProcess"'), 4, "can never be granted"),
        (TOML.replace('"Now"', '"Now", "Now"'), 4, "twice"),
        (TOML.replace('["Now"]', '"Now"'), 4, "effects must be a list"),
        (TOML.replace('"1.0"', "1.0"), 2, "version must be a text"),
        (TOML.replace('"pad"', '"../pad"'), 1, "name must be a text"),
        (TOML + "x = [", 5, "not valid TOML"),
        (b"name = '\xff'", 1, "not valid UTF-8"),
    ],
    ids=lambda value: value.replace("\n", " ")[-25:] if isinstance(value, str) else None,
)
def test_a_wrong_manifest_is_an_error_with_file_and_line(folder, text, line, says):
    path = folder(**{"plugin.toml": text})
    with pytest.raises(PolicyError, match=says) as caught:
        load_plugin(path)
    assert (caught.value.file, caught.value.line) == (f"{path}/plugin.toml", line)


def test_links_are_refused_and_their_targets_not_read(folder, tmp_path):
    path = folder()
    os.symlink("/etc/passwd", f"{path}/data.txt")
    with pytest.raises(PluginNotUsable, match=r"data.txt' is a symbolic link"):
        load_plugin(path)
    os.symlink(path, tmp_path / "link")
    with pytest.raises(PluginNotUsable, match=r"is a symbolic link, and none is followed: give the path it leads to, '.*/pad'"):
        load_plugin(tmp_path / "link")


@pytest.mark.timeout(20)
def test_fifos_and_sockets_are_refused_without_waiting(folder, tmp_path):
    path = folder()
    os.mkfifo(f"{path}/pipe.py")
    with pytest.raises(PluginNotUsable, match=r"pipe.py' is a FIFO"):
        load_plugin(path)
    with pytest.raises(PluginNotUsable, match="is a FIFO: a plugin is"):
        load_plugin(f"{path}/pipe.py")
    os.remove(f"{path}/pipe.py")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{path}/s")
        with pytest.raises(PluginNotUsable, match="is a socket"):
            load_plugin(path)
    with pytest.raises(PluginNotUsable, match="is a device"):
        load_plugin("/dev/null")


def test_hidden_names_and_caches_are_skipped_even_when_they_are_links(folder):
    path = folder()
    clean = load_plugin(path).digest
    os.makedirs(f"{path}/__pycache__")
    os.makedirs(f"{path}/.git/objects")
    with open(f"{path}/__pycache__/pad.pyc", "wb") as cache:
        cache.write(b"\0" * 100)
    os.symlink("/etc/passwd", f"{path}/.hidden")
    assert load_plugin(path).digest == clean


def test_too_much_too_deep_and_too_many_are_refused(folder, monkeypatch):
    path = folder()
    with open(f"{path}/sparse.bin", "wb") as sparse:
        sparse.truncate(plugin_files.MAX_BYTES)
    with pytest.raises(PluginNotUsable, match=r"sparse.bin' the plugin is over 32 MiB"):
        load_plugin(path)
    os.remove(f"{path}/sparse.bin")
    os.makedirs(path + "/d" * (plugin_files.MAX_DEPTH - 1))
    load_plugin(path)
    os.makedirs(path + "/d" * plugin_files.MAX_DEPTH)
    with pytest.raises(PluginNotUsable, match="deeper than 16 levels"):
        load_plugin(path)
    monkeypatch.setattr(plugin_files, "MAX_ENTRIES", 5)
    with pytest.raises(PluginNotUsable, match="more than 5 files and folders"):
        load_plugin(path)


@pytest.mark.parametrize(
    ("name", "function", "says"),
    [
        ("nowhere.py", None, r"there is no plugin '.*nowhere.py': give the path of"),
        ("notes.txt", None, "is not a .py file"),
        ("empty", None, "has no plugin.toml"),
        ("good.py", "a b", "cannot be the name of a function"),
        ("good.py/x", None, "cannot be read"),
        ("nul\0.py", None, "cannot be read"),
    ],
)
def test_what_is_no_plugin_is_refused_with_its_path(tmp_path, name, function, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "good.py").write_text("")
    with assert_nothing_left(), pytest.raises(PluginNotUsable, match=says):
        load_plugin(f"{tmp_path}/{name}", function)


def test_a_name_that_is_no_text_is_refused(folder):
    path = folder()
    with open(os.fsencode(path) + b"/\xff.py", "wb"):
        pass
    with pytest.raises(PluginNotUsable, match="is not printable text"):
        load_plugin(path)


def test_a_file_that_may_not_be_read_is_refused(file):
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    path = file("")
    os.chmod(path, 0)
    with pytest.raises(PluginNotUsable, match="Permission denied"):
        load_plugin(path)
