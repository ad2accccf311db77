"""CPython's own regression tests as plugins under `compute`: what passes in a plain process passes in a worker.

Each module runs in a worker of its own and, for comparison, in a plain process. known_limits.toml lists the modules and
the cases that cannot pass, with the reason; a case that fails and is not there fails the suite, a row there that no case
needs any more does too. Cases differ between releases of Python: with another one than the table was measured with, what
fails is only named, and the pass rate decides. The death of a worker is a failure everywhere.
"""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from fxcell import FX, WorkerCrash, run, zef_function
from tests.compatibility.cases import MARK, are_installed, outcomes_of

HERE = Path(__file__).parent
TABLE = tomllib.loads((HERE / "known_limits.toml").read_text(encoding="utf-8"))
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
MODULES = [name for name in TABLE["modules"].split() if name not in TABLE["left_out_in"].get(VERSION, {})]
LIMITS: dict[str, dict[str, str]] = TABLE["limits"]
SOMETIMES: dict[str, dict[str, str]] = TABLE["sometimes"]
MEASURED = platform.python_version() == TABLE["python"]
MODULES_MIN = 120
RATE_MIN = 0.97
SECONDS = 120

pytestmark = pytest.mark.skipif(
    not are_installed(),
    reason=f"{sys.base_prefix} has no `test` package (Debian: libpython3.11-testsuite; builds from source have it)",
)


@zef_function
def outcomes_inside(name):
    return outcomes_of(name)


@dataclass
class Compared:
    """One module. passing: cases that pass outside. lost: those of them that do not pass inside, with why."""

    passing: set[str]
    lost: dict[str, str]
    end: object = None
    """What came instead of an answer: a WorkerCrash, or the exception of a module that cannot be imported there."""


def outside(name, folder):
    command = [sys.executable, "-I", HERE / "cases.py", name]
    environment = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", timeout=SECONDS, check=False,
    )  # fmt: skip
    _, mark, table = done.stdout.rpartition(MARK)
    if not mark and not MEASURED:
        return {}  # this Python has no such module
    assert mark, f"{name} does not run in a plain process: {done.stderr[-2000:]}"
    return json.loads(table)


def inside(name):
    worker = FX.StartWorkerProcess() | run
    try:
        return run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=outcomes_inside(name)))
    finally:
        FX.StopWorkerProcess(process=worker) | run


def compare(name, folder):
    folder.mkdir()
    passing = {case for case, (outcome, _) in outside(name, str(folder)).items() if outcome == "passed"}
    lost: dict[str, str] = {}
    for attempt in range(2):  # cases that measure time may fail on a busy machine: they get a second chance
        answer = inside(name)
        if not isinstance(answer, dict):
            return Compared(passing, dict.fromkeys(passing, f"{type(answer).__name__}: {answer}"), answer)
        failed = {case: why for case in passing for outcome, why in [answer.get(case, ["", "not found"])] if outcome != "passed"}
        lost = {case: why for case, why in failed.items() if not attempt or case in lost}
        if not unlisted(name, lost):
            break
    return Compared(passing, lost)


def unlisted(name, lost):
    patterns = [*LIMITS.get(name, {}), *SOMETIMES.get(name, {})]
    return {case: why for case, why in lost.items() if not any(fnmatch.fnmatchcase(case, p) for p in patterns)}


@pytest.fixture(scope="module")
def compared(request, tmp_path_factory):
    """name -> future of Compared. All chosen modules start at once, one after the other on each processor."""
    chosen = [item.callspec.params["name"] for item in request.session.items if "name" in getattr(item, "fixturenames", ())
              and item.path == request.path]  # fmt: skip
    folder = tmp_path_factory.mktemp("outside")
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield {name: pool.submit(compare, name, folder / name) for name in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", MODULES)
def test_module_passes_inside_as_outside(compared, name, say):
    result = compared[name].result()
    assert not isinstance(result.end, WorkerCrash), f"{name}: {result.end}"
    if not MEASURED:
        if not result.passing:
            pytest.skip(f"{name}: no case of it passes in a plain process of Python {platform.python_version()}")
        if result.end is not None:
            say(f"not in known_limits.toml: all of {name}: {result.end}")
        for case, why in unlisted(name, result.lost).items() if result.end is None else ():
            say(f"not in known_limits.toml: {name} {case}: {why}")
        return
    assert result.passing, f"{name} has no case that passes outside"
    assert unlisted(name, result.lost) == {}
    # Where a case does not pass outside either, as some do not for an ordinary user, its row has nothing to do.
    idle = [p for p in LIMITS.get(name, {}) if fnmatch.filter(result.passing, p) and not fnmatch.filter(result.lost, p)]
    assert idle == [], "rows of known_limits.toml that no case of this module needs"
    unknown = [p for p in LIMITS.get(name, {}) if os.geteuid() == 0 and not fnmatch.filter(result.passing, p)]
    assert unknown == [], "rows of known_limits.toml that match no case"


def test_rate_of_passed_cases(compared, say):
    results = [future.result() for future in compared.values()]
    if len(results) < len(MODULES):
        pytest.skip("only some modules were chosen")
    outside_count = sum(len(result.passing) for result in results)
    inside_count = outside_count - sum(len(result.lost) for result in results)
    rate = inside_count / outside_count
    text = f"{len(results)} modules: {outside_count} cases pass outside, {inside_count} of them inside: {rate:.2%}"
    say(text)
    assert len(results) >= MODULES_MIN
    assert rate >= RATE_MIN, text


def test_rows_are_about_modules_that_run():
    assert {*LIMITS, *SOMETIMES} <= set(TABLE["modules"].split())
    assert not set(TABLE["left_out"]) & set(MODULES)
    assert len(MODULES) == len(set(MODULES))
    reasons = (TABLE["left_out"], *TABLE["left_out_in"].values(), *LIMITS.values(), *SOMETIMES.values())
    assert all(reason for rows in reasons for reason in rows.values())
