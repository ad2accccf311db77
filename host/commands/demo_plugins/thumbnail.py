"""Honest: a picture, read through FX.ReadFile, made smaller by Pillow."""

from __future__ import annotations

import io

from PIL import Image

from fxcell import FX, run


def main(path: str) -> bytes:
    """The picture as a JPEG of at most 200 x 200."""
    image = Image.open(io.BytesIO(FX.ReadFile(path=path) | run))
    image.thumbnail((200, 200))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()
