"""Encoded media: opens audio and video with PyAV, with limits on what its demuxers may do."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import av
from PIL import UnidentifiedImageError

from mmjax.errors import DataError

# Containers that hold their own data. Playlists (HLS, concat) could name other files and addresses.
_FORMATS = "mov,matroska,avi,mpeg,mpegts,ogg,flv,asf,gif,wav,flac,mp3,aac"


@contextlib.contextmanager
def open_media(transform: str, value: bytes) -> Iterator[av.container.InputContainer]:
    """The container in `value`; an error while it is open becomes a `DataError`.

    Args:
      transform: its name, for messages.
      value: the bytes of a file.
    """
    try:
        options = {"format_whitelist": _FORMATS}
        with av.open(io.BytesIO(value), options=options, metadata_errors="ignore") as container:
            yield container
    except av.FFmpegError as error:
        raise DataError(
            f"{transform}: {len(value)} bytes that are no readable file ({reason(error)})"
        ) from error


def reason(error: Exception) -> str:
    """What a decoder says is wrong, in one line."""
    if isinstance(error, UnidentifiedImageError):  # it names an object in memory
        return "its format is not known"
    return " ".join(str(error).split())[:200] or type(error).__name__
