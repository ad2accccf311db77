# ruff: noqa: E501 - lists of twins
"""No bypass: rules against an independent matcher, on twins of what is granted: other case, form, type, spelling."""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fxcell.policies.builtin import HTTPRequest, ReadFile
from fxcell.policies.effects import Effect
from fxcell.policies.errors import EffectDenied, EffectError
from fxcell.policies.policy import Policy
from fxcell.policies.rules import check


class Choose(Effect):
    """An effect of one's own with a field of each kind that a rule can list."""

    word: str = ""
    number: int = 0
    share: float = 0.0
    flag: bool = False
    anything: Any = None


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Raw(bytes):
    pass


def granted(effects: dict[str, Any], effect: Effect) -> bool:
    try:
        check(Policy(effects=effects), effect)
    except EffectDenied:
        return False
    return True


# --- plain values: the reference compares what repr and the type's own name say, and nothing else


def same(one: object, two: object) -> bool:
    return type(one).__name__ == type(two).__name__ and type(one).__module__ == type(two).__module__ and repr(one) == repr(two)


WORDS = st.text(max_size=6) | st.sampled_from(["en", "de", "Straße", "\u00e9", "ﬁle", "K", "İ", "true", "1", "1.0", ""])
NUMBERS = st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)
SHARES = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, 0.1 + 0.2, 1e16])


def word_twins(word: str) -> list[object]:
    forms = [unicodedata.normalize(form, word) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    changed = [word.upper(), word.lower(), word.title(), word.swapcase(), word.casefold(), f" {word}", f"{word} ", f"{word}\0"]
    wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in word)
    return [word, *forms, *changed, wide, f"{word}\u200b", f"\ufeff{word}", word[::-1], word[:-1], word * 2]


@given(st.lists(WORDS, min_size=1, max_size=4, unique=True), st.data())
@settings(max_examples=300)
def test_text_is_granted_only_when_the_reference_says_it_is_the_same(words, data):
    word = data.draw(st.sampled_from(words))
    twin = data.draw(st.sampled_from(word_twins(word)) | WORDS)
    assert granted({"Choose": {"word": words}}, Choose(word=twin)) == any(same(twin, other) for other in words)


@given(st.lists(NUMBERS, min_size=1, max_size=4, unique=True), NUMBERS)
def test_whole_number_is_granted_only_when_the_reference_says_it_is_the_same(numbers, twin):
    assert granted({"Choose": {"number": numbers}}, Choose(number=twin)) == any(same(twin, other) for other in numbers)


@given(st.sampled_from([True, 1, 1.0, "1", "True", "true", b"1", None, Text("1"), Whole(1), Raw(b"1"), [1], (1,), {1: 1}, 1 + 0j]),
       st.sampled_from([True, 1, 1.0, "1", "True", "true"]))  # fmt: skip
@settings(max_examples=200)
def test_twin_of_another_type_is_denied_in_a_field_that_takes_anything(twin, listed):
    assert granted({"Choose": {"anything": [listed]}}, Choose(anything=twin)) == same(twin, listed)


@given(st.sampled_from(["word", "number", "share", "flag"]),
       st.sampled_from([True, 1, 1.0, "1", b"1", None, Text("1"), Whole(1), Raw(b"1"), [1], (1,), 1 + 0j, bytearray(b"1")]))  # fmt: skip
@settings(max_examples=200)
def test_field_takes_its_own_type_alone(field, value):
    wanted = {"word": ("str",), "number": ("int",), "share": ("float", "int"), "flag": ("bool",)}[field]
    try:
        effect = Choose(**{field: value})
    except EffectError:
        assert type(value).__name__ not in wanted
        return
    assert type(value).__name__ in wanted
    assert type(getattr(effect, field)).__name__ == wanted[0]


@given(SHARES, SHARES | st.sampled_from([float("inf"), float("-inf"), float("nan")]))
def test_number_is_granted_from_0_to_the_maximum_and_nowhere_else(maximum, given_number):
    if maximum < 0:
        return
    expected = not math.isnan(given_number) and not given_number < 0 and not given_number > maximum
    assert granted({"Choose": {"max_share": maximum}}, Choose(share=given_number)) == expected


# --- hosts: twins of one granted address and one granted name


def address_twins(address: ipaddress.IPv4Address) -> list[str]:
    number, parts = int(address), [int(part) for part in str(address).split(".")]
    return [
        str(number), hex(number), oct(number).replace("o", ""), f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}", ".".join(map(hex, parts)), ".".join(f"0{part:o}" for part in parts),
        ".".join(f"{part:03d}" for part in parts), f"{address}.", f".{address}", f"{address}.0", f"0x{number:08X}",
        f"[::ffff:{address}]", f"[{ipaddress.IPv6Address(0xFFFF00000000 | number)}]", f"[::{address}]", f"[64:ff9b::{address}]",
        f"[{ipaddress.IPv6Address((0x2002 << 112) | (number << 80))}]", f"{address}.nip.io", f"x@{address}", f"{address}@evil.example",
        f"{address}\\evil.example", f"{address}\t", f"\t{address}", f"{address}%00", "".join(chr(ord(c) + 0xFEE0) for c in str(address)),
        str(address).replace(".", "\u3002"), str(address).replace(".", "\uff61"), f"{address}\u200b", f"[{address}]",
    ]  # fmt: skip


def name_twins(name: str) -> list[str]:
    return [
        f"{name}.", f".{name}", f"{name}..", f"x.{name}", f"x{name}", f"{name}x", f"{name}.evil.example", f"evil.example.{name[1:]}",
        f"u@{name}", f"u:p@{name}", f"{name}@evil.example", f"{name}\\@evil.example", f"{name}\t", f"{name} ", f" {name}", f"{name}\0",
        f"{name}%2e", f"%{ord(name[0]):02x}{name[1:]}", f"{name}%00.evil.example", name.replace(".", "\u3002"), name.replace(".", "\uff0e"),
        name.replace("a", "\u0430"), "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in name), f"{name[:1]}\u00ad{name[1:]}",
        f"{name[:1]}\u200d{name[1:]}", f"xn--{name}", f"[{name}]", f"{name};x", f"{name}&x", f"{name},x", name.replace("s", "\u017f"),
        name.replace("k", "\u212a"), f"{name}#@evil.example"[::-1], f"*.{name}", "*",
    ]  # fmt: skip


def port_twins(port: int) -> list[str]:
    wide = "".join(chr(ord(c) + 0xFEE0) for c in str(port))
    return [f":0{port}", f":+{port}", f": {port}", f":{port} ", f":{port}.0", f":{hex(port)}", f":{port + 65536}", f":-{port}", f":{wide}",
            f":{port}:{port}", f":{port + 1}", ":", f":{port}e0", f":{port}_", f":\t{port}", f"::{port}"]  # fmt: skip


NAME = st.from_regex(r"[a-z]{1,8}k?s?\.[a-z]{2,6}a\.example", fullmatch=True)
ADDRESS = st.integers(0x01000000, 0xDFFFFFFF).map(ipaddress.IPv4Address)
PORT = st.integers(1024, 65535)
SCHEME = st.sampled_from(["http://", "https://"])


def host_rule(host: str, port: int) -> dict[str, Any]:
    return {"HTTPRequest": {"hosts": [f"{host}:{port}"], "private_hosts": True}}


@given(ADDRESS, PORT, SCHEME, st.data())
@settings(max_examples=300)
def test_twin_spellings_of_a_granted_address_are_denied(address, port, scheme, data):
    rule = host_rule(str(address), port)
    if not ipaddress.ip_address(address).is_private and address.is_global:
        rule["HTTPRequest"].pop("private_hosts")
    twin = data.draw(st.sampled_from([twin for twin in address_twins(address) if twin != str(address)]))
    assert not granted(rule, HTTPRequest(url=f"{scheme}{twin}:{port}/"))
    assert not granted(rule, HTTPRequest(url=f"{scheme}{address}{data.draw(st.sampled_from(port_twins(port)))}/"))


@given(NAME, PORT, SCHEME, st.data())
@settings(max_examples=300)
def test_twin_spellings_of_a_granted_name_are_denied_and_the_name_in_any_case_is_not(name, port, scheme, data):
    rule = host_rule(name, port)
    twin = data.draw(st.sampled_from([twin for twin in name_twins(name) if twin != name]))
    rule["HTTPRequest"].pop("private_hosts")
    assert not granted(rule, HTTPRequest(url=f"{scheme}{twin}:{port}/"))
    assert not granted(rule, HTTPRequest(url=f"{scheme}{name}{data.draw(st.sampled_from(port_twins(port)))}/"))
    cased = "".join(char.upper() if data.draw(st.booleans()) else char for char in name)  # names have no case: RFC 4343
    assert granted(rule, HTTPRequest(url=f"{scheme}{cased}:{port}/"))


# --- paths: the reference walks the parts, as a kernel would, and knows no shortcut

PART = st.sampled_from(["srv", "data", "a", "A", "..", ".", "", "...", ".. ", "..\u200b", "\uff0e\uff0e", "da\u0301ta", "d\u00e1ta", "a\0", "%2e%2e"])


def walks_below(path: str, root: str) -> bool:
    """True when the text is an absolute walk down, part by part, from the root: nothing empty, nothing going up, nothing ours."""
    if not path.startswith("/") or "\0" in path:
        return False
    parts, wanted = path.split("/")[1:], root.split("/")[1:]
    if any(part.startswith(".fxcell-") for part in parts):
        return False
    return not {"", ".", ".."} & set(parts) and len(parts) > len(wanted) and all(map(same, parts, wanted))


@given(st.lists(PART, max_size=7), st.sampled_from(["/", "", "//", "/srv/data/", "/srv/d\u00e1ta/"]), st.sampled_from(["/srv/data", "/srv/d\u00e1ta"]))
@settings(max_examples=600)
def test_path_is_granted_only_when_the_reference_walks_down_to_it(parts, start, root):
    path = start + "/".join(parts)
    assert granted({"ReadFile": {"under": [root]}}, ReadFile(path=path)) == walks_below(path, root)


@given(st.text(max_size=30).filter(lambda text: not re.search("[\ud800-\udfff]", text)), st.sampled_from(["/srv/data"]))
def test_any_text_below_the_root_is_granted_only_when_the_reference_walks_down_to_it(text, root):
    for path in (text, f"{root}/{text}", f"{root}{text}"):
        assert granted({"ReadFile": {"under": [root]}}, ReadFile(path=path)) == walks_below(path, root)
