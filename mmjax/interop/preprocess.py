"""The preprocessing that belongs to published weights, as our transforms."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import components
from mmjax.data.preprocessing import Preprocessor
from mmjax.data.source import ListSource
from mmjax.data.tokenizers import Tokenizer
from mmjax.errors import ConfigError, DataError
from mmjax.interop import files as files_lib

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
# Pillow's numbers of its resampling filters.
_RESAMPLERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


class Preprocess:
    """From images, texts, sounds and videos to a batch for the model.

    `preprocess(image=[...], text=[...])` takes a list with one value per example for each stream, and
    None where an example lacks the stream: paths or bytes of files, uint8 images
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
    ):
        self.transforms = {name: [dict(t) for t in chain] for name, chain in transforms.items()}
        self.tokenizer = tokenizer
        self.files = dict(files or {})
        self.family = family
        self._pad_texts = pad_texts

    @classmethod
    def read(cls, directory: pathlib.Path, name: str, family: Any) -> Preprocess:
        """That of a checkpoint of the family called `name`."""
        config = files_lib.read_config(directory)
        settings = {}
        for file in ("processor_config.json", "preprocessor_config.json"):
            if (directory / file).is_file():
                found = files_lib.read_json(directory, file)
                # One file for all processors, since transformers 5, or one per processor.
                settings |= found.get("image_processor") or found.get("feature_extractor") or found
        tokenizer = Tokenizer.load(directory / _TOKENIZER) if (directory / _TOKENIZER).is_file() else None
        kept = {name: (directory / name).read_bytes() for name in _KEPT if (directory / name).is_file()}
        if "tokenizer_config.json" in kept:
            settings["tokenizer"] = files_lib.read_json(directory, "tokenizer_config.json")
        transforms = family.transforms(config, settings)
        if tokenizer is not None:
            for chain in transforms.values():
                if any(t["type"] == "tokenize" for t in chain) and chain[-1]["type"] == "pad":
                    chain[-1] = {**chain[-1], "value": float(tokenizer.pad_id)}
        return cls(transforms, tokenizer, kept, family.pad_texts, name)

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
        if not any(t["type"] == "tokenize" for t in chain):
            return chain
        if self.tokenizer is None:
            raise DataError(f"preprocess: the checkpoint has no {_TOKENIZER}, so texts cannot be read")
        if chain[-1]["type"] == "pad" and not self._pad_texts:
            # No longer than the longest of these texts.
            tokenize = next(t for t in chain if t["type"] == "tokenize")
            build = components.build("transforms", tokenize).bind({"default": self.tokenizer})
            rng = np.random.default_rng(0)
            longest = max((len(build(text, rng)) for text in values if text is not None), default=1)
            chain[-1] = {**chain[-1], "length": max(longest, 1)}
        return chain


def _loaded(value: Any) -> Any:
    return pathlib.Path(value).read_bytes() if isinstance(value, os.PathLike) else value


def image_transforms(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[dict]:
    """Our transforms for the settings of an image processor.

    Args:
      settings: of preprocessor_config.json.
      defaults: of the processor's class, for what is not there.

    Raises:
      ConfigError: naming a setting that is not implemented.
    """
    given = {**defaults, **{key: value for key, value in settings.items() if value is not None}}
    chain: list[dict] = [{"type": "decode_image"}]
    if given.get("do_resize", True):
        chain.append(_resize(given["size"], _resampler(given)))
    if given.get("do_center_crop"):
        crop = given["crop_size"]
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        chain.append({"type": "center_crop", "size": crop["height"], "width": crop["width"]})
    factor = given.get("rescale_factor", 1 / 255)
    if not given.get("do_rescale", True) or abs(factor * 255 - 1) > 1e-6:
        raise ConfigError(f"weights: rescale_factor is {factor}, expected 1/255, the only one implemented")
    plain = not given.get("do_normalize", True)
    mean, std = ([0.0] * 3, [1.0] * 3) if plain else (given["image_mean"], given["image_std"])
    return [*chain, {"type": "normalise", "mean": list(mean), "std": list(std)}]


def _resize(size, resampler):
    if isinstance(size, int):
        size = {"shortest_edge": size}
    if "height" in size:
        return {"type": "resize", "size": size["height"], "width": size["width"], "resampler": resampler}
    if "shortest_edge" in size and "longest_edge" not in size:
        return {"type": "resize_short_side", "size": size["shortest_edge"], "resampler": resampler}
    raise ConfigError(f"weights: the image size {dict(size)} is not implemented; expected height and width")


def _resampler(given):
    number = given.get("resample", 3)
    if number not in _RESAMPLERS:
        raise ConfigError(f"weights: resample is {number}, expected one of {sorted(_RESAMPLERS)}")
    return _RESAMPLERS[number]


def text_transforms(settings: Mapping[str, Any], max_length: int, **more: Any) -> list[dict]:
    """Our transforms for the settings of a tokenizer: its own template of special tokens, then padding.

    Args:
      settings: of preprocessor_config.json, with tokenizer_config.json under 'tokenizer'.
      max_length: what the model can read; the tokenizer's own limit counts where it is smaller.
      more: further fields of `tokenize`.
    """
    limit = settings.get("tokenizer", {}).get("model_max_length", max_length)
    length = int(min(limit, max_length))
    return [
        {"type": "tokenize", "max_length": length, "template": True, **more},
        {"type": "pad", "length": length},
    ]
