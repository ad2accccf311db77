"""The templates of this host: one for each policy, kept while it has workers and for a while after."""

from __future__ import annotations

import threading
import time

from fxcell.host.template_process import Template, check_descriptors
from fxcell.policies.policy import Policy

IDLE_MAX = 16
"""Templates without a worker that a host keeps: the next start under their policy is 20 times as fast."""

_templates: dict[str, Template] = {}
_locks: dict[str, threading.Lock] = {}
_table = threading.Lock()


def template_for(policy: Policy) -> Template:
    """The living template of this policy, started if there is none. Raises as Template; OutOfDescriptors."""
    with _table:
        lock = _locks.setdefault(policy.digest, threading.Lock())
    with lock:
        template = _templates.get(policy.digest)
        if template is not None and not template.alive:
            template.close()
            template = None
        if template is None:
            check_descriptors()
            template = _templates[policy.digest] = Template(policy)
        return template


def hold(policy: Policy) -> Template:
    """As template_for, and it stays until `release`: once for each worker."""
    while True:
        template = template_for(policy)
        with _table:
            if _templates.get(policy.digest) is template:  # else another thread's release has just ended it
                template.users += 1
                return template


def release(template: Template) -> None:
    """A worker of this template is gone. Ends the templates that were without workers for longest, over IDLE_MAX of them."""
    with _table:
        template.users -= 1
        template.idle_since_s = time.monotonic()
        idle = sorted((kept for kept in _templates.values() if not kept.users), key=lambda kept: kept.idle_since_s)
        over = [_templates.pop(kept.policy.digest) for kept in idle[: max(0, len(idle) - IDLE_MAX)]]
    for kept in over:
        kept.close()


def is_running(policy: Policy) -> bool:
    """True when a template of this policy has been started and not closed."""
    return policy.digest in _templates


def close(policy: Policy) -> None:
    """End the template of this policy, if there is one. Before: no worker of it is left, for they end with it."""
    template = _templates.pop(policy.digest, None)
    if template is not None:
        template.close()


def close_all() -> None:
    """End every template of this process."""
    while _templates:
        _, template = _templates.popitem()
        template.close()


def forget_after_fork() -> None:
    """In the child of a fork: the templates belong to the parent."""
    global _table
    _templates.clear()
    _locks.clear()
    _table = threading.Lock()
