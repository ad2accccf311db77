"""A plugin folder: the host reads its bytes, a locked-down worker imports them.

python examples/run_plugin_folder.py

What the plugin may do is what its plugin.toml asks for AND the policy grants: first a policy that grants the file, then
one that grants another folder. The same from the command line: fxcell run examples/plugin_folder --arg path=FILE
"""

import tempfile
from pathlib import Path

from fxcell import *
from fxcell.host.plugins import load_plugin, narrowed

HERE = Path(__file__).resolve().parent
TEXT = "The worker counts words. The host reads the file, for the worker has none."


def main() -> None:
    plugin = load_plugin(HERE / "plugin_folder")
    print(f"{plugin.name} {plugin.version} asks for {', '.join(plugin.requested_effects or ())}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder).resolve() / "text.txt"
        file.write_text(TEXT)
        for granted in (str(file.parent), "/srv/data"):
            policy = Policy(name="counting", effects={"Print": True, "Now": True, "ReadFile": {"under": [granted]}})
            worker = FX.StartWorkerProcess(policy=narrowed(policy, plugin)) | run
            command = plugin.call(path=str(file))
            outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command))
            print(f"{type(outcome).__name__}: {outcome}")
            FX.StopWorkerProcess(process=worker) | run


if __name__ == "__main__":
    main()
