"""How a policy is enforced, and everything that runs inside a worker.

Reading order, outside in: probe (what this kernel offers), plan (what a policy needs of it, pure), view and root (what a
worker sees), syscalls and filter (what it may call), apply (the checklist), template (the process workers are forked
from), supervisor (process 1 of each worker), worker (the loop), runtime, code and output (what plugin code meets there),
enforced (what was read back). messages.capnp and wire are the language all of them speak; kernel/ has the system calls.
Nothing here imports fxcell.host.
"""
