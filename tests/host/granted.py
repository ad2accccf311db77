"""Effects on files as a worker's broker performs them, beside a secret that no rule grants."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time

from fxcell.host.broker import Broker, Context
from fxcell.policies.errors import EffectFailed
from fxcell.policies.policy import Policy

NAMES = ("ReadFile", "WriteFile", "ListDirectory", "DeleteFile")


class Place:
    """A granted directory `root`; beside it `outside` with the file `secret`.

    rules: keys of WriteFile's rule beside `under`.
    """

    def __init__(self, folder, **rules):
        self.folder = folder
        self.root = folder / "granted"
        self.outside = folder / "outside"
        self.secret = self.outside / "secret"
        self.root.mkdir()
        self.outside.mkdir()
        self.secret.write_bytes(b"secret")
        self.ruled(**rules)

    def ruled(self, **rules):
        effects = {name: {"under": [str(self.root)]} for name in NAMES}
        effects["WriteFile"] |= rules
        self.policy = Policy(name="files", effects=effects)
        return self

    def perform(self, effect, seconds=30.0):
        context = Context("w1", self.policy, time.monotonic() + seconds, threading.Event().wait, print)
        return Broker(self.policy, "w1").perform(effect, context)

    def kind_of(self, effect, seconds=30.0):
        """The kind of the failure, or "done"."""
        try:
            self.perform(effect, seconds)
        except EffectFailed as failed:
            return failed.kind
        return "done"

    def path(self, name):
        return f"{self.root}/{name}"

    def left(self):
        """What is in the granted directory, drafts included."""
        return sorted(os.listdir(self.root))

    def secret_is_untouched(self):
        return os.listdir(self.outside) == ["secret"] and self.secret.read_bytes() == b"secret"


@contextlib.contextmanager
def swapping(*steps):
    """Perform the steps over and over in a thread, while the block runs."""
    stop = threading.Event()

    def work():
        while not stop.is_set():
            for step in steps:
                with contextlib.suppress(OSError):
                    step()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def remove_tree(path):
    """rm(1): shutil.rmtree recurses, and a path of a thousand directories is longer than a path may be."""
    subprocess.run(["rm", "-rf", "--", str(path)], check=True, timeout=60)
