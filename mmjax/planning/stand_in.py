"""The data of a config as far as a plan needs it: real where it is prepared, else shapes from the config.

Where the data is not here, a made-up record goes through the config's own transforms (a picture through
`decode_image`, a sound through `decode_audio`, words through `tokenize`), which end in the shapes of the
real batch. It is done with a small and a large record: where the two differ, the data decides the shape,
and the config cannot tell.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tokenizers as hf
from absl import logging

from mmjax import config as config_lib
from mmjax.data import loading
from mmjax.data.preprocessing import Preprocessor, Spec
from mmjax.data.published import is_published
from mmjax.data.source import ListSource
from mmjax.data.tokenizers import SPECIAL_TOKENS, Tokenizer
from mmjax.errors import ConfigError, DataError, MmjaxError

_PREPARE = "prepare the data (./launch.sh prepare) and plan again"
_EXAMPLES = 10**9  # of a made-up epoch; only the schedule of the learning rate sees it


class _Size(NamedTuple):
    """Of a made-up record."""

    height: int  # of pictures, in pixels
    width: int
    seconds: float  # of sound
    frames: int  # of video
    words: int


_SMALL = _Size(480, 640, 4.0, 40, 4)
_LARGE = _Size(768, 1024, 40.0, 90, 1000)


@dataclasses.dataclass(frozen=True)
class PlanData:
    """What a plan takes from the data.

    Attributes:
      loaded: opened, or made up.
      tokenizers: those whose vocabulary has the real size; the others only make shapes.
      notes: what was assumed; empty where the data is prepared.
    """

    loaded: loading.LoadedData
    tokenizers: dict[str, Tokenizer]
    notes: list[str]


def load(config: Mapping[str, Any]) -> PlanData:
    """The data of a resolved config, made up where it is not prepared on this machine.

    Raises:
      ConfigError: the data is not here and the config does not say how large its arrays are.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where TFDS misses TensorFlow, it prints that
            loaded = loading.load(config["data"])
    except DataError as error:
        logging.info("planning without the data: %s", error)
        made_up = stand_in(config)
        note = "the data is not prepared on this machine: shapes are those that the config's transforms give"
        return dataclasses.replace(made_up, notes=[note, *made_up.notes])
    return PlanData(loaded, loaded.tokenizers, [])


def stand_in(config: Mapping[str, Any]) -> PlanData:
    """As `load`, of data that is not here."""
    plain = config_lib.to_dict(config)
    data, notes = plain["data"], []
    sized, tokenizers = {}, {}
    for name, spec in data["tokenizers"].items():
        tokenizers[name] = _tokenizer(name, spec, notes)
        if tokenizers[name] is None:
            tokenizers[name] = _made_up_tokenizer(len(SPECIAL_TOKENS) + 1)
        else:
            sized[name] = tokenizers[name]
    manifests = _manifests(data["train"])
    names = {column: list(found) for m in manifests for column, found in m["class_names"].items()}
    records = [_record(plain, manifests, names, size) for size in (_SMALL, _LARGE)]
    small, large = (_spec(data, tokenizers, record) for record in records)
    for entry in small:
        if small[entry] != large.get(entry):
            raise ConfigError(
                f"data.streams: the config does not fix the shape of '{entry}': a small example gives "
                f"{list(small[entry][0])}, a large one {list(large[entry][0])}; end its transforms in a "
                f"fixed shape (resize, crop, pad), or {_PREPARE}"
            )
    class_names = {label: names[feature] for label, feature in data["labels"].items() if names.get(feature)}
    source = _Endless(records[:1], "made up", names)
    loaded = loading.LoadedData(source, {"train": source}, tokenizers, class_names)
    return PlanData(loaded, sized, notes)


class _Endless(ListSource):
    """One record, said to be `_EXAMPLES`."""

    def __len__(self) -> int:
        return _EXAMPLES

    def read(self, index: int) -> dict[str, Any]:
        return super().read(0)


def _spec(data: Mapping[str, Any], tokenizers: Mapping[str, Tokenizer], record: dict[str, Any]) -> Spec:
    preprocessor = Preprocessor(data["streams"], data["labels"], tokenizers, train=True)
    try:
        return preprocessor.find_spec(ListSource([record], "a made-up record"))
    except MmjaxError as error:
        raise ConfigError(f"the config alone does not give the batch ({error}); {_PREPARE}") from error


def _tokenizer(name: str, spec: Mapping[str, Any], notes: list[str]) -> Tokenizer | None:
    """One with a vocabulary of the real size; None where the config does not say how large that is."""
    if "path" not in spec:
        notes.append(
            f"data.tokenizers.{name}: {spec['vocab_size']:,} entries, the most that training it may give"
        )
        return _made_up_tokenizer(spec["vocab_size"])
    path = pathlib.Path(spec["path"].removeprefix("hf:")).expanduser()
    file = path / "tokenizer.json" if is_published(spec["path"]) else path
    return Tokenizer.load(file) if file.is_file() else None


def _made_up_tokenizer(size: int) -> Tokenizer:
    """Every word is unknown to it."""
    words = [*SPECIAL_TOKENS, *(f"word{i}" for i in range(size - len(SPECIAL_TOKENS)))]
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = hf.Tokenizer(hf.models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = hf.pre_tokenizers.Whitespace()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return Tokenizer(backend)


def _manifests(spec: Any) -> list[Mapping[str, Any]]:
    """The manifests in the spec of a data set, which may stand in mixtures and folds."""
    if isinstance(spec, list):
        return [found for item in spec for found in _manifests(item)]
    if not isinstance(spec, Mapping):
        return []
    if spec.get("type") == "manifest":
        return [spec]
    return [found for item in spec.values() for found in _manifests(item)]


def _record(
    config: Mapping[str, Any], manifests: Sequence[Mapping[str, Any]], names: Mapping[str, Any], size: _Size
) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for stream, section in config["data"]["streams"].items():
        value = _value(stream, section, size)
        for feature in section["features"]:
            _put(record, feature, value)
    numbers = {column for m in manifests for column in m["numbers"]}
    several = {column for m in manifests for column in m["multi_labels"]}
    for label, feature in config["data"]["labels"].items():
        count = len(names.get(feature, ())) or _classes(config, label)
        if feature in several and not count:
            raise ConfigError(
                f"data.labels.{label}: the config does not say how many classes '{feature}' has; give "
                f"class_names in the manifest or num_classes in the head, or {_PREPARE}"
            )
        if feature in several:
            _put(record, feature, np.zeros(count, np.float32))
        else:
            _put(record, feature, 0.5 if feature in numbers else 0)
    return record


def _classes(config: Mapping[str, Any], label: str) -> int:
    heads = config["model"]["heads"].values()
    return max((head.get("num_classes", 0) for head in heads if head.get("label") == label), default=0)


def _put(record: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        record = record.setdefault(parent, {})
    record[last] = value


def _value(stream: str, section: Mapping[str, Any], size: _Size) -> Any:
    """What the first transform that is not about lists takes."""
    several = ("choose", "first", "join_texts")
    chain = [transform["type"] for transform in section["train"]]
    first = next((name for name in chain if name not in several), "nothing")
    if first == "decode_image":
        value = np.zeros((size.height, size.width, 3), np.uint8)
    elif first == "decode_audio":
        longest = next(t["max_seconds"] for t in section["train"] if t["type"] == first)
        value = _wav(min(size.seconds, longest * size.seconds / _LARGE.seconds))
    elif first == "decode_video":
        value = np.zeros((size.frames, size.height // 2, size.width // 2, 3), np.uint8)
    elif first in ("clean_text", "tokenize") or "join_texts" in chain:
        value = " ".join(["word"] * size.words)
    else:
        raise ConfigError(
            f"data.streams.{stream}.train: begins with '{first}', which does not say what the "
            f"data's {' and '.join(section['features'])} is; {_PREPARE}"
        )
    return [value] if chain[:1] and chain[0] in several and len(section["features"]) == 1 else value


def _wav(seconds: float, rate: int = 16000) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(seconds * rate), np.float32), rate, format="WAV")
    return file.getvalue()
