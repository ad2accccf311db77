"""Timers that send signals: ordinary code with a timeout of its own goes on without one and is not ended for it."""

from fxcell import PluginError, zef_function


@zef_function
def work_under_an_alarm():
    import signal

    def too_long(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(1)
    try:
        return sum(range(1000))
    finally:
        signal.alarm(0)


@zef_function
def wait_for_the_alarm(seconds):
    import signal
    import time

    fired = []
    signal.signal(signal.SIGALRM, lambda *_: fired.append(1))
    signal.alarm(1)
    end = time.monotonic() + seconds
    while not fired and time.monotonic() < end:
        time.sleep(0.05)
    return bool(fired)


@zef_function
def set_an_interval():
    import signal

    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)


def test_code_under_an_alarm_answers(arena):
    for policy in ("strict", "compute"):
        assert arena.attack(work_under_an_alarm(), policy) == 499500
    assert arena.control(work_under_an_alarm()) == 499500


def test_alarm_never_comes_where_it_does_in_the_control(arena):
    assert arena.attack(wait_for_the_alarm(1.3)) is False
    assert arena.control(wait_for_the_alarm(15)) is True


def test_interval_timer_is_refused_as_an_error_of_the_plugin(arena):
    outcome = arena.attack(set_an_interval())
    assert isinstance(outcome, PluginError)
    assert outcome.type_name == "itimer_error"
