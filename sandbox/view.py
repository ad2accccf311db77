"""What a worker can see of the file system: the Python it runs, the libraries that needs, what its policy grants.

Everything else does not exist in a worker. The host's own code is left out too: nothing a plugin can reach holds it.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass

import fxcell

HIDDEN = "host"
"""The folder of the package that workers must not see."""

_LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/local/lib",
)
_DATA = ("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/full")


@dataclass(frozen=True, slots=True)
class View:
    """Real paths, each shown read-only at the same place, plus links and devices.

    trees:   directories and files, no one inside another.
    links:   (path, target) of the symbolic links that paths inside the trees go through, such as /lib -> usr/lib.
    masked:  directories inside a tree that are shown empty.
    """

    trees: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    masked: tuple[str, ...]
    devices: tuple[str, ...]


def view_for(granted: Iterable[str]) -> View:
    """The view of a worker under a policy that grants the directories `granted` (absolute, existing).

    Raises: FileNotFoundError, NotADirectoryError for a granted directory that is not there.
    """
    wanted: list[str] = []
    links: dict[str, str] = {}
    for path in granted:
        if not os.path.isdir(path):
            raise (NotADirectoryError if os.path.exists(path) else FileNotFoundError)(path)
        wanted.append(path)
    wanted += [
        *_interpreter_paths(),
        *_package_paths(),
        *(p for p in (*_LIBRARY_FOLDERS, *_DATA) if os.path.exists(p)),
    ]
    real = set()
    for path in wanted:
        _note_links(path, links)
        real.add(os.path.realpath(path))
    trees = tuple(
        sorted(path for path in real if not any(path.startswith(other + "/") for other in real if other != path))
    )
    # In a wheel it lies below site-packages; in a checkout it shows only below a directory that the policy grants.
    hidden = os.path.realpath(os.path.join(os.path.dirname(fxcell.__file__), HIDDEN))
    seen = os.path.isdir(hidden) and any(f"{hidden}/".startswith(f"{tree}/") for tree in trees)
    masked = (hidden,) if seen else ()
    return View(trees, tuple(sorted(links.items())), masked, tuple(d for d in _DEVICES if os.path.exists(d)))


def _interpreter_paths() -> set[str]:
    paths = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib")}
    paths |= {sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("DESTSHARED") or ""}
    # A LIBDIR such as /usr/lib holds far more than the interpreter: its own folders are enough then.
    paths -= {"/usr/lib", "/lib", "/usr/local/lib"}
    return {path for path in paths if path and os.path.isdir(path)}


def _package_paths() -> set[str]:
    root = os.path.dirname(os.path.realpath(fxcell.__file__))
    paths = {path for path in sys.path if path.endswith(("site-packages", "dist-packages")) and os.path.isdir(path)}
    paths |= {path for path in site.getsitepackages() if os.path.isdir(path) and path in sys.path}
    if os.path.islink(os.path.join(root, "sandbox")):
        # A checkout: the package is a folder of links to its neighbours. Only what workers need is shown.
        paths |= {root, *(os.path.realpath(os.path.join(root, name)) for name in ("policies", "sandbox"))}
    return paths


def _note_links(path: str, links: dict[str, str]) -> None:
    """Record every symbolic link that resolving `path` goes through."""
    seen = "/"
    for part in path.strip("/").split("/"):
        seen = os.path.join(seen, part)
        if os.path.islink(seen):
            links[seen] = os.readlink(seen)
            target = os.path.normpath(os.path.join(os.path.dirname(seen), os.readlink(seen)))
            if target not in links and target != path:
                _note_links(target, links)
