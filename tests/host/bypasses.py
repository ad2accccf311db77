# ruff: noqa: E501 - a table
"""The table of argument bypasses: what a plugin sends where one file tree, one server and a few values are granted.

    ReadFile     under {granted}, a directory whose name is in Unicode's composed form (NFC)
    HTTPRequest  host 127.0.0.1:{port}, methods GET and POST, private_hosts; {other} is a port that is not granted
    Convey       to in ("en", "de"), level in (1,), exact in (true,), factor at most 2.0

Every row is one attempt: (group, effect, fields). Texts are filled with the places above by str.format.
"""

from __future__ import annotations

from typing import Any

Row = tuple[str, str, dict[str, Any]]

PATHS = [
    # Out of the tree by its spelling
    "{granted}/../secret", "{granted}/./../secret", "{granted}//../secret", "{granted}/sub/../../secret",
    "{granted}/sub/../../../../../../../../etc/passwd", "{granted}/..", "{granted}/.", "{granted}", "{granted}/",
    "{granted}-not/secret", "{granted}x/../secret", "{parent}/secret", "{parent}/./granted/ok", "/", "//", "",
    "{granted}/../../../../../../../../../../proc/self/environ", "/{granted}/ok", "//{granted}/ok", "{granted}//ok",
    "{granted}/ok/", "{granted}/ok/.", "{granted}/./ok", "{granted}/sub/../ok",
    # Other roots and schemes
    "secret", "./secret", "../secret", "~/secret", "$HOME/secret", "file://{parent}/secret", "file:{granted}/ok",
    "/proc/self/root{parent}/secret", "/proc/self/environ", "/proc/1/environ", "/dev/fd/0", "/dev/stdin", "/etc/shadow",
    "\\\\?\\{granted}\\ok", "C:{granted}/ok",
    # Links and things that are no files
    "{granted}/link", "{granted}/dirlink/secret", "{granted}/dirlink/granted/ok", "{granted}/rootlink/etc/passwd",
    "{granted}/selflink", "{granted}/proclink/environ", "{granted}/fifo", "{granted}/socket", "{granted}/null", "{granted}/sub",
    # Case, Unicode, encodings
    "{upper}/ok", "{granted}/OK", "{decomposed}/secret", "{granted}/%2e%2e/secret", "{granted}/..%2fsecret",
    "{granted}/%2e%2e%2fsecret", "{granted}/..;/secret", "{granted}/..\\secret", "{granted}\\..\\secret",
    "{granted}/\uff0e\uff0e/secret", "{granted}/\u2024\u2024/secret", "{granted}/..\u2215secret", "{granted}/..\uff0fsecret",
    "{granted}/.\u200b./secret", "{granted}/\u202e../secret", "{granted}/..\u0000/secret", "{granted}/ok\u0000", "\u0000{granted}/ok",
    "{granted}\u0000/../secret", "{granted}/\ud800", "{granted}/..\udcff/secret", " {granted}/ok", "{granted} /ok", "{granted}/ok ",
    "{granted}/ok\n", "\n{granted}/ok", "{granted}/\t../secret", "{granted}/ok\u00a0", "\ufeff{granted}/ok",
    "{granted}/..c0af..secret", "{granted}/" + "a/" * 2100 + "ok", "{granted}/" + "a" * 300,
]  # fmt: skip

HOSTS = [
    # Another port
    "http://127.0.0.1:{other}/", "http://127.0.0.1/", "https://127.0.0.1/", "http://127.0.0.1:0{port}/", "http://127.0.0.1:+{port}/",
    "http://127.0.0.1: {port}/", "http://127.0.0.1:{port} /", "http://127.0.0.1:{port}.0/", "http://127.0.0.1:/", "http://127.0.0.1:0/",
    "http://127.0.0.1:{port}:{other}/", "http://127.0.0.1:{wide_port}/", "http://127.0.0.1:-1/", "http://127.0.0.1:65536/",
    "http://127.0.0.1:1e4/", "http://127.0.0.1:0x50/", "http://127.0.0.1:{over_port}/",
    # The address, spelt otherwise
    "http://127.1:{port}/", "http://127.0.1:{port}/", "http://0177.0.0.1:{port}/", "http://0177.0.0.01:{port}/",
    "http://0x7f.0.0.1:{port}/", "http://0x7f.0x0.0x0.0x1:{port}/", "http://0x7f000001:{port}/", "http://2130706433:{port}/",
    "http://017700000001:{port}/", "http://127.000.000.001:{port}/", "http://127.0.0.1.:{port}/", "http://127.0.0.01:{port}/",
    "http://127.0.0.256:{port}/", "http://1.127.0.0.1:{port}/", "http://127.0.0.1.1:{port}/", "http://127.0.0.2:{port}/",
    "http://0:{port}/", "http://0.0.0.0:{port}/", "http://[::1]:{port}/", "http://[::]:{port}/", "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/", "http://[0:0:0:0:0:ffff:7f00:1]:{port}/", "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/", "http://[2002:7f00:1::]:{port}/", "http://[127.0.0.1]:{port}/", "http://[::1%25lo]:{port}/",
    "http://[fe80::1%eth0]:{port}/", "http://[v1.127]:{port}/", "http://[::1:{port}/", "http://::1:{port}/", "http://127.0.0.1]:{port}/",
    # Names of it
    "http://localhost:{port}/", "http://LOCALHOST:{port}/", "http://localhost.:{port}/", "http://localhost.localdomain:{port}/",
    "http://127.0.0.1.nip.io:{port}/", "http://127.0.0.1.evil.example:{port}/", "http://x.127.0.0.1:{port}/", "http://ip6-localhost:{port}/",
    "http://169.254.169.254:{port}/", "http://metadata.google.internal:{port}/", "http://[fd00:ec2::254]:{port}/",
    # User information, and where the host ends
    "http://u@127.0.0.1:{port}/", "http://u:p@127.0.0.1:{port}/", "http://127.0.0.1:{port}@127.0.0.1:{other}/",
    "http://@127.0.0.1:{port}/", "http://127.0.0.1:{other}#@127.0.0.1:{port}/", "http://127.0.0.1:{other}?@127.0.0.1:{port}/",
    "http://127.0.0.1:{other}/@127.0.0.1:{port}/", "http://127.0.0.1:{other}\\@127.0.0.1:{port}/", "http://127.0.0.1:{other};127.0.0.1:{port}/",
    "http://127.0.0.1:{other}&127.0.0.1:{port}/", "http://127.0.0.1%00:{port}/", "http://127.0.0.1%2f:{port}/", "http://127.0.0.1%23@x:{port}/",
    "http://%31%32%37.0.0.1:{port}/", "http:\\\\127.0.0.1:{port}\\", "http:///127.0.0.1:{port}/", "http:/127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/", "//127.0.0.1:{port}/", "127.0.0.1:{port}", "http://", "http://:{port}/", "http://*:{port}/",
    # Schemes
    "HTTP://127.0.0.1:{port}/", "hTTp://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/", "file:///etc/passwd", "gopher://127.0.0.1:{port}/",
    "unix:///run/docker.sock", "ws://127.0.0.1:{port}/", "javascript:1", "data:text/plain,x", "http+unix://%2frun%2fdocker.sock/",
    "view-source:http://127.0.0.1:{port}/", "url:http://127.0.0.1:{port}/",
    # Blanks, control characters, other alphabets
    " http://127.0.0.1:{port}/", "http://127.0.0.1:{port}/ ", "\thttp://127.0.0.1:{port}/", "ht\ttp://127.0.0.1:{port}/",
    "http://127.0.0.1\t:{port}/", "http://127.0.0.1:{port}/\r\nX: y", "http://127.0.0.1:{port}/\n", "http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x",
    "http://127.0.0.1\u0000:{port}/", "http://127.0.0.1:{port}/\u0000", "http://127\u30020\u30020\u30021:{port}/",
    "http://127\uff0e0\uff0e0\uff0e1:{port}/", "http://\uff11\uff12\uff17.0.0.1:{port}/", "http://\u2460\u2461\u2466.0.0.1:{port}/",
    "http://127.0.0.\u0661:{port}/", "http://127.0.0.1:\uff18\uff10/", "http\uff1a//127.0.0.1:{port}/", "http:\u2215\u2215127.0.0.1:{port}/",
    "http://l\u043ecalhost:{port}/", "http://xn--lcalhost-54f:{port}/", "http://127.0.0.1\u200b:{port}/", "http://127.0.0.1\u00ad:{port}/",
    "\ufeffhttp://127.0.0.1:{port}/", "http://127.0.0.1:{port}/\u00e9", "http://127.0.0.1:{port}/\ud800", "http://127.0.0.1:{port}/" + "a" * 8200,
    # Names that are granted nowhere
    "http://evil.example/", "https://evil.example/", "http://example.com:{port}/", "http://127.0.0.1-evil.example:{port}/",
]  # fmt: skip

REDIRECTS = [
    "http://127.0.0.1:{other}/", "//127.0.0.1:{other}/", "https://127.0.0.1:{port}@127.0.0.1:{other}/", "http://127.0.0.1/",
    "http://localhost:{port}/", "http://localhost:{other}/", "http://[::1]:{other}/", "http://[::ffff:127.0.0.1]:{other}/",
    "http://127.1:{other}/", "http://0x7f000001:{other}/", "http://2130706433:{other}/", "http://0177.0.0.1:{other}/",
    "http://0.0.0.0:{other}/", "http://127.0.0.1.:{port}/", "http://169.254.169.254/latest/meta-data/", "http://100.100.100.200/",
    "http://metadata.google.internal/", "http://10.0.0.1/", "http://192.168.0.1:{port}/", "http://evil.example/", "//evil.example/",
    "/\\127.0.0.1:{other}/", "\\\\127.0.0.1:{other}\\", "\\/127.0.0.1:{other}/", "http:\\\\127.0.0.1:{other}/",
    "file:///etc/passwd", "ftp://127.0.0.1:{other}/", "gopher://127.0.0.1:{other}/", "javascript:alert(1)", "data:,x", "mailto:a@b",
    "unix:/run/docker.sock", "http://u:p@127.0.0.1:{port}/", "http://u@127.0.0.1:{other}/", "http://127.0.0.1:{other}#@127.0.0.1:{port}/",
    "http://127.0.0.1:{other}\\@127.0.0.1:{port}/", "http://[", "http://]", "http://127.0.0.1:0{port}/", "http://127.0.0.1:99999/",
    "http://127.0.0.1:{port}\\.evil.example/", "http://127\u30020\u30020\u30021:{other}/", "http://\uff11\uff12\uff17.0.0.1:{other}/",
    "https://127.0.0.1:{other}/", "/loop",
]  # fmt: skip

METHODS = [
    "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "get", "Get", "gET", "post", " GET", "GET ", "GET\t", "GET\n", "GET\r\nHost: x",
    "GET\u0000", "", "\uff27\uff25\uff34", "G\u200bET", "GET / HTTP/1.1", "PROPFIND", "PRI",
]  # fmt: skip

HEADERS = [
    {"Host": "evil.example"}, {"host": "evil.example"}, {"HOST": "x"}, {"Content-Length": "0"}, {"content-length": "5"},
    {"Transfer-Encoding": "chunked"}, {"transfer-encoding": "identity"}, {"Connection": "keep-alive"}, {"Connection": "close, X"},
    {"Keep-Alive": "1"}, {"Upgrade": "h2c"}, {"TE": "trailers"}, {"Trailer": "X"}, {"Expect": "100-continue"},
    {"Proxy-Authorization": "x"}, {"Proxy-Connection": "close"}, {"Accept-Encoding": "br"}, {"X": "a\r\nHost: evil"}, {"X": "a\nb"},
    {"X": "a\rb"}, {"X": "a\u0000"}, {"X": "\u2028"}, {"X": "\u560d\u560aHost: x"}, {"X": "\u00e9"}, {"X\r\n": "a"}, {"X\nHost": "a"},
    {"X:Host": "a"}, {"X ": "a"}, {" X": "a"}, {"": "a"}, {"X\u0000": "a"}, {"H\u00f6st": "x"}, {"\uff28ost": "x"}, {"Host\t": "x"},
    {"X": "a" * 8193}, {f"X-{n}": "a" for n in range(101)},
]  # fmt: skip

CONVEY = [
    {"to": "EN"}, {"to": "En"}, {"to": "en "}, {"to": " en"}, {"to": "en\u0000"}, {"to": "en\n"}, {"to": ""}, {"to": "\uff45n"}, {"to": "e\u200bn"},
    {"to": "\u0435n"}, {"to": "en\u0301"}, {"to": "de-AT"}, {"to": "fr"}, {"to": "en,de"}, {"level": 0}, {"level": 2}, {"level": -1},
    {"level": 10**30}, {"exact": False}, {"factor": 2.0000001}, {"factor": 1e300}, {"factor": float("inf")}, {"factor": float("nan")},
    {"factor": -0.5}, {"factor": float("-inf")},
]  # fmt: skip

TYPES: list[tuple[str, dict[str, Any]]] = [
    ("ReadFile", {"path": b"/etc/passwd"}), ("ReadFile", {"path": ["{granted}/ok"]}), ("ReadFile", {"path": None}), ("ReadFile", {"path": 5}),
    ("ReadFile", {"path": {"path": "x"}}), ("ReadFile", {"path": ("{granted}/ok",)}), ("ReadFile", {}), ("ReadFile", {"path": True}),
    ("ReadFile", {"path": "{granted}/ok", "under": ["/"]}), ("ReadFile", {"Path": "{granted}/ok"}), ("ReadFile", {"path": "{granted}/ok", "": 1}),
    ("HTTPRequest", {"url": b"http://127.0.0.1:{port}/"}), ("HTTPRequest", {"url": ["http://127.0.0.1:{port}/"]}), ("HTTPRequest", {"url": None}),
    ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "method": b"GET"}), ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "method": None}),
    ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "headers": [["Host", "x"]]}),
    ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "headers": {"X": b"a"}}),
    ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "headers": {b"Host": "x"}}),
    ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "headers": {"X": ["a", "b"]}}),
    ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "headers": None}), ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "body": "text"}),
    ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "timeout_s": "1"}), ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "timeout_s": True}),
    ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "private_hosts": True}), ("HTTPRequest", {"url": "http://127.0.0.1:{port}/", "follow": 9}),
    ("Convey", {"text": "x", "level": True}), ("Convey", {"text": "x", "level": 1.0}), ("Convey", {"text": "x", "level": "1"}),
    ("Convey", {"text": "x", "exact": 1}), ("Convey", {"text": "x", "exact": "true"}), ("Convey", {"text": "x", "exact": None}),
    ("Convey", {"text": "x", "factor": True}), ("Convey", {"text": "x", "factor": "1"}), ("Convey", {"text": "x", "to": b"en"}),
    ("Convey", {"text": "x", "to": ["en"]}), ("Convey", {"text": "x", "to": None}), ("Convey", {"text": "x", "to": "en", "TO": "en"}),
]  # fmt: skip
"""Sent as they are, past the class of the worker: what only a plugin that writes its own messages can do."""


def rows(places: dict[str, str]) -> list[Row]:
    """Every attempt that plugin code can build with FX."""
    url = f"http://127.0.0.1:{places['port']}/"
    found: list[Row] = [("path", "ReadFile", {"path": _filled(path, places)}) for path in PATHS]
    found += [("host", "HTTPRequest", {"url": _filled(text, places)}) for text in HOSTS]
    found += [("redirect", "HTTPRequest", {"url": f"{url}to/{number}"}) for number in range(len(REDIRECTS))]
    found += [("method", "HTTPRequest", {"url": url, "method": method}) for method in METHODS]
    found += [("header", "HTTPRequest", {"url": url, "headers": headers}) for headers in HEADERS]
    found += [("value", "Convey", {"text": "x", **fields}) for fields in CONVEY]
    return found


def raw_rows(places: dict[str, str]) -> list[Row]:
    """Every attempt with a value of another type."""
    return [("type", effect, _filled(fields, places)) for effect, fields in TYPES]


def location(number: int, places: dict[str, str]) -> str:
    """Where the granted server sends a request for /to/NUMBER."""
    return str(_filled(REDIRECTS[number], places))


def _filled(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in places.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {key: _filled(item, places) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(item, places) for item in value)
    return value
