"""How a policy is enforced, and everything that runs inside a worker.

Reading order, outside in: probe (what this kernel offers), plan (what a policy needs of it, pure), view and root (what a
worker sees), syscalls and filter (what it may call), apply (the checklist), template (the process workers are forked
from), supervisor and thread_count (process 1 of each worker), worker (the loop), runtime, code and output (what plugin
code meets there), batches and area (many calls in one message), enforced (what was read back). messages.capnp is the
language all of them speak: stream has the bytes, wire the messages, value_frames the short way for small ones,
large_buffers what travels beside them.
kernel/ has the system calls.
Nothing here imports fxcell.host.
"""
