"""Pictures for a page: bytes and arrays of any origin, made small and drawn anew as WebP.

A picture never goes into the page as it came: it is decoded within limits and encoded again, so the
page holds pixels only.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings

import numpy as np
from PIL import Image

from mmjax.errors import DataError
from mmjax.reports.html import Markup, element

_LARGEST = 40_000_000  # pixels; more than any photograph, far less than a decompression bomb
_CRISP = 64  # a picture no larger than this is enlarged pixel by pixel
# From nothing to much: dark blue, violet, red, orange, pale yellow.
_HEAT = np.array([[13, 8, 60], [106, 23, 110], [205, 60, 70], [248, 150, 40], [252, 250, 180]], np.float32)


def decode(data: bytes | str | np.ndarray) -> Image.Image:
    """A picture from the bytes of its file, from their base64, or from its pixels (see `from_array`).

    Raises:
      DataError: when they are not a picture, or one of too many pixels.
    """
    if isinstance(data, np.ndarray):
        return from_array(data)
    try:
        raw = base64.b64decode(data.split(",", 1)[-1], validate=True) if isinstance(data, str) else data
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(raw))
        if image.width * image.height > _LARGEST:
            raise DataError(
                f"a picture of {image.width} x {image.height}, expected at most {_LARGEST} pixels"
            )
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError, binascii.Error, Image.DecompressionBombError) as error:
        raise DataError(f"not a readable picture: {error}") from None


def from_array(pixels: np.ndarray) -> Image.Image:
    """A picture from `[h, w]`, `[h, w, 1]`, `[h, w, 3]` or `[h, w, 4]`, uint8 or floats in [0, 1].

    Raises:
      DataError: for another shape.
    """
    pixels = np.asarray(pixels)
    if (
        not pixels.size
        or pixels.ndim not in (2, 3)
        or (pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4))
    ):
        raise DataError(
            f"an array of shape {pixels.shape} is no picture, expected [h, w] or [h, w, 1, 3 or 4]"
        )
    if pixels.dtype != np.uint8:
        pixels = (np.clip(np.nan_to_num(pixels.astype(np.float32)), 0, 1) * 255).round().astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return Image.fromarray(pixels)


def flatten(image: Image.Image) -> Image.Image:
    """The picture as RGB, on white where it is transparent."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def picture(image: Image.Image, alt: str, side: int = 96) -> Markup:
    """An `<img>` that fits into a square of `side` CSS pixels, sharp on dense screens too."""
    scale = side / max(image.size)
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    crisp = max(image.size) <= _CRISP
    small = image
    if max(image.size) > 2 * side:
        small = image.resize((2 * width, 2 * height), Image.Resampling.LANCZOS)
    stored = io.BytesIO()
    small.save(stored, "WEBP", lossless=crisp, quality=80, method=4)
    address = "data:image/webp;base64," + base64.b64encode(stored.getvalue()).decode()
    return element("img", src=address, alt=alt, width=width, height=height, class_="crisp" if crisp else None)


def heat(image: Image.Image, weights: np.ndarray, side: int = 192) -> Image.Image:
    """The picture in grey under a heat map.

    Args:
      image: any picture.
      weights: `[h, w]`, not negative; the largest is drawn hottest.
      side: the longer side of what is returned, in pixels.
    """
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    grey = flatten(image).convert("L").resize(size, Image.Resampling.BICUBIC)
    weights = np.nan_to_num(np.asarray(weights, np.float32))
    weights = weights / max(float(weights.max()), 1e-12)
    amount = np.asarray(Image.fromarray(weights).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    position = amount * (len(_HEAT) - 1)
    colour = np.stack([np.interp(position, np.arange(len(_HEAT)), _HEAT[:, c]) for c in range(3)], -1)
    mixed = 0.35 * np.asarray(grey, np.float32)[..., None] + 0.65 * colour
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
