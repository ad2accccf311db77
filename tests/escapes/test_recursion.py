"""Recursion without end, in Python and in the parser: an error or a signal of the worker, never of the host."""

import signal

from fxcell import PluginError, Reason, zef_function


@zef_function
def recurse_in_c():
    import sys

    sys.setrecursionlimit(2**31 - 1)

    class Deep:
        def __repr__(self):
            return repr(self)

    return repr(Deep())


@zef_function
def recurse_in_python():
    import sys

    sys.setrecursionlimit(1000)

    def deeper():
        return deeper() + 1

    return deeper()


@zef_function
def compile_nested_parentheses():
    return eval("(" * 100_000 + ")" * 100_000)


@zef_function
def corrupted_bytecode():
    def victim():
        return 0

    code = victim.__code__
    victim.__code__ = code.replace(co_code=b"d\xff" * 64, co_consts=(), co_stacksize=1)
    return victim()


def test_recursion_through_c_overflows_the_workers_stack_only(arena):
    crash = arena.attack(recurse_in_c())
    assert crash.reason in (Reason.SIGNAL, Reason.OUT_OF_MEMORY)
    if crash.reason is Reason.SIGNAL:
        assert crash.evidence.signal in (signal.SIGSEGV, signal.SIGABRT)


def test_recursion_in_python_is_an_error_of_the_plugin(arena):
    assert arena.attack(recurse_in_python()).type_name == "RecursionError"


def test_nested_parentheses_for_the_parser_end_in_the_worker(arena):
    outcome = arena.attack(compile_nested_parentheses())
    if isinstance(outcome, PluginError):
        assert outcome.type_name in ("MemoryError", "SyntaxError", "RecursionError")
    else:
        assert outcome.reason in (Reason.SIGNAL, Reason.OUT_OF_MEMORY)


def test_corrupted_bytecode_is_a_signal_or_an_error(arena):
    outcome = arena.attack(corrupted_bytecode())
    assert isinstance(outcome, PluginError) or outcome.reason is Reason.SIGNAL
