"""README.md and SECURITY.md lead somewhere: each link has a file, each test that is named exists, promises are numbered."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "SECURITY.md")
TEST = re.compile(r"\b(tests/[\w/]+\.py)::(\w+)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def text_of(name):
    return (ROOT / name).read_text()


def headings(name):
    lines = [line.lstrip("# ") for line in text_of(name).splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_to_a_file_or_heading(name):
    targets = [target for target in LINK.findall(text_of(name)) if not target.startswith("https://")]
    assert targets
    for target in targets:
        path, _, heading = target.partition("#")
        assert (ROOT / path).exists(), target
        assert not heading or heading in headings(path or name), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_test_that_is_named_exists(name):
    named = TEST.findall(text_of(name))
    assert named
    for path, function in named:
        file = ROOT / path
        assert file.exists(), path
        assert f"def {function}(" in file.read_text(), f"{path}::{function}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_link_and_named_test_are_in_the_same_file(name):
    for shown, target in re.findall(r"\[(tests/[^\]]+)\]\(([^)]+)\)", text_of(name)):
        assert shown.partition("::")[0] == target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_promises_are_numbered_and_each_has_a_test_or_says_pending(name):
    section = text_of(name).split("\n## Promises\n")[1].split("\n## ")[0]
    promises = re.split(r"^(\d+)\. ", section, flags=re.MULTILINE)[1:]
    numbers, texts = promises[::2], promises[1::2]
    assert [int(number) for number in numbers] == list(range(1, len(numbers) + 1))
    for number, text in zip(numbers, texts, strict=True):
        assert TEST.search(text) or "pending" in text.lower(), number
