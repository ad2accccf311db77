"""Honest: draws pictures, so that the demo has real files to resize."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw


def main() -> dict[str, bytes]:
    """File name -> bytes of a JPEG, a PNG, a GIF, a TIFF, and a JPEG that ends too early."""
    image = Image.effect_mandelbrot((480, 320), (-2.2, -1.2, 1.0, 1.2), 60).convert("RGB")
    draw = ImageDraw.Draw(image)
    for step in range(8):
        draw.ellipse((40 + 50 * step, 40 + 20 * step, 90 + 50 * step, 90 + 20 * step), fill=(30 * step, 90, 200))
    files: dict[str, bytes] = {}
    for extension, name in (("jpg", "JPEG"), ("png", "PNG"), ("gif", "GIF"), ("tif", "TIFF")):
        buffer = io.BytesIO()
        image.save(buffer, name)
        files[f"drawn.{extension}"] = buffer.getvalue()
    files["damaged.jpg"] = files["drawn.jpg"][:4000]
    return files
