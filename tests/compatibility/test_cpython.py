"""CPython's own regression tests as plugins under `compute`: what passes in a plain process passes in a worker.

Each module runs in a worker of its own and, for comparison, in a plain process. known_limits.toml lists the modules and
the cases that cannot pass, with the reason; a case that fails and is not there fails the suite, a row there that no case
needs any more does too.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from fxcell import FX, run, zef_function
from tests.compatibility.cases import MARK, outcomes_of

HERE = Path(__file__).parent
TABLE = tomllib.loads((HERE / "known_limits.toml").read_text(encoding="utf-8"))
MODULES = TABLE["modules"].split()
LIMITS: dict[str, dict[str, str]] = TABLE["limits"]
MEASURED = f"{sys.version_info.major}.{sys.version_info.minor}" == TABLE["python"]
"""Cases differ between versions of Python: with another one only the pass rate counts."""

MODULES_MIN = 120
RATE_MIN = 0.97
SECONDS = 120

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("test.test_json") is None,
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
    crash: str = ""


def outside(name, folder):
    command = [sys.executable, "-I", HERE / "cases.py", name]
    environment = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", timeout=SECONDS, check=False,
    )  # fmt: skip
    _, mark, table = done.stdout.rpartition(MARK)
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
            return Compared(passing, dict.fromkeys(passing, "the module did not finish"), f"{type(answer).__name__}: {answer}")
        failed = {case: why for case in passing for outcome, why in [answer.get(case, ["", "not found"])] if outcome != "passed"}
        lost = {case: why for case, why in failed.items() if not attempt or case in lost}
        if not unlisted(name, lost):
            break
    return Compared(passing, lost)


def unlisted(name, lost):
    return {case: why for case, why in lost.items() if not any(fnmatch.fnmatchcase(case, p) for p in LIMITS.get(name, {}))}


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
def test_module_passes_inside_as_outside(compared, name):
    result = compared[name].result()
    print(f"\n{name}: {len(result.passing)} pass outside, {len(result.lost)} of them not inside")
    assert not result.crash, f"{name}: {result.crash}"
    assert result.passing, f"{name} has no case that passes outside"
    if MEASURED:
        assert unlisted(name, result.lost) == {}
        idle = [p for p in LIMITS.get(name, {}) if not fnmatch.filter(result.lost, p)]
        assert idle == [], "rows of known_limits.toml that no case of this module needs"


def test_rate_of_passed_cases(compared):
    results = [future.result() for future in compared.values()]
    if len(results) < len(MODULES):
        pytest.skip("only some modules were chosen")
    outside_count = sum(len(result.passing) for result in results)
    inside_count = outside_count - sum(len(result.lost) for result in results)
    rate = inside_count / outside_count
    text = f"{len(results)} modules: {outside_count} cases pass outside, {inside_count} of them inside: {rate:.2%}"
    with contextlib.suppress(OSError):
        print(f"\n{text}")
    assert len(results) >= MODULES_MIN
    assert rate >= RATE_MIN, text


def test_rows_are_about_modules_that_run():
    assert set(LIMITS) <= set(MODULES)
    assert not set(TABLE["left_out"]) & set(MODULES)
    assert len(MODULES) == len(set(MODULES))
    assert all(reason for rows in (TABLE["left_out"], *LIMITS.values()) for reason in rows.values())
