"""A read of address 0 in native code is a SIGSEGV with the Python stack, and nothing else."""

import signal

from fxcell import Reason, zef_function


@zef_function
def read_address_zero():
    import ctypes

    return ctypes.string_at(0)


def test_read_of_address_zero_is_a_sigsegv_with_the_plugins_frame(arena):
    crash = arena.attack(read_address_zero())
    assert (crash.reason, crash.evidence.signal) == (Reason.SIGNAL, signal.SIGSEGV)
    assert "in read_address_zero" in crash.evidence.python_stack
    assert "SIGSEGV" in str(crash)


def test_where_only_crashes_are_contained_it_is_the_same(arena):
    assert arena.control(read_address_zero()).evidence.signal == signal.SIGSEGV


def test_segfaults_of_different_addresses_have_one_dedup_key(arena):
    assert arena.attack(read_address_zero()).dedup_key == arena.attack(read_address_zero()).dedup_key
