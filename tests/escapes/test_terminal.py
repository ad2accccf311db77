"""TIOCSTI and TIOCLINUX, which type into the terminal of the host's user, in every disguise."""

import errno

import pytest

from tests.escapes.calls import make_call

IOCTL = 16
TIOCSTI, TIOCLINUX, TIOCSCTTY, TIOCGWINSZ = 0x5412, 0x541C, 0x540E, 0x5413


@pytest.mark.parametrize("policy", ["compute"])
@pytest.mark.parametrize("request_", [TIOCSTI, TIOCLINUX, TIOCSCTTY, TIOCGWINSZ])
@pytest.mark.parametrize("disguise", [0, 1 << 32, 0xDEADBEEF << 32], ids=["plain", "bit 32", "garbage above"])
def test_ioctl_is_answered_as_on_something_that_is_no_terminal(arena, policy, request_, disguise):
    for descriptor in (0, 1, 2, 3):
        assert arena.attack(make_call(IOCTL, descriptor, request_ | disguise, 0), policy) == (-1, errno.ENOTTY)


def test_where_nothing_stops_it_the_kernel_looks_at_the_low_bits_only(arena):
    fionread = 0x541B
    plain = arena.control(make_call(IOCTL, 1, fionread, 0))
    assert plain == arena.control(make_call(IOCTL, 1, fionread | 0xDEADBEEF << 32, 0)) == (-1, errno.EFAULT)
