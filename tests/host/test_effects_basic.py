"""Print, Log, Now, Sleep, RandomBytes: what reaches a person is harmless, what waits ends in time."""

import logging
import threading
import time
import unicodedata

import pytest

from fxcell import FX, Limits, Policy, run, zef_function
from fxcell.host.effects import basic
from fxcell.host.effects.context import Context
from fxcell.policies.builtin import Log, Now, Print, RandomBytes, Sleep
from fxcell.policies.errors import EffectFailed


def context(lines=None, *, seconds=30.0, cancelled=None):
    return Context(
        worker="w3",
        policy=None,
        deadline=time.monotonic() + seconds,
        cancelled=cancelled or threading.Event().wait,
        output=(lines if lines is not None else []).append,
    )


def printed(content):
    lines = []
    assert basic.perform_print(Print(content=content), context(lines)) is None
    return lines[0]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("hello", "hello"),
        ({"a": [1, 2.5, None]}, "{'a': [1, 2.5, None]}"),
        ("två 漢字 😀", "två 漢字 😀"),
        ("no\u00a0break", "no\u00a0break"),
        ("one\ntwo\r\nthree", r"one\ntwo\r\nthree"),
        ("paragraph\u2029line\u2028next\x85", r"paragraph\u2029line\u2028next\x85"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]52;c;ZXZpbA==\x07", r"\x1b]52;c;ZXZpbA==\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("nul\0bell\a", r"nul\x00bell\x07"),
        ("lone \ud800 surrogate", r"lone \ud800 surrogate"),
        ("user\u202egnp.exe\u2066", r"user\u202egnp.exe\u2066"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("\U000e0041 tag", r"\U000e0041 tag"),
    ],
)
def test_print_shows_one_visible_line(content, line):
    assert printed(content) == line


@pytest.mark.slow
def test_print_of_every_code_point_has_no_control_and_no_format_character():
    for start in range(0, 0x110000, 0x1000):
        line = printed("".join(map(chr, range(start, start + 0x1000))))
        assert not {unicodedata.category(char) for char in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        line.encode()


@pytest.mark.parametrize("char", ["x", "é", "😀", "\0"])
def test_print_over_the_cap_is_cut_and_says_so(char):
    line = printed(char * 1_000_000)
    assert basic.MAX_LINE_BYTES - 10 < len(line.encode()) <= basic.MAX_LINE_BYTES
    assert line.endswith(" [cut]")


def test_print_at_the_cap_is_whole():
    assert printed("x" * basic.MAX_LINE_BYTES) == "x" * basic.MAX_LINE_BYTES


def test_print_of_an_int_without_decimal_text_shows_its_size():
    assert printed([10**5000]) == "[<int of 16610 bits>]"


def test_log_goes_to_the_plugin_logger_with_worker_and_data(caplog):
    caplog.set_level(logging.DEBUG, "fxcell.plugin")
    effect = Log(message="100% \x1b[2Jdone\nINFO forged", level="warning", data={"n": 1, "who\n": "a b\x07"})
    assert basic.perform_log(effect, context()) is None
    (record,) = caplog.records
    assert (record.name, record.levelno, record.worker) == ("fxcell.plugin", logging.WARNING, "w3")
    assert record.getMessage() == r"100% \x1b[2Jdone\nINFO forged n=1 who\n='a b\x07'"
    assert record.plugin_data == {"n": "1", r"who\n": r"'a b\x07'"}


def test_log_with_much_data_is_one_capped_line(caplog):
    caplog.set_level(logging.DEBUG, "fxcell.plugin")
    basic.perform_log(Log(message="m", data={str(n): "x" * 1000 for n in range(500)}), context())
    assert len(caplog.records[0].getMessage().encode()) <= basic.MAX_LINE_BYTES


def test_print_and_log_over_the_limit_of_output_are_denied_until_the_next_command(caplog):
    caplog.set_level(logging.INFO, "fxcell.plugin")

    @zef_function
    def tell(count):
        done = 0
        for _ in range(count):
            done += run.outcome(FX.Print(content="x" * 999)) is None
            done += run.outcome(FX.Log(message="y" * 999)) is None
        return done, run.outcome(FX.Print(content="x" * 999)).to_dict()

    policy = Policy(name="teller", effects={"Print": True, "Log": True}, limits=Limits(output_bytes=20_000))
    worker = FX.StartWorkerProcess(policy=policy) | run
    try:
        for _ in range(2):
            done, denied = FX.SendCommandToWorkerProcess(process=worker, command=tell(30)) | run
            assert done == 20
            assert denied["rule"].startswith("the command has used up limits.output = 20000 B")
            assert denied["suggestion"] == 'limits.output = "40000 B"'
    finally:
        FX.StopWorkerProcess(process=worker) | run
    assert len(caplog.records) == 20


@pytest.mark.parametrize("level", ["critical", "INFO", "", "warn"])
def test_log_level_that_does_not_exist_is_bad_request(level):
    with pytest.raises(EffectFailed) as failed:
        basic.perform_log(Log(message="m", level=level), context())
    assert failed.value.kind == "bad_request"


def test_now_is_the_wall_clock():
    before = time.time()
    assert before <= basic.perform_now(Now(), context()) <= time.time()


def test_sleep_waits_and_answers_none():
    started = time.monotonic()
    assert basic.perform_sleep(Sleep(seconds=0.03), context()) is None
    assert time.monotonic() - started >= 0.03


def test_sleep_past_the_deadline_is_a_timeout_at_the_deadline():
    started = time.monotonic()
    with pytest.raises(EffectFailed) as failed:
        basic.perform_sleep(Sleep(seconds=1e12), context(seconds=0.05))
    assert failed.value.kind == "timeout"
    assert 0.05 <= time.monotonic() - started < 5


def test_sleep_of_a_dead_worker_ends_at_once():
    gone = threading.Event()
    gone.set()
    with pytest.raises(EffectFailed) as failed:
        basic.perform_sleep(Sleep(seconds=60.0), context(seconds=120, cancelled=gone.wait))
    assert failed.value.kind == "cancelled"


def test_sleep_asks_again_when_the_wait_returned_early():
    waits = []

    def early(seconds):
        waits.append(seconds)
        return len(waits) == 3

    with pytest.raises(EffectFailed):
        basic.perform_sleep(Sleep(seconds=60.0), context(seconds=120, cancelled=early))
    assert len(waits) == 3


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_sleep_that_is_no_duration_is_bad_request(seconds):
    with pytest.raises(EffectFailed) as failed:
        basic.perform_sleep(Sleep(seconds=seconds), context())
    assert failed.value.kind == "bad_request"


@pytest.mark.parametrize("count", [0, 1, 4096])
def test_random_bytes_are_that_many(count):
    assert len(basic.perform_random_bytes(RandomBytes(count=count), context())) == count


def test_random_bytes_differ():
    ask = RandomBytes(count=32)
    assert basic.perform_random_bytes(ask, context()) != basic.perform_random_bytes(ask, context())


@pytest.mark.parametrize("count", [-1, basic.MAX_RANDOM_BYTES + 1, 10**5000], ids=["negative", "over", "huge"])
def test_random_bytes_out_of_range_are_bad_request(count):
    with pytest.raises(EffectFailed) as failed:
        basic.perform_random_bytes(RandomBytes(count=count), context())
    assert failed.value.kind == "bad_request"
