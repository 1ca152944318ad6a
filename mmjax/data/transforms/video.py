"""Transforms of video: a file to frames uint8 `[T, height, width, C]`.

The transforms of images work on the frames too, with the same random parameters for every frame.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Literal

import numpy as np

from mmjax.data.transforms.base import fail, require
from mmjax.data.transforms.media import open_media
from mmjax.errors import DataError


@dataclasses.dataclass(frozen=True)
class DecodeVideo:
    """The bytes of a video file, or its path, to `num_frames` RGB frames, uint8 `[T, height, width, 3]`.

    An array of such frames is taken to be the whole video.

    The video is cut into `num_frames` parts of equal length, each of which gives one frame, as in
    Temporal Segment Networks (Wang et al. 2016, 1608.00859): its middle one, or a random one. A video
    with fewer frames than that gives some of them again.

    Attributes:
      num_frames: T.
      sampling: `uniform` for the middle frames, `random` for training.
      max_frames: a video with more frames is an error.
      max_pixels: so is one whose frames are larger than this.

    Raises:
      DataError: for bytes that hold no video, or a damaged one.
    """

    num_frames: int
    sampling: Literal["uniform", "random"] = "uniform"
    max_frames: int = 20000
    max_pixels: int = 2**23

    def __post_init__(self):
        for field in ("num_frames", "max_frames", "max_pixels"):
            require(self, field, getattr(self, field) > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        if isinstance(value, str):
            value = self._read(value)
        is_array = isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 4
        if not isinstance(value, bytes) and not (is_array and len(value) and value.shape[-1] == 3):
            raise fail(self, value, "the bytes of a video file, its path, or uint8 [T, height, width, 3]")
        total = len(value) if is_array else self._count_frames(value)
        inside = rng.random(self.num_frames) if self.sampling == "random" else 0.5
        wanted = ((np.arange(self.num_frames) + inside) * total / self.num_frames).astype(int)
        return value[wanted] if is_array else self._decode(value, wanted)

    def _read(self, path):
        try:
            return pathlib.Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"decode_video: cannot read '{path}' ({error.strerror})") from error

    def _count_frames(self, value):
        """Frames in the file, counted by their packets, which costs no decoding."""
        with open_media("decode_video", value) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None or stream.codec_context is None:
                raise DataError(f"decode_video: {len(value)} bytes that hold no video of a known codec")
            pixels = stream.codec_context.width * stream.codec_context.height
            if pixels > self.max_pixels:
                raise DataError(
                    f"decode_video: got frames of {pixels} pixels, expected at most {self.max_pixels} "
                    "(max_pixels)"
                )
            total = 0
            for packet in container.demux(stream):
                total += packet.size > 0
                if total > self.max_frames:
                    raise DataError(f"decode_video: got more than {self.max_frames} frames (max_frames)")
        return total

    def _decode(self, value, wanted):
        """The frames at the positions `wanted`, which ascend."""
        frames: list[np.ndarray] = []
        with open_media("decode_video", value) as container:
            last = None
            for position, last in enumerate(container.decode(video=0)):  # noqa: B007
                while len(frames) < len(wanted) and wanted[len(frames)] == position:
                    frames.append(last.to_ndarray(format="rgb24"))
                if len(frames) == len(wanted):
                    break
        if last is None:
            raise DataError(f"decode_video: {len(value)} bytes that hold no video frame")
        # A packet may hold no frame of its own, so that there are fewer than were counted.
        while len(frames) < len(wanted):
            frames.append(last.to_ndarray(format="rgb24"))
        if any(frame.shape != frames[0].shape for frame in frames):
            raise DataError("decode_video: the size of the frames changes within the video")
        return np.stack(frames)
