"""Honest code works under `compute`: the standard library, numpy, Pillow. One worker runs it all."""

import sys
from pathlib import Path

import pytest

from fxcell import zef_function


@zef_function
def use_json():
    import json

    return json.loads(json.dumps({"a": [1, 2.5, None, True], "ü": "€"}))


@zef_function
def use_re():
    import re

    return re.findall(r"(\w)(\d+)", "a1 b22 c333")


@zef_function
def use_zlib():
    import zlib

    return zlib.decompress(zlib.compress(b"x" * 100_000)) == b"x" * 100_000


@zef_function
def use_bz2_and_lzma():
    import bz2
    import lzma

    data = bytes(range(256)) * 400
    return bz2.decompress(bz2.compress(data)) == data == lzma.decompress(lzma.compress(data))


@zef_function
def use_hashlib():
    import hashlib
    import hmac

    return (
        hashlib.sha256(b"abc").hexdigest()[:8],
        hmac.new(b"k", b"m", "sha512").hexdigest()[:4],
        len(hashlib.scrypt(b"p", salt=b"s", n=2, r=8, p=1)),
    )


@zef_function
def use_threads():
    import queue
    import threading
    from concurrent.futures import ThreadPoolExecutor

    done = queue.Queue()
    threads = [threading.Thread(target=done.put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ThreadPoolExecutor(4) as pool:
        return sorted(done.get() for _ in range(4)), list(pool.map(abs, [-1, -2, 3]))


@zef_function
def use_decimal_and_fractions():
    import decimal
    import fractions

    decimal.getcontext().prec = 50
    return decimal.Decimal(2).sqrt(), str(fractions.Fraction(1, 3) + fractions.Fraction(1, 6))


@zef_function
def use_sqlite_in_memory():
    import sqlite3

    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table t (n integer, s text)")
        connection.executemany("insert into t values (?, ?)", [(n, "x" * n) for n in range(100)])
        answer = connection.execute("select sum(n), max(length(s)) from t where s like 'x%'").fetchone()
    connection.close()
    return answer


@zef_function
def use_asyncio():
    import asyncio

    async def double(number):
        await asyncio.sleep(0.001)
        return number * 2

    async def main():
        in_thread = await asyncio.to_thread(sum, [1, 2, 3])
        return [*await asyncio.gather(*(double(n) for n in range(5))), in_thread]

    return asyncio.run(main())


@zef_function
def use_datetime():
    import datetime
    import time
    import zoneinfo

    moment = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
    try:
        zone = str(moment.astimezone(zoneinfo.ZoneInfo("Europe/Berlin")).time())
    except zoneinfo.ZoneInfoNotFoundError:
        zone = "13:00:00"  # neither tzdata nor /usr/share/zoneinfo can be seen
    return moment.isoformat(), zone, time.strftime("%Y", time.gmtime(0)), moment.strftime("%A")


@zef_function
def use_statistics_and_random():
    import random
    import secrets
    import statistics

    generator = random.Random(7)
    return (
        statistics.median([3, 1, 2]),
        generator.randint(1, 10**9),
        len(secrets.token_bytes(16)),
        0 <= random.random() < 1,
    )


@zef_function
def use_csv_and_xml():
    import csv
    import io
    import xml.etree.ElementTree as Tree
    from html.parser import HTMLParser
    from xml.dom import minidom

    rows = list(csv.DictReader(io.StringIO("a,b\n1,2\n")))
    tree = Tree.fromstring("<a><b c='1'>text</b></a>")
    HTMLParser().feed("<p>")
    return rows, tree.find("b").attrib, minidom.parseString("<a/>").documentElement.tagName


@zef_function
def use_ctypes():
    import ctypes

    libc = ctypes.CDLL(None)
    return libc.abs(-7), ctypes.sizeof(ctypes.c_long)


@zef_function
def use_archives_in_memory():
    import gzip
    import io
    import tarfile
    import zipfile

    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "text")
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    return zipfile.ZipFile(memory).read("a.txt"), gzip.decompress(gzip.compress(b"z")), len(tar_bytes.getvalue()) > 20


@zef_function
def import_many():
    import importlib

    names = (
        "argparse ast base64 bisect calendar cmath codecs collections configparser contextlib copy "
        "dataclasses difflib dis email.message enum fnmatch fractions functools getpass glob heapq html "
        "http.client inspect ipaddress itertools keyword linecache locale logging logging.handlers mimetypes "
        "multiprocessing numbers operator optparse os pathlib pickle pickletools platform pprint profile "
        "pstats pyclbr quopri reprlib sched selectors shelve shlex shutil signal site socket socketserver ssl "
        "stat string stringprep struct subprocess symtable sysconfig tempfile textwrap threading timeit token "
        "tokenize trace traceback tracemalloc types typing unicodedata unittest urllib.parse urllib.request "
        "uuid warnings wave weakref webbrowser xml.sax xmlrpc.client zipapp zipimport zoneinfo asyncio "
        "concurrent.futures curses dbm mmap msgspec numpy PIL.Image"
    )
    failed = {}
    for name in names.split():
        try:
            importlib.import_module(name)
        except BaseException as error:
            failed[name] = repr(error)
    return failed


ANSWERS = [
    (use_json(), {"a": [1, 2.5, None, True], "ü": "€"}),
    (use_re(), [("a", "1"), ("b", "22"), ("c", "333")]),
    (use_zlib(), True),
    (use_bz2_and_lzma(), True),
    (use_threads(), ([0, 1, 2, 3], [1, 2, 3])),
    (use_sqlite_in_memory(), (4950, 99)),
    (use_asyncio(), [0, 2, 4, 6, 8, 6]),
    (use_datetime(), ("2024-02-29T12:00:00+00:00", "13:00:00", "1970", "Thursday")),
    (use_ctypes(), (7, 8)),
    (use_archives_in_memory(), (b"text", b"z", True)),
]


@pytest.mark.parametrize(("call", "answer"), ANSWERS, ids=[call.definition.name for call, _ in ANSWERS])
def test_standard_library_answers_as_everywhere(in_worker, call, answer):
    assert in_worker(call) == answer


@zef_function
def use_zoneinfo():
    import datetime
    import zoneinfo

    return str(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset())


@pytest.mark.skipif(not Path("/usr/share/zoneinfo/Europe/Berlin").exists(), reason="no tzdata on this machine")
def test_time_zones_of_the_machine_are_readable(in_worker):
    assert in_worker(use_zoneinfo()) == "2:00:00"


@pytest.mark.parametrize(
    "call", [use_decimal_and_fractions(), use_csv_and_xml(), use_hashlib()], ids=lambda call: call.definition.name
)
def test_answer_is_the_one_of_this_process(in_worker, call):
    assert in_worker(call) == call.definition.function()


def test_random_numbers_of_a_seed_are_the_ones_of_this_process(in_worker):
    assert in_worker(use_statistics_and_random()) == use_statistics_and_random.function()


def test_modules_of_the_standard_library_can_be_imported(in_worker):
    failed = in_worker(import_many())
    assert {name: text for name, text in failed.items() if name not in missing_here()} == {}


def missing_here():
    """Modules that this interpreter lacks too."""
    return set(import_many.function())


@zef_function
def linear_algebra(size):
    import numpy as np

    generator = np.random.default_rng(1)
    matrix = generator.standard_normal((size, size))
    square = matrix @ matrix.T + size * np.eye(size)
    solution = np.linalg.solve(square, np.ones(size))
    values = np.linalg.eigvalsh(square)
    u, s, v = np.linalg.svd(matrix)
    spectrum = np.fft.rfft(np.sin(np.linspace(0, 2 * np.pi * 5, 1000, endpoint=False)))
    return (
        bool(np.allclose(square @ solution, 1)),
        bool(values.min() > 0),
        bool(np.allclose(u @ np.diag(s) @ v, matrix)),
        int(np.argmax(np.abs(spectrum))),
        float(np.linalg.norm(np.linalg.inv(square) @ square - np.eye(size)) < 1e-8),
    )


@zef_function
def scale(array, factor):
    return array * factor


@zef_function
def draw_and_read_back(name):
    import io

    from PIL import Image, ImageDraw, ImageFilter

    picture = Image.new("RGB", (120, 80), "navy")
    ImageDraw.Draw(picture).ellipse((20, 10, 100, 70), fill="orange")
    picture = picture.filter(ImageFilter.GaussianBlur(1)).resize((60, 40))
    memory = io.BytesIO()
    picture.save(memory, name)
    again = Image.open(io.BytesIO(memory.getvalue()))
    again.load()
    return again.format, again.size, again.convert("RGB").getpixel((30, 20))


@zef_function
def open_damaged():
    import io

    from PIL import Image

    Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)).load()


def test_numpy_does_linear_algebra_random_numbers_and_fft(in_worker):
    pytest.importorskip("numpy")
    assert in_worker(linear_algebra(200)) == (True, True, True, 5, 1.0)


def test_numpy_arrays_travel_both_ways(in_worker):
    np = pytest.importorskip("numpy")
    array = np.arange(100_000, dtype=np.float64).reshape(100, 1000)
    assert np.array_equal(in_worker(scale(array, 2)), array * 2)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_pillow_writes_and_reads(in_worker, name):
    image = pytest.importorskip("PIL.Image")
    image.init()
    if name not in image.SAVE:
        pytest.skip(f"this Pillow has no {name}")
    form, size, (red, _, blue) = in_worker(draw_and_read_back(name))
    assert (form, size) == (name, (60, 40))
    assert red > 200
    assert blue < 60


def test_damaged_picture_is_an_error_and_the_worker_goes_on(in_worker):
    pytest.importorskip("PIL.Image")
    from fxcell import PluginError

    with pytest.raises(PluginError):
        in_worker(open_damaged())
    assert in_worker(use_zlib()) is True


def test_numpy_and_pillow_work_where_the_profile_has_them_preloaded(in_worker):
    pytest.importorskip("numpy")
    pytest.importorskip("PIL.Image")
    assert in_worker(linear_algebra(50), "numeric")[0] is True
    assert in_worker(draw_and_read_back("PNG"), "imaging")[0] == "PNG"


def test_the_worker_runs_this_python(in_worker):
    assert in_worker(version()) == sys.version


@zef_function
def version():
    import sys

    return sys.version
