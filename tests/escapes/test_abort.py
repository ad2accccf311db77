"""abort() is a SIGABRT, and no core file is written anywhere."""

import signal

from fxcell import Reason, zef_function


@zef_function
def abort():
    import os

    os.abort()


@zef_function
def abort_with_a_core_file():
    import os
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))
    os.abort()


@zef_function
def core_limit():
    import resource

    return resource.getrlimit(resource.RLIMIT_CORE)


def test_abort_is_a_sigabrt(arena):
    crash = arena.attack(abort())
    assert (crash.reason, crash.evidence.signal) == (Reason.SIGNAL, signal.SIGABRT)
    assert arena.control(abort()).evidence.signal == signal.SIGABRT


def test_core_files_are_off_and_cannot_be_switched_on(arena):
    assert arena.attack(core_limit()) == (0, 0)
    assert arena.attack(abort_with_a_core_file()).type_name in ("PermissionError", "ValueError")
