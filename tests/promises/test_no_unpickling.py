"""The host never unpickles, evaluates or imports what comes from a worker; what runs in a worker holds no host code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fxcell
from fxcell import FX, load_policy, run, zef_function

PACKAGE = Path(fxcell.__file__).resolve().parent
FOLDERS = {name: (PACKAGE / name).resolve() for name in ("policies", "sandbox", "host")}
BUILTINS = {"eval", "exec", "compile", "__import__"}
LOADERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "marshal",
    "dill",
    "shelve",
    "joblib",
    "jsonpickle",
    "runpy",
    "code",
    "imp",
}
READS = {"load", "loads", "Unpickler", "run_path", "run_module", "InteractiveInterpreter", "open"}
IMPORTERS = {"import_module", "spec_from_loader", "spec_from_file_location", "exec_module", "SourceFileLoader"}
ALLOWED = {
    # (folder/file, what): why it never meets bytes of a worker on the host's side
    ("policies/effects.py", "import_module"): "the shipped vocabulary, by a constant name",
    ("host/telemetry.py", "import_module"): "modules of opentelemetry, by constant names",
}


PLUGIN_DATA = ("selftest/attacks", "commands/demo_plugins")
"""Below host/, but plugins: read as bytes, sent to workers, and never imported here, which a test below asserts."""


def files(folder):
    found = (path for path in FOLDERS[folder].rglob("*.py") if "__pycache__" not in path.parts)
    return sorted(path for path in found if not any(f"/{data}/" in str(path) for data in PLUGIN_DATA))


def test_shipped_plugins_are_never_imported_by_the_host():
    names = {data.replace("/", ".") for data in PLUGIN_DATA}
    for path in files("host"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                written = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                full = [f"{module}.{alias.name}" for module in written for alias in node.names]
                assert not [name for name in full + written if any(data in name for data in names)], path


def suspicious(path):
    """(line, what) of everything in a file that turns bytes or names into code or objects."""
    tree = ast.parse(path.read_text())
    module_names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            module_names |= {
                (alias.asname or alias.name).partition(".")[0]: alias.name.partition(".")[0] for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                module_names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name):
            origin = module_names.get(function.id, function.id)
            root, _, last = origin.rpartition(".")
            if function.id in BUILTINS or last in IMPORTERS or (root in LOADERS and last in READS):
                yield node.lineno, last
        elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            root = module_names.get(function.value.id, function.value.id)
            if (root in LOADERS and function.attr in READS) or function.attr in IMPORTERS:
                constant = bool(node.args) and isinstance(node.args[0], ast.Constant)
                if not (function.attr == "import_module" and constant):
                    yield node.lineno, function.attr


@pytest.mark.parametrize("folder", ["host", "policies"])
def test_the_trusted_side_has_no_call_that_makes_code_or_objects_of_bytes(folder):
    found = {
        (f"{folder}/{path.relative_to(FOLDERS[folder])}", line, what)
        for path in files(folder)
        for line, what in suspicious(path)
    }
    assert {(place, line, what) for place, line, what in found if (place, what) not in ALLOWED} == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(b)",
        "import cloudpickle as c\nc.loads(b)",
        "from marshal import loads\nloads(b)",
        "from pickle import Unpickler as U\nU(f)",
        "import importlib\nimportlib.import_module(name)",
        "eval(t)",
        "exec(t)",
        "__import__(n)",
        "compile(t, f, 'exec')",
    ],
)
def test_the_search_finds_what_it_looks_for(tmp_path, source):
    file = tmp_path / "file.py"
    file.write_text(source)
    assert list(suspicious(file))


def test_the_one_place_in_a_worker_that_makes_code_is_known():
    found = {path.name for path in files("sandbox") for _ in suspicious(path)}
    assert found <= {"code.py", "template.py"}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("folder", "never"), [("policies", ("fxcell.sandbox", "fxcell.host")), ("sandbox", ("fxcell.host",))]
)
def test_imports_point_left(folder, never):
    found = {
        (path.name, name)
        for path in files(folder)
        for name in imported_modules(path)
        if name.startswith(never) or name.split(".")[0] == "host"
    }
    assert found == set()


def test_import_graph_of_what_runs_in_a_worker_holds_no_host_code():
    """Not the source but the interpreter: everything that sandbox/ imports, in a fresh process."""
    names = [
        f"fxcell.{folder}.{path.relative_to(FOLDERS[folder]).with_suffix('')}".replace("/", ".")
        for folder in ("policies", "sandbox")
        for path in files(folder)
    ]
    names = [name.removesuffix(".__init__") for name in names]
    script = (
        "import sys, importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print([m for m in sys.modules if m.startswith('fxcell.host')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == "[]"


@zef_function
def host_code_within_reach():
    """Every way to host code that a plugin might try; answer what worked."""
    import gc
    import importlib
    import os
    import sys

    found = []
    for name in ("fxcell.host", "fxcell.host.runtime", "fxcell.host.sessions", "host", "host.runtime"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if vars(module).keys() - {
            "__name__",
            "__doc__",
            "__package__",
            "__loader__",
            "__spec__",
            "__path__",
            "__file__",
        }:
            found.append(name)
    # A folder that is shown empty can be imported, as a package of nothing.
    modules = [*sys.modules.values(), *(thing for thing in gc.get_objects() if isinstance(thing, type(sys)))]
    named = [(module, str(getattr(module, "__name__", ""))) for module in modules]
    found += [
        name for module, name in named if name.startswith(("fxcell.host", "host")) and getattr(module, "__file__", None)
    ]
    import fxcell

    package = os.path.dirname(os.path.realpath(fxcell.__file__))
    for folder in (os.path.join(package, "host"), os.path.join(os.path.dirname(package), "host")):
        for place, _, names in os.walk(folder):
            found += [os.path.join(place, name) for name in names]
        for name in ("runtime.py", "sessions.py", "broker.py", "__init__.py"):
            if os.path.exists(os.path.join(folder, name)):
                found.append(os.path.join(folder, name))
    return found


@pytest.mark.parametrize("policy", ["strict", "compute"])
def test_worker_has_no_host_code_and_sees_no_file_of_it(policy):
    worker = FX.StartWorkerProcess(policy=policy) | run
    try:
        assert FX.SendCommandToWorkerProcess(process=worker, command=host_code_within_reach()) | run == []
    finally:
        FX.StopWorkerProcess(process=worker) | run


def test_worker_sees_no_file_of_it_even_where_the_folder_around_it_is_granted():
    for folder in {PACKAGE.parent, FOLDERS["host"].parent, FOLDERS["host"]}:
        policy = load_policy("compute").replaced(name="sees the code", visible=(str(folder),))
        worker = FX.StartWorkerProcess(policy=policy) | run
        try:
            assert FX.SendCommandToWorkerProcess(process=worker, command=host_code_within_reach()) | run == []
            assert FX.SendCommandToWorkerProcess(process=worker, command=files_below(str(FOLDERS["host"]))) | run == []
        finally:
            FX.StopWorkerProcess(process=worker) | run
    assert files_below.function(str(FOLDERS["host"]))


@zef_function
def files_below(folder):
    import os

    return [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]


@zef_function
def modules_loaded(prefix):
    import sys

    return [name for name in sys.modules if name.startswith(prefix)]


@zef_function
def reduce_to_code():
    class Evil:
        def __reduce__(self):
            import os

            return os.system, ("touch /tmp/fxcell-was-here",)

    return Evil()


def test_result_that_would_run_code_when_unpickled_does_not_travel():
    worker = FX.StartWorkerProcess(policy="compute") | run
    outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=reduce_to_code()))
    FX.StopWorkerProcess(process=worker) | run
    assert outcome.type_name == "EncodeError"
    assert not Path("/tmp/fxcell-was-here").exists()


def test_host_process_that_only_answers_workers_never_loads_a_pickle(monkeypatch):
    import pickle

    import cloudpickle

    def refuse(*_, **__):
        raise AssertionError("the host unpickled something")

    worker = FX.StartWorkerProcess(policy="compute") | run
    call = modules_loaded("json")
    FX.SendCommandToWorkerProcess(process=worker, command=call) | run
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(cloudpickle, "loads", refuse)
    for command in (call, FX.Now(), reduce_to_code()):
        run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command))
    FX.StopWorkerProcess(process=worker) | run
