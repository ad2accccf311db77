"""Run one module of CPython's own regression tests and say what became of each case. Standard library only.

Run by:   python -I cases.py MODULE       (such as test_json; the plain process that a worker is compared with)
Prints:   after a line of its own, a JSON table {case: [outcome, why]}; outcome is passed, failed or skipped.

outcomes_of also runs inside workers: it travels there by value, so it imports all it needs itself.
"""

from __future__ import annotations

import importlib.util
import sys

MARK = "\n== outcomes\n"


def are_installed() -> bool:
    """True when this interpreter has its regression tests (Debian: libpython3.11-testsuite; builds from source have them)."""
    try:
        return importlib.util.find_spec("test.test_json") is not None
    except ModuleNotFoundError:
        return False


def outcomes_of(name: str) -> dict[str, list[str]]:
    """{case: [outcome, why]}: the case without "test.<module>." in front. One failed part makes the case failed."""
    import importlib
    import unittest

    from test import support

    support.use_resources = ()  # neither network, nor large files, nor much time
    found: dict[str, list[str]] = {}

    class Outcomes(unittest.TestResult):
        def note(self, test: object, outcome: str, why: str = "") -> None:
            case = test.id().removeprefix("test.").removeprefix(name + ".")  # type: ignore[attr-defined]
            if found.get(case, [""])[0] != "failed":
                found[case] = [outcome, " ".join(why.split())[-300:]]

        def addSuccess(self, test):
            self.note(test, "passed")

        def addFailure(self, test, err):
            self.note(test, "failed", f"{err[0].__name__}: {err[1]}")

        addError = addFailure

        def addSkip(self, test, reason):
            self.note(test, "skipped", str(reason))

        def addExpectedFailure(self, test, err):
            self.note(test, "passed")

        def addUnexpectedSuccess(self, test):
            self.note(test, "passed")

        def addSubTest(self, test, subtest, err):
            if err is not None:
                self.addFailure(test, err)

    loader = unittest.TestLoader()
    suite = loader.loadTestsFromModule(importlib.import_module(f"test.{name}"))
    if loader.errors:
        raise ImportError(loader.errors[0])
    result = Outcomes()
    result.buffer = True  # what a case prints is not the worker's output
    suite.run(result)
    return found


if __name__ == "__main__":
    import json

    table = json.dumps(outcomes_of(sys.argv[1]))
    sys.__stdout__.write(MARK + table)
