"""The files of a published checkpoint: JSON and safetensors."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from mmjax.errors import ConfigError, DataError

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# open_clip's names for weights and config.json; where both lie in a directory, those above count.
_OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
_OPEN_CLIP_CONFIG = "open_clip_config.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin", "*.pt")

# What sentence-transformers writes beside a transformer.
_MODULES = "modules.json"
_POOLING = "1_Pooling/config.json"
_SENTENCE = "sentence_bert_config.json"
SENTENCE_FILES = (_MODULES, _POOLING, _SENTENCE, "config_sentence_transformers.json")


def read_json(directory: pathlib.Path, name: str) -> dict[str, Any]:
    """A JSON object of the checkpoint.

    Raises:
      DataError: the file is not there, or not a JSON object.
    """
    path = directory / name
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"weights: no {name} in {directory}; is it a model's directory?") from None
    except (OSError, ValueError) as error:
        raise DataError(f"weights: {path} cannot be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"weights: {path} holds no JSON object")
    return value


def read_config(directory: pathlib.Path) -> dict[str, Any]:
    """config.json; under 'sentence' what sentence-transformers adds to it, where it does.

    Of a directory in open_clip's layout it is open_clip_config.json, with the `model_type` 'open_clip'.

    Raises:
      DataError: there is none, or a file is damaged.
      ConfigError: a pooling or a module of sentence-transformers that is not implemented.
    """
    if not _is_transformers(directory) and (directory / _OPEN_CLIP_CONFIG).is_file():
        return read_json(directory, _OPEN_CLIP_CONFIG) | {"model_type": "open_clip"}
    config = read_json(directory, "config.json")
    if (directory / _MODULES).is_file():
        config["sentence"] = _read_sentence(directory)
    return config


def _is_transformers(directory):
    weights = any((directory / name).is_file() for name in (_WEIGHTS, _INDEX))
    return (directory / "config.json").is_file() and (
        weights or not (directory / _OPEN_CLIP_WEIGHTS).is_file()
    )


def _read_sentence(directory):
    try:
        modules = [module["type"].split(".")[-1] for module in json.loads((directory / _MODULES).read_text())]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"weights: {directory / _MODULES} is no list of modules ({error})") from None
    if modules[:2] != ["Transformer", "Pooling"] or modules[2:] not in ([], ["Normalize"]):
        raise ConfigError(
            f"weights: {_MODULES} names {', '.join(modules)}; expected Transformer, Pooling, and perhaps "
            "Normalize"
        )
    pooling = read_json(directory, _POOLING)
    modes = [
        key.removeprefix("pooling_mode_") for key, value in pooling.items() if value is True and "mode" in key
    ]
    names = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
    if len(modes) != 1 or modes[0] not in names:
        raise ConfigError(f"weights: the pooling {modes} is not implemented; expected one of {list(names)}")
    limit = None
    if (directory / _SENTENCE).is_file():
        limit = read_json(directory, _SENTENCE).get("max_seq_length")
    return {"pooling": names[modes[0]], "normalise": "Normalize" in modules, "max_length": limit}


class Tensors(Mapping):
    """The tensors of a checkpoint by name, each read when it is asked for, as numpy arrays.

    Raises:
      DataError: there are no safetensors, or they are damaged.
    """

    def __init__(self, directory: pathlib.Path):
        self._files = {}
        for path in _weight_files(directory):
            try:
                file = safetensors.safe_open(path, framework="numpy")
            except Exception as error:  # the library raises its own and others
                raise DataError(f"weights: {path} is no readable safetensors file ({error})") from None
            self._files |= dict.fromkeys(file.keys(), file)

    def __getitem__(self, key: str) -> np.ndarray:
        array = self._files[key].get_tensor(key)
        return array.astype(np.float32) if array.dtype.kind not in "iub" else array

    def __iter__(self):
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _weight_files(directory: pathlib.Path) -> list[pathlib.Path]:
    if (directory / _INDEX).is_file():
        names = sorted(set(read_json(directory, _INDEX).get("weight_map", {}).values()))
        for name in names:
            if pathlib.Path(name).name != name or not (directory / name).is_file():
                raise DataError(f"weights: {_INDEX} names '{name}', which is no file in {directory}")
        return [directory / name for name in names]
    for name in (_WEIGHTS, _OPEN_CLIP_WEIGHTS):
        if (directory / name).is_file():
            return [directory / name]
    pickles = [path.name for pattern in _PICKLES for path in directory.glob(pattern)]
    if pickles:
        raise DataError(
            f"weights: {directory} holds {pickles[0]}, a pickle, which could run any code and is not opened; "
            "save the model as safetensors (`save_pretrained` of transformers does) and give that"
        )
    raise DataError(f"weights: no {_WEIGHTS} in {directory}")


def check_new(directory: pathlib.Path) -> None:
    """Raises DataError unless the directory is yet to be made, or empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DataError(f"weights: {directory} exists and is not empty; name a new directory")


def write(
    directory: pathlib.Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    others: Mapping[str, bytes],
) -> None:
    """Writes config.json, model.safetensors and further files into a new or empty directory.

    Raises:
      DataError: the directory holds something already.
    """
    check_new(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in others.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)
    save_file(dict(tensors), directory / _WEIGHTS, metadata={"format": "pt"})
    # Last, since without it nothing takes the directory for a model's.
    file = directory / "config.json"
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copymode(file, directory / _WEIGHTS)  # which safetensors makes for its owner alone
