"""Transforms of images `[height, width, C]`, uint8 from `decode_image` to `normalise`.

All but `decode_image` take any leading axes, so they work on the frames of a video `[T, height,
width, C]` too: random parameters are drawn once and are the same for every frame.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from mmjax.data.transforms.base import fail, require
from mmjax.data.transforms.image_ops import crop, is_range, random_box, require_image, resize
from mmjax.data.transforms.media import reason
from mmjax.errors import DataError

# Formats whose decoders run in this process; EPS, for one, would start Ghostscript.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
Resampler = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


@dataclasses.dataclass(frozen=True)
class DecodeImage:
    """Encoded bytes, a uint8 array, or an image of Pillow, to uint8 `[height, width, channels]`.

    The EXIF orientation is applied, transparency is laid on white, and grey is the luma of ITU-R
    BT.601. An animation gives its first frame.

    Attributes:
      channels: 3 for RGB, 1 for grey.
      max_pixels: a larger image is an error, found before it is decompressed.

    Raises:
      DataError: for bytes that are no image, or a damaged one.
    """

    channels: Literal[1, 3] = 3
    max_pixels: int = 2**26

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        if isinstance(value, np.ndarray):
            image = self._from_array(value)
        elif isinstance(value, bytes | Image.Image):
            image = self._opened(value)
        else:
            raise fail(self, value, "the bytes of an image file, or a uint8 array [height, width(, C)]")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        array = np.asarray(image.convert("RGB" if self.channels == 3 else "L"))
        return array if self.channels == 3 else array[..., None]

    def _from_array(self, value):
        if value.ndim == 2:
            value = value[..., None]
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[-1] not in (1, 3, 4):
            raise fail(self, value, "uint8 [height, width] or [height, width, 1, 3 or 4]")
        self._check_size(value.shape[1], value.shape[0])
        return Image.fromarray(value[..., 0] if value.shape[-1] == 1 else value)

    def _opened(self, value):
        try:
            if isinstance(value, Image.Image):
                return self._upright(value)
            with Image.open(io.BytesIO(value), formats=_FORMATS) as image:
                return self._upright(image)
        except DataError:
            raise
        except Exception as error:  # on damaged files Pillow's parsers raise nearly anything
            what = (
                f"{len(value)} bytes that are" if isinstance(value, bytes) else "an image of Pillow that is"
            )
            raise DataError(f"decode_image: {what} no readable image ({reason(error)})") from error

    def _upright(self, image):
        self._check_size(*image.size)
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image

    def _check_size(self, width, height):
        if width * height > self.max_pixels:
            raise DataError(
                f"decode_image: got {width} x {height} pixels, expected at most {self.max_pixels} "
                "(max_pixels)"
            )


@dataclasses.dataclass(frozen=True)
class Resize:
    """To exactly `size` x `width` pixels, whatever the proportions were.

    Attributes:
      size: height in pixels.
      width: width in pixels; none takes `size`.
      resampler: Pillow's filter of that name, antialiased (its support grows with the reduction).
    """

    size: int
    width: int | None = None
    resampler: Resampler = "bicubic"

    def __post_init__(self):
        _check_pixels(self)

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        return resize(require_image(self, value), self.size, self.width or self.size, self.resampler)


@dataclasses.dataclass(frozen=True)
class ResizeShortSide:
    """To `size` pixels along the shorter side, keeping the proportions.

    The longer side is rounded down, as torchvision does.

    Attributes:
      size: pixels.
      resampler: see `Resize`.
    """

    size: int
    resampler: Resampler = "bicubic"

    def __post_init__(self):
        require(self, "size", self.size > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        height, width = require_image(self, value).shape[-3:-1]
        short = min(height, width)
        return resize(value, self.size * height // short, self.size * width // short, self.resampler)


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """The middle `size` x `width` pixels; `width` none takes `size`.

    Attributes:
      size: height in pixels.
      width: width in pixels; none takes `size`.
      rounding: where an odd number of pixels is left over: the crop begins at the half rounded to the
        'even' number, as in torchvision, or 'down', as in transformers.
      pad: whether a smaller image gets a black border, larger above and on the left where it cannot
        be even; otherwise it is an error.
    """

    size: int
    width: int | None = None
    rounding: Literal["even", "down"] = "even"
    pad: bool = False

    def __post_init__(self):
        _check_pixels(self)

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        height, width = self.size, self.width or self.size
        if self.pad:
            value = _bordered(require_image(self, value), height, width)
        free = _room_to_crop(self, value, height, width)
        # round() sends .5 to the even number.
        top, left = (n // 2 if self.rounding == "down" else round(n / 2) for n in free)
        return crop(value, top, left, height, width)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """`size` x `width` pixels from a random place, after padding every side.

    Attributes:
      size: height in pixels.
      width: width in pixels; none takes `size`.
      padding: pixels added on every side.
      padding_mode: black pixels, or the image mirrored at its edge.
    """

    size: int
    width: int | None = None
    padding: int = 0
    padding_mode: Literal["constant", "reflect"] = "constant"

    def __post_init__(self):
        _check_pixels(self)
        require(self, "padding", self.padding >= 0, "0 or more")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        image = require_image(self, value)
        sides = [(0, 0)] * (image.ndim - 3) + [(self.padding, self.padding)] * 2 + [(0, 0)]
        image = np.pad(image, sides, mode=self.padding_mode)
        height, width = self.size, self.width or self.size
        free_h, free_w = _room_to_crop(self, image, height, width)
        return crop(image, int(rng.integers(free_h + 1)), int(rng.integers(free_w + 1)), height, width)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """A rectangle of random area and proportions, resized to `size` x `size`.

    Szegedy et al. 2015 (1409.4842), section 6: the area is uniform in `scale`, the logarithm of the
    proportions (width / height) uniform over `ratio`. After ten draws that do not fit, the largest
    centred rectangle of allowed proportions.

    Attributes:
      size: pixels.
      scale: smallest and largest area, as a fraction of the image.
      ratio: smallest and largest width / height.
      resampler: see `Resize`.
    """

    size: int
    scale: list[float] = dataclasses.field(default_factory=lambda: [0.08, 1.0])
    ratio: list[float] = dataclasses.field(default_factory=lambda: [3 / 4, 4 / 3])
    resampler: Resampler = "bicubic"

    def __post_init__(self):
        require(self, "size", self.size > 0, "more than 0")
        require(self, "scale", is_range(self.scale, 1.0), "[smallest, largest] in 0 to 1")
        require(self, "ratio", is_range(self.ratio), "[smallest, largest] above 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        box = random_box(require_image(self, value), self.scale, self.ratio, rng)
        if box is None:
            box = self._largest_centred(*value.shape[-3:-1])
        return resize(crop(value, *box), self.size, self.size, self.resampler)

    def _largest_centred(self, height, width):
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        crop_h = min(height, max(1, round(width / ratio)))
        crop_w = min(width, max(1, round(height * ratio)))
        return (height - crop_h) // 2, (width - crop_w) // 2, crop_h, crop_w


def _check_pixels(transform):
    require(transform, "size", transform.size > 0, "more than 0")
    require(transform, "width", transform.width is None or transform.width > 0, "more than 0, or none")


def _bordered(image, height, width):
    lacking = [max(0, height - image.shape[-3]), max(0, width - image.shape[-2])]
    sides = [((n + 1) // 2, n // 2) for n in lacking]
    return np.pad(image, [(0, 0)] * (image.ndim - 3) + sides + [(0, 0)])


def _room_to_crop(transform, image, height, width):
    free_h, free_w = require_image(transform, image).shape[-3] - height, image.shape[-2] - width
    if min(free_h, free_w) < 0:
        raise fail(transform, image, f"at least {height} x {width} pixels; resize before the crop")
    return free_h, free_w
