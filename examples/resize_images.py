"""Thumbnails of pictures from strangers: each file ends as ok, plugin error or crash, and the batch goes on.

    python examples/resize_images.py                  draws its own pictures, good and damaged
    python examples/resize_images.py --images DIR     takes every file in DIR

The decoder runs in hardened workers under the profile `imaging`. A picture that kills one costs that picture only.
"""

import argparse
import io
import random
import struct
import time
import zlib
from pathlib import Path

from PIL import Image, ImageDraw

from fxcell import *

DEADLINE_S = 20.0
WORKERS = 2


@zef_function
def resize_image(img_bytes: Bytes) -> Bytes:
    import io
    import warnings

    from PIL import Image

    warnings.simplefilter("ignore")  # damaged files make Pillow talk
    im = Image.open(io.BytesIO(bytes(img_bytes)))
    if im.mode != "RGB":  # JPEG knows no transparency: lay the picture on white
        layer = im.convert("RGBA")
        im = Image.new("RGB", layer.size, "white")
        im.paste(layer, mask=layer.getchannel("A"))
    im.thumbnail((200, 200))
    buf = io.BytesIO()
    im.save(buf, "JPEG")
    return buf.getvalue()


def drawn(form: str, mode: str = "RGB") -> bytes:
    """A picture with something in it."""
    im = Image.new("RGB", (640, 480), "steelblue")
    pen = ImageDraw.Draw(im)
    for i in range(0, 480, 24):
        pen.ellipse((i, i // 2, i + 160, i // 2 + 160), outline="white", width=3)
    buf = io.BytesIO()
    im.convert(mode).save(buf, form)
    return buf.getvalue()


def damaged(data: bytes, seed: int) -> bytes:
    """The same picture after a bad disk: 40 bytes behind the header changed."""
    bad, dice = bytearray(data), random.Random(seed)  # noqa: S311 - the same damage each time
    for _ in range(40):
        bad[dice.randrange(16, len(bad))] = dice.randrange(256)
    return bytes(bad)


def bomb() -> bytes:
    """A PNG of a few kilobytes that unpacks to more memory than the profile allows."""
    side = 13_300

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 3, 0, 0, 0)  # one bit per pixel, with a palette
    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side)
    parts = (b"IHDR", header), (b"PLTE", bytes(6)), (b"tRNS", b"\0"), (b"IDAT", rows), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def own_pictures() -> dict[str, bytes]:
    good = {
        "photo.jpg": drawn("JPEG"),
        "chart.png": drawn("PNG"),
        "logo.gif": drawn("GIF", "P"),
        "scan.tif": drawn("TIFF"),
    }
    return {
        **good,
        **{f"damaged-{name}": damaged(data, seed) for seed, (name, data) in enumerate(good.items())},
        **{f"half-{name}": data[: len(data) // 2] for name, data in good.items()},
        "empty.jpg": b"",
        "bomb.png": bomb(),
    }


def main() -> None:
    options = argparse.ArgumentParser(description="Thumbnails of pictures from strangers")
    options.add_argument("--images", type=Path, metavar="DIR", help="take the files in this folder")
    folder = options.parse_args().images
    pictures = own_pictures()
    if folder is not None:
        pictures = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}

    pool = [FX.StartWorkerProcess(policy="imaging") | run for _ in range(WORKERS)]
    counts = {"ok": 0, "plugin error": 0, "crash": 0}
    print(f"{'file':<52} {'result':<13} {'ms':>6}  detail")
    for i, (name, img) in enumerate(pictures.items()):
        started = time.perf_counter()
        slot = i % len(pool)
        command = FX.SendCommandToWorkerProcess(process=pool[slot], command=resize_image(img), deadline_s=DEADLINE_S)
        outcome = run.outcome(command)
        match outcome:
            case bytes():
                with Image.open(io.BytesIO(outcome)) as thumbnail:
                    result, detail = "ok", f"{thumbnail.width} x {thumbnail.height}, {len(outcome):,} bytes"
            case WorkerCrash():
                result, detail = "crash", str(outcome)
                pool[slot] = FX.StartWorkerProcess(policy="imaging") | run
            case _:
                result, detail = "plugin error", str(outcome)
        counts[result] += 1
        milliseconds = (time.perf_counter() - started) * 1000
        print(f"{name:<52} {result:<13} {milliseconds:6.0f}  {detail:.110}")
    for worker in pool:
        FX.StopWorkerProcess(process=worker) | run
    print(", ".join(f"{count} {result}" for result, count in counts.items()))


if __name__ == "__main__":
    main()
