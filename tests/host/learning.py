"""What tests of policy learning share: plugins with what each needs, how one is made of its source, and an ordinary run."""

from __future__ import annotations

from fxcell import FX, run
from fxcell.host.plugins import load_plugin

HEAD = "from fxcell import FX, run\n"
PLUGINS = {
    "nothing": "def main():\n    return sum(range(10))\n",
    "effects": (
        "def main():\n"
        "    FX.Print(content='hello') | run\n"
        "    FX.Sleep(seconds=0.01) | run\n"
        "    FX.Sleep(seconds=0.02) | run\n"
        "    FX.Log(message='seen') | run\n"
        "    return len(FX.RandomBytes(count=20) | run) + len(FX.RandomBytes(count=5) | run)\n"
    ),
    "threads": (
        "import threading\n"
        "def main():\n"
        "    found = []\n"
        "    threads = [threading.Thread(target=found.append, args=(n,)) for n in range(3)]\n"
        "    for thread in threads:\n"
        "        thread.start()\n"
        "    for thread in threads:\n"
        "        thread.join()\n"
        "    return sorted(found)\n"
    ),
    "scratch": (
        "import os, tempfile\n"
        "def main():\n"
        "    path = os.path.join(tempfile.gettempdir(), 'file')\n"
        "    with open(path, 'wb') as file:\n"
        "        file.write(b'x' * (3 << 20))\n"
        "    return os.path.getsize(path)\n"
    ),
    "processes": (
        "import os\n"
        "def main():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os._exit(7)\n"
        "    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
    ),
    "libraries": (
        "def main():\n"
        "    from PIL import Image\n"
        "    return Image.new('RGB', (3, 2)).size\n"
    ),
    "memory": "def main():\n    return len(bytearray(400 << 20))\n",
}  # fmt: skip
EXPECTED = {
    "nothing": (set(), set(), set()),
    "effects": (set(), set(), {"Print", "Sleep", "Log", "RandomBytes"}),
    "threads": ({"threads"}, set(), set()),
    "scratch": ({"scratch"}, {"scratch_bytes"}, set()),
    "processes": ({"processes"}, {"processes"}, set()),
    "libraries": ({"load_libraries"}, set(), set()),
    "memory": (set(), {"memory_bytes"}, set()),
}
"""Plugin -> words, limits, effects that it needs."""


def plugin_of(tmp_path, source, function=None):
    (tmp_path / "plug.py").write_text(HEAD + source)
    return load_plugin(str(tmp_path / "plug.py"), function)


def ran(policy, plugin, **arguments):
    """What a plugin gives in an ordinary worker: effects judged and performed."""
    worker = FX.StartWorkerProcess(policy=policy) | run
    try:
        return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=plugin.call(**arguments), deadline_s=30))
    finally:
        FX.StopWorkerProcess(process=worker) | run


ASK = (
    "def main(url, method='GET', path=''):\n"
    "    if path:\n"
    "        FX.ReadFile(path=path) | run\n"
    "    answer = FX.HTTPRequest(url=url, method=method) | run\n"
    "    return [answer['status'], answer['body']]\n"
)
