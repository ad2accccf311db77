"""Line 26: small pictures that decode to large ones, in a worker with little memory."""

import io
import struct
import zlib

import pytest

from fxcell import PluginError, Reason, WorkerCrash, zef_function
from tests.escapes.conftest import compute

SMALL = compute(name="96 MiB for pictures", limits={"memory_bytes": 96 * 2**20, "cpu_s": 5})
SIDE = 20_000


def png(side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deflate = zlib.compressobj(1)
    rows = b"".join(deflate.compress(bytes(1 + side)) for _ in range(side)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def text_png(mebibytes):
    whole = png(1)
    packed = zlib.compress(bytes(mebibytes << 20), 9)
    data = b"zTXt" + b"Comment\0\0" + packed
    return whole[:33] + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data)) + whole[33:]


def gif(side):
    # One LZW clear code after the other: a decoder reserves the whole canvas first.
    return (
        b"GIF89a"
        + struct.pack("<HH", side, side)
        + b"\x80\0\0"
        + bytes(6)
        + b","
        + struct.pack("<HHHH", 0, 0, side, side)
        + (b"\0\x02\x02\x44\x01\0;")
    )


@zef_function
def decode(data):
    import io

    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # as careless code does
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.convert("RGBA").size


@pytest.mark.parametrize("data", [png(SIDE), text_png(300), gif(SIDE)], ids=["png", "text of a png", "gif"])
def test_bomb_is_a_typed_error_or_out_of_memory(arena, data):
    pytest.importorskip("PIL", reason="needs Pillow")
    outcome = arena.attack(decode(data), SMALL)
    if isinstance(outcome, WorkerCrash):
        assert outcome.reason in (Reason.OUT_OF_MEMORY, Reason.CPU_LIMIT), outcome
    else:
        assert isinstance(outcome, PluginError), outcome
        assert outcome.type_name in (
            "ValueError",
            "OSError",
            "SyntaxError",
            "UnidentifiedImageError",
            "DecompressionBombError",
        )


def test_small_picture_is_decoded_in_the_same_worker(arena):
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "PNG")
    assert arena.attack(decode(buffer.getvalue()), SMALL) == (20, 10)
