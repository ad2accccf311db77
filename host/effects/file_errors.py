"""How failures on files reach the plugin: a stable kind, and a text that names the path as the plugin gave it.

Nothing else of the host is in the text: not where the granted directory really is, not what a link leads to.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from fxcell.policies.errors import EffectFailed

KINDS = {
    errno.ENOENT: ("not_found", "there is no such file"),
    errno.ENOTDIR: ("not_found", "a part of the path is not a directory"),
    errno.ENAMETOOLONG: ("not_found", "the name is too long"),
    errno.ELOOP: ("permission", "a symbolic link is in the path, and none is followed"),
    errno.EXDEV: ("permission", "the path leads out of the granted directory"),
    errno.EACCES: ("permission", "the host is not allowed to"),
    errno.EPERM: ("permission", "the host is not allowed to"),
    errno.EROFS: ("permission", "the file system is read-only"),
    errno.ETXTBSY: ("permission", "it is a program that runs"),
    errno.EEXIST: ("exists", "something of that name is there already"),
    errno.EISDIR: ("not_regular", "it is not a regular file"),
    errno.ENXIO: ("not_regular", "it is not a regular file"),
    errno.ENODEV: ("not_regular", "it is not a regular file"),
    errno.EFBIG: ("too_large", "the file system or the host's own limit takes no file of that size"),
    errno.ENOSPC: ("no_space", "the disk is full"),
    errno.EDQUOT: ("no_space", "the disk quota of the host's user is used up"),
    errno.EMFILE: ("busy", "the host has as many files open as it may"),
    errno.ENFILE: ("busy", "the machine has as many files open as it may"),
    errno.ENOSYS: ("unsupported", "this needs openat2(2), which Linux has since 5.6"),
}
"""errno -> (kind, what to say)."""


@contextlib.contextmanager
def reported(effect: Any) -> Iterator[None]:
    """Turn what the kernel and the codecs raise in the block into EffectFailed."""
    try:
        yield
    except (ValueError, UnicodeError) as error:
        raise failed(effect, "bad_request", "no file can have this name") from error
    except OSError as error:
        number = error.errno or 0
        kind, text = KINDS.get(number, ("permission", f"the kernel said {errno.errorcode.get(number, number)}"))
        raise failed(effect, kind, text) from error


def failed(effect: Any, kind: str, text: str) -> EffectFailed:
    """The failure of an effect with a path."""
    return EffectFailed(effect.effect_name, kind, f"{effect.path!r:.200}: {text}")
