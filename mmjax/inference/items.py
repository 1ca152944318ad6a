"""What a run is applied to: values given in a program, files in a folder, lines of a manifest.

Each of them becomes `Items`: names, and for each one the value of every stream it has.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax.components import suggestion
from mmjax.errors import ConfigError, DataError

_SOUNDS = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac"}
_SUFFIXES = {
    "image": {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".ppm", ".tif", ".tiff"},
    "audio": _SOUNDS,
    "waveform": _SOUNDS,
    "video": {".mp4", ".webm", ".mkv", ".mov", ".avi", ".mpg", ".mpeg"},
    "text": {".txt"},
}


@dataclasses.dataclass(frozen=True)
class Items:
    """Things to predict, embed or search.

    Attributes:
      names: what each is called in results, `n` of them: a path, or a number.
      values: for each a mapping, stream -> value (see `read_value`).
    """

    names: list[str]
    values: list[dict[str, Any]]

    def streams(self) -> list[str]:
        """The streams that any of them has, in the order they are met."""
        return list(dict.fromkeys(stream for value in self.values for stream in value))


def given_items(streams: Mapping[str, Any], kinds: Mapping[str, str]) -> Items:
    """Items from values given in a program.

    Args:
      streams: stream -> one value, or a list of values, one per item; None where an item lacks it.
      kinds: stream -> kind, of the model.

    Raises:
      ConfigError: a stream that the model does not have, lists of different lengths, nothing given.
    """
    for stream in streams:
        check_stream(stream, kinds)
    columns = {
        stream: list(value) if isinstance(value, list | tuple) else [value]
        for stream, value in streams.items()
    }
    lengths = {stream: len(column) for stream, column in columns.items()}
    if not lengths:
        raise ConfigError(f"nothing is given; give at least one of: {', '.join(kinds)}")
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{n} of {stream}" for stream, n in lengths.items())
        raise ConfigError(f"got {shown}; expected as many of each (None where an item lacks it)")
    count = next(iter(lengths.values()))
    values = [{s: column[i] for s, column in columns.items() if column[i] is not None} for i in range(count)]
    return _checked(Items([str(i) for i in range(count)], values))


def read_items(source: pathlib.Path | str, kinds: Mapping[str, str]) -> Items:
    """Items from a folder, a manifest, or one file.

    - A folder: every file in it, at any depth, whose ending says that it is of the kind of a stream
      of the model (the first such stream). Hidden files are left out.
    - A manifest ending in `.jsonl`: one JSON object per line, stream -> text, or path of a file
      relative to the manifest; `null` where the item lacks the stream. 'name' names the item.
    - A media file: one item.

    Raises:
      DataError: nothing is there, or a line cannot be read.
      ConfigError: a line names a stream that the model does not have.
    """
    source = pathlib.Path(source)
    if source.is_dir():
        paths = sorted(p for p in source.rglob("*") if p.is_file() and not _hidden(p.relative_to(source)))
        found = [(path, _stream_of(path, kinds)) for path in paths]
        found = [(path, stream) for path, stream in found if stream is not None]
        if not found:
            raise DataError(f"{source}: has no files for {_endings(kinds)}")
        names = [path.relative_to(source).as_posix() for path, _ in found]
        return Items(names, [{stream: path} for path, stream in found])
    if not source.is_file():
        raise DataError(f"{source}: is no folder, no file, and no data set of the run")
    if source.suffix == ".jsonl":
        return _checked(_read_manifest(source, kinds))
    stream = _stream_of(source, kinds)
    if stream is None:
        raise DataError(f"{source}: expected a folder, a manifest ending in .jsonl, or {_endings(kinds)}")
    return Items([source.name], [{stream: source}])


def check_stream(stream: str, kinds: Mapping[str, str]) -> None:
    """Raises a `ConfigError` where the model has no such stream."""
    if stream not in kinds:
        raise ConfigError(
            f"the model has no stream '{stream}'{suggestion(stream, kinds)}; it has: {', '.join(kinds)}"
        )


def read_value(value: Any, kind: str) -> Any:
    """The value as the transforms of a stream take it: the bytes of a file, an array, or text.

    Args:
      value: a path (`str` or `pathlib.Path`), `bytes`, an array or a PIL image; for text, the text
        itself as a `str`, or the `pathlib.Path` of a file that holds it.
      kind: of the stream.

    Raises:
      DataError: the file is missing, or cannot be read.
    """
    if isinstance(value, Image.Image):
        return np.asarray(value if value.mode in ("L", "RGB", "RGBA") else value.convert("RGBA"))
    if isinstance(value, pathlib.Path) or (isinstance(value, str) and kind != "text"):
        try:
            raw = pathlib.Path(value).expanduser().read_bytes()
            return raw.decode("utf-8") if kind == "text" else raw
        except FileNotFoundError:
            raise DataError(f"there is no file '{value}'") from None
        except UnicodeDecodeError:
            raise DataError(f"'{value}' is not UTF-8 text") from None
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read '{value}' ({error})") from None
    return value


def _read_manifest(path, kinds):
    names, values = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: is not JSON ({error})") from None
        if not isinstance(entry, dict):
            raise DataError(f'{path}, line {number}: expected an object such as {{"image": "a.png"}}')
        names.append(str(entry.pop("name", number)))
        for stream, value in entry.items():
            check_stream(stream, kinds)
            if value is not None and not isinstance(value, str):
                raise DataError(f"{path}, line {number}: '{stream}' is {value!r}, expected text or null")
        values.append(
            {
                stream: value if kinds[stream] == "text" else path.parent / value
                for stream, value in entry.items()
                if value is not None
            }
        )
    if not names:
        raise DataError(f"{path}: holds no lines")
    return Items(names, values)


def _checked(items: Items) -> Items:
    for name, values in zip(items.names, items.values, strict=True):
        if not values:
            raise DataError(f"item {name}: has no stream at all")
    return items


def _stream_of(path: pathlib.Path, kinds: Mapping[str, str]) -> str | None:
    return next((s for s, kind in kinds.items() if path.suffix.lower() in _SUFFIXES[kind]), None)


def _endings(kinds: Sequence[str] | Mapping[str, str]) -> str:
    shown = (f"{stream} ({', '.join(sorted(_SUFFIXES[kind]))})" for stream, kind in kinds.items())
    return ", ".join(shown)


def _hidden(path: pathlib.Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
