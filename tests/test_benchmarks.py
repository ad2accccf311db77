"""`make bench`: rows are judged right, sides that misbehave cost their own row only, and a quick run prints the table.

Nothing here asserts how fast anything is.
"""

import math
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import benchmarks.__main__ as command_line
from benchmarks import clock, curves, report, results, rows
from benchmarks.curves import Curve
from benchmarks.results import HEAD, Result
from benchmarks.rounds import interleaved
from benchmarks.rounds import rows as rows_of
from benchmarks.sides import Side, SideAbsent, SideFailed
from tests.leaks import assert_nothing_left

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"\|( ([^|]|\\\|)* \|){6} (PASS|FAIL|—|skipped: .+)( \(.+\))? \|")


# --- sides of this test, run by benchmarks.side in processes of their own


def counting(start):
    while True:
        yield [float(start)]
        start += 1


def not_here():
    raise clock.Absent("this test has no such library")
    yield


def not_installed():
    import no_such_module_anywhere  # noqa: F401

    yield []


def raising():
    yield [1.0]
    raise ValueError("no second turn")


def printing():
    print("a library that prints")
    yield [1.0]


def ending_at_once():
    sys.exit("the side ends itself")
    yield


def hanging():
    subprocess.Popen(["sleep", "60"])
    time.sleep(60)
    yield []


def side(function, **arguments):
    return Side(function.__name__, f"tests.test_benchmarks:{function.__name__}", **arguments)


@pytest.mark.parametrize(
    ("ours", "theirs", "limit", "higher", "verdict"),
    [
        (1.0, 2.0, 0.5, False, "PASS"), (1.01, 2.0, 0.5, False, "FAIL"), (0.1, 0.3, 1 / 3, False, "PASS"),
        (6.0, 2.0, 3.0, True, "PASS"), (5.9, 2.0, 3.0, True, "FAIL"), (6.0, 2.0, None, True, "—"), (6.0, 2.0, None, False, "—"),
        (math.nan, 2.0, 1.0, False, "FAIL"), (1.0, math.nan, 1.0, False, "FAIL"), (1.0, math.nan, 1.0, True, "FAIL"),
        (1.0, 0.0, 1.0, True, "FAIL"), (math.inf, 1.0, 1.0, True, "FAIL"), (math.nan, 1.0, None, False, "—"),
    ],
)  # fmt: skip
def test_row_is_judged_by_its_limit_in_its_direction(ours, theirs, limit, higher, verdict):
    result = Result("what", "peer", ours, theirs, limit=limit, higher=higher)
    assert result.verdict == verdict
    assert result.passed == (verdict != "FAIL")
    assert ROW.fullmatch(result.row())


def test_absent_peer_is_skipped_with_its_reason_and_never_fails():
    result = Result("what", "peer", 1.0, limit=1.0, skipped="it is not installed")
    assert result.passed
    assert result.row() == "| what | 1.00 s | peer |  |  | <= 1 x | skipped: it is not installed |"


def test_peer_that_is_there_and_gives_no_figure_fails_a_judged_row_and_says_why():
    assert Result("what", "peer", 1.0, limit=1.0, note="it hangs").row().endswith("| FAIL (it hangs) |")
    assert Result("what", "peer", 1.0, note="it hangs").row().endswith("| — (it hangs) |")


@pytest.mark.parametrize(
    ("figure", "unit", "text"),
    [
        (2.5e-5, "s", "25.0 µs"), (0.0125, "s", "12.50 ms"), (3.0, "s", "3.00 s"), (64.0, "B", "64 B"), (4096.0, "B", "4 KiB"),
        (3.5 * 2**20, "B", "3.50 MiB"), (150 * 2**20, "B", "150 MiB"),
        (12345.6, "calls/s", "12,346 calls/s"), (9.87, "calls/s", "9.9 calls/s"), (math.nan, "s", ""),
    ],
)  # fmt: skip
def test_figures_are_shown_with_units(figure, unit, text):
    assert results.shown(figure, unit) == text


def test_markdown_has_machine_table_curves_and_picture():
    measured = [Result("call", "peer", 1.0, 2.0, limit=0.2), Result("start", "peer", 1.0, 2.0, limit=0.5), Result("x", "y|z", 1.0)]
    curve = Curve("Growth", "workers", "each", [1.0, 2.0], {"fxcell": [0.001, math.nan]}, notes=("peer: hangs",))
    text = report.markdown(measured, [curve], "Python 3, Linux 6", "latest.png")
    assert text.startswith("# Benchmarks\n\nWritten by `make bench`. Python 3, Linux 6.\n")
    assert "1 of 2 judged rows PASS; FAIL: call / peer." in text
    assert f"{HEAD}\n{measured[0].row()}\n{measured[1].row()}\n" in text
    assert "![growth curves](latest.png)" in text
    assert "| workers | fxcell |\n| ---: | ---: |\n| 1 | 1.00 ms |\n| 2 |  |\n\npeer: hangs\n" in text
    assert all(ROW.fullmatch(row.row()) for row in measured)
    assert "![" not in report.markdown(measured, [curve], "", None)


def test_plot_is_a_png(tmp_path):
    pytest.importorskip("matplotlib")
    code = """
import math, pathlib, sys
from benchmarks import plot
from benchmarks.curves import Curve
curve = Curve("Growth", "payload", "each", [64.0, 256.0], {"fxcell": [0.1, math.nan], "peer": [1.0, 2.0]}, x_unit="B", log="xy")
plot.draw([curve, curve, curve], pathlib.Path(sys.argv[1]))
"""
    # Not in this process: matplotlib keeps the files of its fonts open.
    subprocess.run([sys.executable, "-c", code, tmp_path / "latest.png"], cwd=ROOT, check=True, timeout=100)
    assert (tmp_path / "latest.png").read_bytes().startswith(b"\x89PNG")


def test_each_name_of_a_row_and_of_a_curve_is_a_file():
    for package in (rows, curves):
        files = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__", "lines"}
        assert files == set(package.NAMES)


def test_sides_are_asked_in_turn_and_one_that_fails_costs_only_itself():
    with assert_nothing_left():
        answers = interleaved([side(counting, start=1), side(raising), side(not_here), side(not_installed), side(printing)], 3)
    assert answers.rounds["counting"] == [[1.0], [2.0], [3.0]]
    assert answers.rounds["raising"] == [[1.0]]
    assert answers.failed == {"raising": "ValueError: no second turn", "printing": "it has no more turns"}
    assert answers.absent == {
        "not_here": "this test has no such library",
        "not_installed": "no_such_module_anywhere is not installed",
    }
    by_peer = {row.peer: row for row in rows_of("what", answers, {"raising": 9.0, "not_here": 9.0}, ours="counting")}
    assert by_peer["raising"].verdict == "FAIL (ValueError: no second turn)"
    assert by_peer["not_here"].verdict == "skipped: this test has no such library"


def test_our_side_that_fails_makes_its_judged_rows_fail():
    answers = interleaved([side(ending_at_once), side(counting, start=1)], 1)
    (row,) = rows_of("what", answers, {"counting": 9.0}, ours="ending_at_once")
    assert row.verdict.startswith("FAIL (fxcell: its process ended with 1: the side ends itself")


@pytest.mark.slow
def test_side_that_hangs_is_ended_with_all_that_it_started():
    one = side(hanging)
    with assert_nothing_left():
        try:
            with pytest.raises(SideFailed, match=r"no answer within 2 s"):
                one.ask(patience_s=2)
            assert any(process.name() == "sleep" for process in psutil.Process().children(recursive=True))
        finally:
            one.stop(patience_s=0.1)


def test_side_whose_library_is_missing_says_so():
    one = side(not_installed)
    with pytest.raises(SideAbsent, match="no_such_module_anywhere is not installed"):
        one.ask()
    one.stop()


def test_row_whose_code_raises_is_a_fail_and_the_others_go_on(monkeypatch, capsys):
    def measure(_effort):
        yield Result("good", "peer", 1.0, 2.0, limit=1.0)
        raise RuntimeError("a bug of the row")

    monkeypatch.setattr("benchmarks.rows.imports.measure", measure)
    assert command_line.main(["imports", "imports"]) == 1
    verdicts = [line.split(" | ")[-1] for line in capsys.readouterr().out.splitlines() if ROW.fullmatch(line)]
    assert verdicts == ["PASS |", "FAIL (RuntimeError: a bug of the row) |"] * 2


@pytest.mark.slow
def test_quick_run_of_two_rows_prints_a_table_and_writes_where_it_is_told(tmp_path):
    words = ["--quick", "imports", "inside", "--out", tmp_path]
    with assert_nothing_left():
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", *words], capture_output=True, text=True, cwd=ROOT, timeout=150, check=False
        )
    assert done.returncode in (0, 1), done.stderr
    lines = done.stdout.splitlines()
    assert re.match(r"Python 3\.\d+\.\d+, Linux \d.* CPUs .*, quick$", lines[0])
    table = lines[2 : lines.index("", 2)]
    assert "\n".join(table[:2]) == HEAD
    assert all(ROW.fullmatch(row) for row in table[2:])
    assert [row.split(" | ")[0] for row in table[2:]] == [
        "| import fxcell", "| from fxcell import FX, run", "| computation inside the sandbox",
    ]  # fmt: skip
    assert re.search(r"\d of 2 judged rows PASS", lines[-1])
    assert "\n".join(table) in (tmp_path / "latest.md").read_text()


def test_row_that_is_not_there_is_a_usage_error_that_lists_the_rows():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "no_such_row"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "there is no row 'no_such_row'; rows: call, call_pinned" in done.stderr
