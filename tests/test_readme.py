"""README.md is true: its Python runs as it stands, its output is what is printed, its tables match the code.

Blocks of one language run from top to bottom in one namespace, after `from fxcell import *`, with the names below that a
reader would have: a new worker, an effect that kills, chunks of work, a picture. The only text that is replaced is the url '...'.
"""

import contextlib
import http.server
import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

import fxcell
from fxcell import FX, Policy, load_policy, run, zef_function
from fxcell.host.commands import exits
from fxcell.policies.loader import profile_names
from tests.leaks import assert_nothing_left

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]

SNIPPETS = {
    "one command": """\
worker = FX.StartWorkerProcess() | run
result = FX.SendCommandToWorkerProcess(
    process=worker,
    command=FX.Print(content='hello from worker!'),
) | run
FX.StopWorkerProcess(process=worker) | run
""",
    "respawn": """\
try:
    result = FX.SendCommandToWorkerProcess(process=worker, command=potentially_dangerous_fx) | run
except WorkerCrash as e:
    print(f'worker died: {e}')
    worker = FX.StartWorkerProcess() | run   # respawn
""",
    "many workers": """\
workers = [FX.StartWorkerProcess() | run for _ in range(4)]
results = [
    FX.SendCommandToWorkerProcess(process=w, command=process_chunk(chunk)) | run   # a zef_function returning an FX
    for w, chunk in zip(workers, chunks)
]
FX.ListWorkerProcesses() | run
FX.SendCommandToWorkerProcess(process=worker, command=[FX.Print(content='start'), FX.HTTPRequest(url='...'), FX.Print(content='done')]) | run
""",  # noqa: E501
    "pool": """\
@zef_function
def resize_image(img_bytes: Bytes) -> Bytes:
    from PIL import Image
    import io
    im = Image.open(io.BytesIO(bytes(img_bytes)))
    im.thumbnail((200, 200))
    buf = io.BytesIO()
    im.save(buf, 'JPEG')
    return buf.getvalue()

POOL = [FX.StartWorkerProcess() | run for _ in range(4)]
FX.SendCommandToWorkerProcess(process=POOL[i % len(POOL)], command=resize_image(img)) | run
""",
}
"""The programming model as it was designed, word for word."""


@zef_function
def crash_on_purpose():
    import os

    os.abort()


@zef_function
def process_chunk(chunk):
    return FX.RandomBytes(count=chunk)


def picture():
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300), "green").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def local_url():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Reader:
    """Types block after block into one session, as a reader of the README would."""

    def __init__(self, local_url):
        self.local_url = local_url
        self.names = {"__name__": "__main__"}
        exec("from fxcell import *", self.names)
        rule = {"hosts": [local_url.removeprefix("http://").rstrip("/")], "private_hosts": True}
        web = Policy(name="web", effects={"Print": True, "HTTPRequest": rule})
        self.names |= {
            "potentially_dangerous_fx": crash_on_purpose(),
            "process_chunk": process_chunk,
            "chunks": [1, 2, 3, 4],
            "i": 5,
            "img": picture(),
        }
        self.web = web

    def type(self, block):
        """Run one block; what it printed, with the line that Python shows for an exception."""
        asks = "FX.HTTPRequest(url='...')" in block
        block = block.replace("url='...'", f"url={self.local_url!r}")
        self.names["worker"] = FX.StartWorkerProcess(policy=self.web if asks else "compute") | run
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                exec(compile(block, "<dynamic-code>", "exec"), self.names)
            except fxcell.OutcomeError as error:
                print(f"{type(error).__module__}.{type(error).__qualname__}: {error}")
        return output.getvalue()


def comparable(text):
    """Addresses are other ones each time."""
    return re.sub(r"0x[0-9a-f]+", "0x…", text)


def test_python_runs_as_it_stands_and_prints_what_is_shown(local_url):
    reader, printed = Reader(local_url), ""
    for language, block in BLOCKS:
        if language == "python":
            printed = reader.type(block)
        elif language == "text" and "┌" not in block:
            assert comparable(printed) == comparable(block)
    assert reader.names["result"] is None
    assert [len(result) for result in reader.names["results"]] == [1, 2, 3, 4]
    for entry in FX.ListWorkerProcesses() | run:
        FX.StopWorkerProcess(process=entry["process"]) | run


@pytest.mark.parametrize("name", SNIPPETS)
def test_designed_snippet_stands_in_the_readme_word_for_word(name):
    assert SNIPPETS[name] in PYTHON


def test_designed_snippets_run_one_after_the_other(local_url):
    reader = Reader(local_url)
    printed = {}
    for name, block in SNIPPETS.items():
        printed[name] = reader.type(block)
    assert printed["one command"] == "hello from worker!\n"
    assert printed["respawn"] == "worker died: signal: the worker died of SIGABRT (abort() in native code)\n"
    assert printed["many workers"] == "start\ndone\n"
    assert printed["pool"] == ""
    for entry in FX.ListWorkerProcesses() | run:
        FX.StopWorkerProcess(process=entry["process"]) | run


def test_policy_that_is_shown_can_be_loaded(tmp_path):
    block, learnt = [block for language, block in BLOCKS if language == "toml"]
    file = tmp_path / "weather.toml"
    file.write_text(learnt)
    assert sorted(load_policy(str(file)).effects) == ["HTTPRequest", "Now", "ReadFile"]
    file.write_text(block)
    policy = load_policy(str(file))
    assert sorted(policy.effects) == ["HTTPRequest", "Log", "Now", "Print", "RandomBytes", "ReadFile"]


def test_commands_that_are_shown_print_what_is_shown():
    shown = [block for language, block in BLOCKS if language == "console" and block.startswith("$ ")]
    assert shown
    for block in shown:
        command, _, expected = block.removeprefix("$ ").partition("\n")
        words = command.split()
        assert words[0] == "fxcell"
        with assert_nothing_left():
            done = subprocess.run(
                [sys.executable, "-m", *words], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100,
                env=os.environ | {"COLUMNS": "400"},
            )  # fmt: skip
        assert done.stdout == expected
        assert done.returncode == exits.DENIED


def test_tables_name_every_profile_and_exit_code():
    for name in profile_names():
        assert f"| `{name}` |" in TEXT
    names = ["VALUE", "PLUGIN_ERROR", "USAGE", "DENIED", "EFFECT_FAILED", "CRASH", "SANDBOX", "INTERRUPTED"]
    for code in [getattr(exits, name) for name in names]:
        assert f"\n| {code} | " in TEXT
    assert "| 128+N |" in TEXT


@pytest.mark.parametrize("name", profile_names())
def test_table_of_profiles_has_the_effects_and_limits_of_the_files(name):
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |")]
    _, _, effects, _, limits, _ = row.split("|")
    policy = load_policy(name)
    inherited = set(load_policy("compute").effects) if "as `compute`" in effects else set()
    assert inherited | set(re.findall(r"\b(?!GET|HEAD)[A-Z]\w+", effects)) == set(policy.effects)
    memory, cpu, wall = (part.strip() for part in limits.split(","))
    number, unit = memory.split()
    assert int(number) * {"MiB": 2**20, "GiB": 2**30}[unit] == policy.limits.memory_bytes
    seconds = {"s": 1, "min": 60}
    for text, value in ((cpu, policy.limits.cpu_s), (wall, policy.limits.wall_s)):
        number, unit = text.split()
        assert int(number) * seconds[unit] == value
