"""Libraries with much native code do real work, with the answers they give everywhere, under each profile that fits."""

from __future__ import annotations

import importlib.util

import pytest

from fxcell import FX, load_policy, run
from tests.compatibility import libraries

FORMS = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP")
ANSWERS = {
    "numpy": (libraries.use_numpy, (True, 9, 1.0, ["apple", "fig", "pear"], "2024-03-01")),
    "scipy": (
        libraries.use_scipy,
        ([1.0, 1.0, 1.0], 2.0, 0.36788, True, (2.0, 1.0), 15.625, 1.0, True, True, 0.975),
    ),
    "pandas": (
        libraries.use_pandas,
        (
            {(1, "a"): 3.0, (1, "b"): 5.0, (2, "a"): 7.0, (2, "b"): 0.0}, {"a": 5.0, "b": 5.0}, ["Aa", "Bb", "Aa", "Bb"],
            1, [8.0, 7.0], "2024-03-31T02:30:00+00:00", 4,
        ),
    ),
    "PIL": (libraries.use_pillow, ({form: (form, (160, 120)) for form in FORMS}, True, (60, 80), True, True)),
    "lxml": (libraries.use_lxml, ([None, "y & z"], "1", "2", True, "refused", ["/x"], b"<a")),
    "cryptography": (
        libraries.use_cryptography,
        (b"text", "refused", 5, True, ["AESGCM", "ChaCha20Poly1305"], b"text", "7eee3ccd"),
    ),
    "sklearn": (libraries.use_sklearn, (True, True, True, [50, 50, 50], True, True)),
    "regex": (libraries.use_regex, (["Ähre", "Öl", "Übel"], "cat", "..7", [["a", "b", "c"]], "(a(b)c)")),
}  # fmt: skip
PROFILES = ("compute", "numeric", "imaging")


@pytest.fixture(scope="module")
def in_worker():
    """One worker for each library and profile would hide nothing; one for each profile also shows that they get along."""
    workers = {}

    def send(call, profile):
        if profile not in workers:
            workers[profile] = FX.StartWorkerProcess(policy=load_policy(profile)) | run
        return FX.SendCommandToWorkerProcess(process=workers[profile], command=call) | run

    yield send
    for worker in workers.values():
        FX.StopWorkerProcess(process=worker) | run


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("library", ANSWERS)
def test_library_answers_as_everywhere(in_worker, library, profile):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: make test-compatibility installs the extra `compatibility`")
    function, answer = ANSWERS[library]
    assert in_worker(function(), profile) == answer
