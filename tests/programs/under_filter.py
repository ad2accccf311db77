"""Make system calls under a compiled filter without any of them being performed; print how the kernel answered.

Inputs:   arguments PROGRAM (the filter's bytes in hex) and SOCKET (descriptor of a unix socket); on stdin a JSON list of
          [number, argument 0..4]. The sixth argument is a mark: only marked calls are looked at by the second filter below.
Outputs:  over the socket the seccomp listener; on stdout a JSON list with the errno of each call.
Mode:     "trace":  below the program lies a filter that answers TRACE to marked calls. Nobody traces, so a call that the
                    program allows fails with ENOSYS; one that it notifies about has the listener's errno.
          "notify": below it lies a filter that notifies, the program has no listener: a call that it allows has the
                    listener's errno, one that it notifies about fails with ENOSYS.
          The two together tell allow, notify and errno apart, as the kernel itself decides (seccomp(2): the strictest
          answer of all filters wins, of equal ones the newest filter's).
"""

import ctypes
import json
import os
import struct
import sys

from fxcell.sandbox import enforced
from fxcell.sandbox.kernel import libc, privileges, seccomp

MARK = 0x5EED
TRACE, NOTIFY, ALLOW = 0x7FF00000, 0x7FC00000, 0x7FFF0000


def below(action):
    """ld [sixth argument, low half]; jeq MARK, 0, 1; ret action; ret ALLOW."""
    rows = ((0x20, 0, 0, 16 + 5 * 8), (0x15, 0, 1, MARK), (0x06, 0, 0, action), (0x06, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


def install(program, *, listens):
    if listens:
        return seccomp.install_filter(program)
    argument = seccomp._Program(len(program) // 8, program)
    libc.syscall("install a filter", "seccomp", 1, 0, ctypes.byref(argument))
    return -1


def main():
    program, descriptor, mode = bytes.fromhex(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    import socket

    line = socket.socket(fileno=descriptor)
    calls = json.load(sys.stdin)
    raw = ctypes.CDLL(None, use_errno=True).syscall
    raw.restype = ctypes.c_long
    raw.argtypes = [ctypes.c_long] * 7
    privileges.set_no_new_privs()
    if mode == "trace":
        install(below(TRACE), listens=False)
        enforced.send_listener(line, install(program, listens=True))
    else:
        enforced.send_listener(line, install(below(NOTIFY), listens=True))
        install(program, listens=False)
    answers = []
    for number, *arguments in calls:
        ctypes.set_errno(0)
        result = raw(number, *arguments, MARK)
        answers.append(ctypes.get_errno() if result == -1 else 0)
    os.write(1, json.dumps(answers).encode())
    os._exit(0)


main()
