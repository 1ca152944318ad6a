"""The preprocessing that belongs to published weights, as our transforms."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax import components
from mmjax.data.preprocessing import Preprocessor
from mmjax.data.source import ListSource
from mmjax.data.tokenizers import Tokenizer
from mmjax.data.transforms.image import DecodeImage
from mmjax.errors import ConfigError, DataError
from mmjax.interop import files as files_lib
from mmjax.interop.family import Family

_TOKENIZER = "tokenizer.json"
# What is written back as it was read.
_KEPT = (
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    *files_lib.SENTENCE_FILES,
)


class Preprocess:
    """From images, texts, sounds and videos to a batch for the model.

    `preprocess(image=[...], text=[...])` takes a list with one value per example for each stream, and
    None where an example lacks the stream: paths or bytes of files, images of Pillow, uint8 images
    `[height, width, 3]`, texts, waveforms. It gives numpy arrays: each stream under its name,
    '<stream>_mask' where lengths vary, and '<stream>_present'.

    Attributes:
      transforms: stream -> specs of transforms, as in `data.streams.<name>.eval` of a config; they
        may be copied there.
      tokenizer: of the text stream, or None.
      files: name -> content of the tokenizer's and preprocessor's files, for `save_pretrained`.
      family: the one of the checkpoint it was read from.
    """

    def __init__(
        self,
        transforms: Mapping[str, Sequence[Mapping[str, Any]]],
        tokenizer: Tokenizer | None = None,
        files: Mapping[str, bytes] | None = None,
        pad_texts: bool = False,
        family: str | None = None,
        pad_to_longest: Sequence[str] = (),
    ):
        self.transforms = {name: [dict(t) for t in chain] for name, chain in transforms.items()}
        self.tokenizer = tokenizer
        self.files = dict(files or {})
        self.family = family
        self._pad_texts = pad_texts
        self._pad_to_longest = tuple(pad_to_longest)

    @classmethod
    def read(cls, directory: pathlib.Path, name: str, family: Family) -> Preprocess:
        """That of a checkpoint of the family called `name`."""
        config = files_lib.read_config(directory)
        settings = {}
        for file in ("processor_config.json", "preprocessor_config.json"):
            if (directory / file).is_file():
                found = files_lib.read_json(directory, file)
                # One file for all processors, since transformers 5, or one per processor.
                settings |= found.get("image_processor") or found.get("feature_extractor") or found
        kept = {name: (directory / name).read_bytes() for name in _KEPT if (directory / name).is_file()}
        for file in ("special_tokens_map.json", "tokenizer_config.json"):
            if file in kept:
                settings.setdefault("tokenizer", {}).update(files_lib.read_json(directory, file))
        transforms = family.transforms(config, settings)
        tokenizer = None
        if (directory / _TOKENIZER).is_file():
            special = not settings.get("tokenizer", {}).get("split_special_tokens", False)
            tokenizer = Tokenizer.load(directory / _TOKENIZER, special_in_text=special)
            pad_id = _pad_id(tokenizer, settings.get("tokenizer", {}))
            for chain in transforms.values():
                if any(t["type"] == "tokenize" for t in chain) and chain[-1]["type"] == "pad":
                    chain[-1] = {**chain[-1], "value": float(pad_id)}
        return cls(transforms, tokenizer, kept, family.pad_texts, name, family.pad_to_longest)

    def __call__(self, **streams: Sequence[Any]) -> dict[str, np.ndarray]:
        """A batch.

        Raises:
          ConfigError: a stream that the model does not have, or lists of different lengths.
          DataError: a value that cannot be read.
        """
        for name in streams:
            if name not in self.transforms:
                near = components.suggestion(name, self.transforms)
                raise ConfigError(f"preprocess: no stream '{name}'{near}; has {', '.join(self.transforms)}")
        lengths = {name: len(values) for name, values in streams.items()}
        if len(set(lengths.values())) != 1 or not all(lengths.values()):
            raise ConfigError(
                f"preprocess: got {lengths} values, expected as many of each stream, at least one"
            )
        chains = {name: self._chain(name, streams[name]) for name in streams}
        sections = {
            name: {"features": [name], "train": [], "eval": chain, "drop_rate": 0.0}
            for name, chain in chains.items()
        }
        preprocessor = Preprocessor(sections, {}, {"default": self.tokenizer}, train=False, partial=True)
        rows = zip(*streams.values(), strict=True)
        records = [dict(zip(streams, map(_loaded, row), strict=True)) for row in rows]
        preprocessor.spec = preprocessor.find_spec(ListSource(records))
        examples = [preprocessor(record, number=i) for i, record in enumerate(records)]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

    def _chain(self, name: str, values: Sequence[Any]) -> list[dict]:
        chain = [
            components.normalise(t, components.component("transforms"), f"transforms.{name}")
            for t in self.transforms[name]
        ]
        if name in self._pad_to_longest:
            steps = [components.build("transforms", t) for t in chain[:-1]]
            longest = max((len(_run(steps, value)) for value in values if value is not None), default=1)
            chain[-1] = {**chain[-1], "length": longest}
        if not any(t["type"] == "tokenize" for t in chain):
            return chain
        if self.tokenizer is None:
            raise DataError(
                f"preprocess: the checkpoint has no {_TOKENIZER}, so texts cannot be read; write one with "
                "`save_pretrained` of its tokenizer in transformers"
            )
        if chain[-1]["type"] == "pad" and not self._pad_texts:
            # No longer than the longest of these texts.
            tokenize = next(t for t in chain if t["type"] == "tokenize")
            build = components.build("transforms", tokenize).bind({"default": self.tokenizer})
            rng = np.random.default_rng(0)
            longest = max((len(build(text, rng)) for text in values if text is not None), default=1)
            chain[-1] = {**chain[-1], "length": max(longest, 1)}
        return chain


def _run(steps, value):
    """What transforms make of a value, the longest of which is looked for."""
    value, rng = _loaded(value), np.random.default_rng(0)
    for step in steps:
        value = step(value, rng)
    return value


def _pad_id(tokenizer, settings):
    """The id of the token that tokenizer_config.json names; SigLIP, which attends to it, has its own."""
    token = settings.get("pad_token")
    token = token.get("content") if isinstance(token, Mapping) else token
    if token is None:
        return tokenizer.pad_id
    found = tokenizer.token_id(token)
    if found is None:
        raise DataError(f"weights: pad_token is '{token}', which is not in {_TOKENIZER}")
    return found


def _loaded(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return pathlib.Path(value).read_bytes()
    return DecodeImage()(value, None) if isinstance(value, Image.Image) else value
