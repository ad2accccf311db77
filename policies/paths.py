"""Paths as text: one exact spelling, and which directories no policy may name."""

from __future__ import annotations

from fxcell.policies.errors import PolicyError

MAX_PATH_BYTES = 4095  # PATH_MAX of linux/limits.h without its NUL

_KERNEL_TREES = ("/proc", "/sys", "/dev")


def path_fault(path: object) -> str:
    """What is wrong with the spelling of an absolute path, in words; "" when nothing is."""
    if type(path) is not str:
        return f"the path must be a plain str, not {type(path).__name__}"
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "the path is not valid Unicode"
    if size > MAX_PATH_BYTES:
        return f"the path is longer than {MAX_PATH_BYTES} bytes"
    if "\0" in path:
        return "the path holds a NUL character"
    if not path.startswith("/"):
        return f"{path!r:.200} is not an absolute path"
    parts = path[1:].split("/")
    if "" in parts and path != "/":
        return f"{path!r:.200} has a doubled or trailing slash; only the exact spelling is compared"
    if "." in parts or ".." in parts:
        return f"{path!r:.200} has a '.' or '..' in it; only the exact spelling is compared"
    return ""


def check_directory(what: str, directory: object) -> None:
    """Raise PolicyError unless this is a directory that a policy may name: absolute, exact, and not everything."""
    wrong = path_fault(directory)
    if wrong:
        raise PolicyError(f"{what}: {wrong}", at=(what,))
    if not is_grantable(str(directory)):
        raise PolicyError(
            f"{what}: {directory!r} can never be granted: it holds the kernel's view of the host or everything; "
            "name the directories that are needed",
            at=(what,),
        )


def is_grantable(directory: str) -> bool:
    """False for everything at once and for the trees in which the kernel shows the host."""
    if directory in ("/", ""):
        return False
    return not any(directory == tree or directory.startswith(f"{tree}/") for tree in _KERNEL_TREES)
