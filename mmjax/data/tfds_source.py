"""Preparing TFDS data sets as ArrayRecord and reading them as a `Source`, without TensorFlow."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from mmjax.data import prepared
from mmjax.data.source import Record, Source, digest
from mmjax.errors import DataError, MmjaxError
from mmjax.files import write_text

_CONTENT = "content.json"
_RAW = tfds.decode.DeserializeMethod.RAW_BYTES
_TENSORFLOW_ADVICE = (
    "; install TensorFlow here, or, where it is only needed to prepare, there: "
    "tfds build NAME --file_format=array_record --data_dir={place}"
)


def root(data_dir: pathlib.Path) -> pathlib.Path:
    """Where TFDS data sets live under the data directory, in TFDS's own layout."""
    return data_dir / "tfds"


def prepare(make: Callable[[str], tfds.core.DatasetBuilder], data_dir: pathlib.Path) -> None:
    """Prepares a TFDS data set as ArrayRecord and records its digests; nothing when that is done.

    A data set that TFDS has already prepared in this place is taken as it is.

    Args:
      make: the builder for a TFDS `data_dir`.
      data_dir: of mmjax.

    Raises:
      DataError: when the data set cannot be downloaded or generated, with the cause.
    """
    place = root(data_dir)
    with one_line_errors("TFDS", place):
        builder = make(str(place))
        name, target = builder.info.full_name, pathlib.Path(builder.data_dir)
    if prepared.is_published(target):
        return
    if target.exists():
        with prepared.scratch(place):  # for its message when the place is not writable
            _write_content(target)
            prepared.write_digests(target)
        return
    logging.info("%s: preparing in %s", name, target)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with prepared.scratch(place) as directory:
        with one_line_errors(name, place), contextlib.redirect_stdout(io.StringIO()):  # TFDS prints
            builder = make(str(directory))
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            downloads = str(place / "downloads")
            builder.download_and_prepare(
                download_dir=downloads, download_config=config, file_format="array_record"
            )
        made = pathlib.Path(builder.data_dir)
        _write_content(made)
        prepared.publish(made, target)
    for split, info in builder.info.splits.items():
        logging.info("%s: %s has %d examples", name, split, info.num_examples)


class TfdsSource(Source):
    """A split of a prepared TFDS data set.

    Images stay encoded `bytes`; text becomes `str`; a class label becomes an `int`, or None where
    TFDS has -1 for an unknown one; a sequence of class labels becomes a multi-hot float32 `[N]`;
    other sequences, a sequence of images (frames) among them, become arrays, or lists of text, and a
    sequence of dictionaries becomes a dictionary of these. Where the data set has no 'example_id'
    feature, it is the position in the split. (Data sets with TFDS's own `Audio` or `Video` features
    open only where TensorFlow is installed: TFDS imports it for them.)

    Args:
      directory: a prepared directory (it holds `dataset_info.json`).
      split: in TFDS's syntax, such as 'train', 'train[:10%]' or 'train+validation'.

    Raises:
      DataError: when it is not prepared, damaged, or has no such split.
    """

    def __init__(self, directory: pathlib.Path, split: str):
        self.directory = directory
        prepared.read_digests(directory, "/".join(directory.parts[-3:]))
        with one_line_errors(str(directory), directory.parent):
            builder = tfds.builder_from_directory(directory)
        name = f"{builder.info.full_name}/{split}"
        try:
            self._raw = builder.as_data_source(split, deserialize_method=_RAW)
        except (ValueError, KeyError) as error:
            known = ", ".join(builder.info.splits)
            raise DataError(f"{name}: no such split ({_line(error)}); it has: {known}") from None
        self._features = builder.info.features
        content = json.loads((directory / _CONTENT).read_text(encoding="utf-8"))
        class_names = _class_names(self._features)
        super().__init__(name, digest([builder.info.full_name, split, content, class_names]), class_names)

    def __len__(self) -> int:
        return len(self._raw)

    def read(self, index: int) -> Record:
        try:
            decoders = _skip_media(self._features)
            example = self._features.deserialize_example_np(self._raw[index], decoders=decoders)
        except Exception as error:
            raise DataError(
                f"{self.name}: record {index} cannot be read ({_line(error)}); delete {self.directory} "
                "and prepare it again"
            ) from error
        record = {key: _plain(self._features[key], value) for key, value in example.items()}
        record.setdefault("example_id", index)
        return record

    def select(self, features: Iterable[str]) -> Source:
        view = copy.copy(self)
        view._features = _subset(self._features, [name.split(".") for name in [*features, "example_id"]])
        return view

    def verify(self) -> None:
        prepared.verify_digests(self.directory, self.name)


def _write_content(directory: pathlib.Path) -> None:
    """Writes the SHA-256 of each split's records, in order.

    The files' own digests would not do for an identity: a record is a protocol buffer with a map in
    it, whose entries each process writes in another order.
    """
    with one_line_errors(str(directory), directory.parent):
        builder = tfds.builder_from_directory(directory)
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"{builder.info.full_name}: is prepared as '{builder.info.file_format.value}', expected "
            f"'array_record'; run tfds build --file_format=array_record, or delete {directory}"
        )
    content = {}
    for split in builder.info.splits:
        sha256 = hashlib.sha256()
        for record in builder.as_data_source(split, deserialize_method=_RAW):
            ordered = tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)
            sha256.update(len(ordered).to_bytes(8, "little") + ordered)
        content[split] = sha256.hexdigest()
    write_text(directory / _CONTENT, json.dumps(content, indent=1))


def png(image: Image.Image) -> io.BytesIO:
    """An image as a PNG file, for `tfds.features.Image`.

    It is compressed by run lengths: near the default's size for flat drawings, and the same bytes on
    every machine, since nothing depends on how a build of zlib searches for matches.
    """
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=9, compress_type=3)
    file.seek(0)
    return file


@contextlib.contextmanager
def one_line_errors(what: str, place: pathlib.Path) -> Iterator[None]:
    """Turns whatever TFDS or a builder raises into a `DataError` of one line with the cause.

    Args:
      what: was tried to prepare or read, for the message.
      place: the TFDS data directory, for the advice in the message.
    """
    try:
        yield
    except (MmjaxError, KeyboardInterrupt):
        raise
    except Exception as error:
        needs_tensorflow = "tensorflow" in _line(error).lower()
        advice = _TENSORFLOW_ADVICE.format(place=place) if needs_tensorflow else ""
        raise DataError(f"{what}: {type(error).__name__}: {_line(error)}{advice}") from error


def _line(error: BaseException) -> str:
    """An error's message on one line, cut where it gets long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


def _subset(features: tfds.features.FeaturesDict, paths: list[list[str]]) -> tfds.features.FeaturesDict:
    """The features at some paths, nested as they were; paths that do not exist are left out."""
    chosen = {}
    for head in dict.fromkeys(path[0] for path in paths):
        if head not in features:
            continue
        inner, tails = features[head], [path[1:] for path in paths if path[0] == head]
        nested = isinstance(inner, tfds.features.FeaturesDict) and all(tails)
        chosen[head] = _subset(inner, tails) if nested else inner
    return tfds.features.FeaturesDict(chosen)


def _skip_media(features):
    """Decoders that leave images encoded."""
    decoders = {}
    for key, feature in features.items():
        if isinstance(feature, tfds.features.FeaturesDict):
            decoders[key] = _skip_media(feature)
        elif isinstance(feature, tfds.features.Image):
            decoders[key] = tfds.decode.SkipDecoding()
    return decoders


def _class_names(features, prefix: str = "") -> dict[str, list[str]]:
    found = {}
    for key, feature in features.items():
        if isinstance(feature, tfds.features.FeaturesDict):
            found |= _class_names(feature, f"{prefix}{key}.")
        elif (label := _label(feature)) is not None:
            found[prefix + key] = list(label.names)
    return found


def _label(feature) -> tfds.features.ClassLabel | None:
    if isinstance(feature, tfds.features.Sequence):
        feature = feature.feature
    return feature if isinstance(feature, tfds.features.ClassLabel) else None


def _plain(feature, value):
    """A decoded TFDS value as the plain data that a record holds."""
    if isinstance(feature, tfds.features.FeaturesDict):
        return {key: _plain(feature[key], item) for key, item in value.items()}
    if (label := _label(feature)) is not None:
        if isinstance(feature, tfds.features.ClassLabel):
            return int(value) if value >= 0 else None
        return np.isin(np.arange(label.num_classes), value).astype(np.float32)
    if isinstance(feature, tfds.features.Sequence):
        return _plain_sequence(feature.feature, value)
    if isinstance(feature, tfds.features.Text):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _plain_sequence(item, values):
    if isinstance(item, tfds.features.FeaturesDict):  # TFDS turns it inside out: key -> all values
        return {key: _plain_sequence(item[key], values[key]) for key in values}
    if isinstance(item, tfds.features.Text):
        return [text.decode() for text in values]
    return np.asarray(values)
