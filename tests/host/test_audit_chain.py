"""The chain of an audit log: what verify finds, which line it names, and how rotation and a torn end carry it on."""

import os

import pytest

from fxcell.host import audit
from fxcell.host.audit import chain
from fxcell.host.commands.audit import verify_files
from tests.host.audited import written


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (lambda lines: lines[:3] + lines[4:], "record 5 stands where record 4"),
        (lambda lines: [*lines[:3], lines[3].replace(b'"number":2', b'"number":9'), *lines[4:]], "was changed"),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "record 5 stands where record 4"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "record 3 stands where record 4"),
        (lambda lines: lines[1:], "does not begin with"),
        (lambda lines: [*lines[:3], b"not a record\n", *lines[3:]], "does not vouch"),
        (lambda lines: [*lines[:-1], lines[-1][:20]], "torn after 20 bytes"),
        (lambda lines: [*lines[:3], lines[3][:-1] + b" \n", *lines[4:]], "does not vouch"),
        (lambda _lines: [], "empty"),
    ],
    ids=["removed", "changed", "moved", "doubled", "head-cut", "added", "torn", "padded", "emptied"],
)
def test_tampered_log_is_found_with_line_and_reason(tmp_path, attack, why):
    path = tmp_path / "log"
    written(path, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    assert audit.verify([str(path)]).whole  # the control
    path.write_bytes(b"".join(attack(lines)))
    report = audit.verify([str(path)])
    assert not report.whole
    assert why in report.why
    assert report.line >= 1


OPENED = b'{"seq":1,"event":"opened","keyed":false,"prev":"' + b"0" * 64 + b'"}'


@pytest.mark.parametrize(
    ("bodies", "line", "why"),
    [
        ([OPENED.replace(b"0" * 64, rb"\ud800")], 1, "'prev'"),
        ([OPENED.replace(b'"0', b'["0').replace(b'0"', b'0"]')], 1, "'prev'"),
        ([OPENED.replace(b":1", b":" + b"9" * 4000)], 1, "'seq'"),
        ([OPENED.replace(b":1", b":" + b"9" * 5000)], 1, "not a record"),
        ([OPENED.replace(b":1", b":0")], 1, "'seq'"),
        ([OPENED.replace(b":1", b":true")], 1, "'seq'"),
        ([OPENED, b'{"seq":2,"event":"lost"}'], 2, "'count'"),
        ([OPENED, b'{"seq":2,"event":"lost","count":"x"}'], 2, "'count'"),
        ([OPENED, b'{"seq":2,"event":"lost","count":-3}'], 2, "'count'"),
        ([OPENED, b'{"seq":2,"effect":"Print","effect":"WriteFile"}'], 2, "the key 'effect' twice"),
        ([OPENED, b'{"seq":2,"arguments":{"path":"/a","path":"/b"}}'], 2, "the key 'path' twice"),
        ([OPENED, b'{"seq":2,"hash":"x"}'], 2, "the key 'hash' twice"),
        ([OPENED, b'{"seq":2,"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"], 2, "not a record"),
        ([OPENED, '{"seq":2}'.encode("utf-16")], 2, "not a record"),
    ],
    ids=[
        "surrogate", "list", "4000 digits", "5000 digits", "zero", "true", "no count", "text", "negative", "key twice", "deeper",
        "hash", "nested", "utf-16",
    ],
)  # fmt: skip
def test_malformed_record_with_a_right_hash_is_broken_at_its_line(tmp_path, bodies, line, why):
    path, previous = tmp_path / "log", b"0" * 64
    with path.open("wb") as file:
        for body in bodies:
            sealed, previous = chain.seal(previous, body, None)
            file.write(sealed)
    report = audit.verify([str(path)])
    assert (report.whole, report.line) == (False, line)
    assert why in report.why


@pytest.mark.parametrize("expect", ["é", "", "0" * 63, "0" * 64 + "é"])
def test_expected_hash_that_is_none_exits_2_and_says_what_it_must_be(tmp_path, expect, capsys):
    path = tmp_path / "log"
    written(path, 2)
    assert verify_files([str(path)], expect=expect, key_file=None, as_json=False) == 2
    assert "64 hex digits" in capsys.readouterr().err


def test_end_cut_off_is_found_only_with_the_expected_hash(tmp_path):
    path = tmp_path / "log"
    head = written(path, 6).head.decode()
    assert audit.verify([str(path)], expect=head).whole
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert audit.verify([str(path)]).whole
    assert "lines after it were removed" in audit.verify([str(path)], expect=head).why


def test_chain_computed_anew_is_found_with_a_key_and_not_without(tmp_path):
    key = b"k" * 32
    path = tmp_path / "log"
    written(path, 3)
    assert audit.verify([str(path)]).whole  # as an attacker would leave it
    assert "not keyed" in audit.verify([str(path)], key=key).why
    keyed = tmp_path / "keyed"
    written(keyed, 3, key=key)
    assert audit.verify([str(keyed)], key=key).whole
    assert not audit.verify([str(keyed)], key=b"x" * 32).whole
    with pytest.raises(audit.AuditError, match="--key"):
        audit.verify([str(keyed)])


def test_rotation_carries_the_chain_and_a_missing_file_is_found(tmp_path):
    path = tmp_path / "log"
    written(path, 200, rotate_bytes=4096)
    files = sorted(str(file) for file in tmp_path.iterdir())
    assert len(files) > 4
    report = audit.verify(files)
    assert report.whole
    assert report.first_seq == 1
    assert report.records == 200 + len(files)
    missing = [file for file in files if not file.endswith(".2")]
    assert not audit.verify(missing).whole
    later = audit.verify([file for file in files if not file.endswith(".1")])
    assert later.whole
    assert later.first_seq > 1


def test_rotation_keeps_the_newest_files(tmp_path):
    written(tmp_path / "log", 200, rotate_bytes=4096, keep=2)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert len(names) == 3
    assert audit.verify([str(tmp_path / name) for name in names]).whole


def test_second_host_is_refused_and_links_and_devices_too(tmp_path):
    with audit.to_file(tmp_path / "log"), pytest.raises(audit.AuditError, match="another host"):
        audit.to_file(tmp_path / "log")
    (tmp_path / "link").symlink_to(tmp_path / "log")
    with pytest.raises(audit.AuditError, match="cannot be opened"):
        audit.to_file(tmp_path / "link")
    with pytest.raises(audit.AuditError, match="not a regular file"):
        audit.to_file("/dev/null")
    (tmp_path / "other").write_text("hello\n")
    with pytest.raises(audit.AuditError, match="does not end as an audit log"):
        audit.to_file(tmp_path / "other")


def test_pipe_in_place_of_a_log_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(audit.AuditError, match="not a regular file"):
        audit.verify([str(tmp_path / "pipe")])


def test_torn_line_is_named_and_the_next_opening_vouches_for_it(tmp_path):
    path = tmp_path / "log"
    written(path, 3)
    with path.open("ab") as file:
        file.write(b'{"seq":5,"time":"20')
    assert "torn after 19 bytes" in audit.verify([str(path)]).why
    written(path, 1)
    report = audit.verify([str(path)])
    assert report.whole
    assert report.records == 6
