"""Encoders of a config that start from published weights: `model.streams.<name>.init`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.data.published import locate
from mmjax.errors import ConfigError
from mmjax.interop.pretrained import Variables, first_of, normalise_section, read_section, read_weights
from mmjax.layers.position import resize_positions
from mmjax.layers.stacking import unstack_blocks
from mmjax.parallel.placement import named_leaves

# What may differ: how a model is trained, and what of it is read.
_FREE = (
    *("dropout", "attention_dropout", "feature_dropout", "drop_path"),
    *("mask_time_prob", "mask_time_length", "mask_feature_prob", "mask_feature_length"),
    *("pooling", "pooler", "eos_id", "max_length", "antialias", "left_over"),
)


@dataclasses.dataclass(frozen=True)
class InitReport:
    """What became of published weights, as paths of parameters of the encoder.

    Attributes:
      loaded: taken as they are.
      resized: positions, interpolated for another image size, or cut to fewer tokens.
      fresh: parameters of the encoder that the weights do not have.
      left: arrays of the weights that the encoder does not have.
    """

    loaded: list[str]
    resized: list[str]
    fresh: list[str]
    left: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} arrays loaded"]
        for what in ("resized", "fresh", "left"):
            names = getattr(self, what)
            if names:
                parts.append(f"{len(names)} {what} ({first_of(names)})")
        return "; ".join(parts)


def check_architectures(section: Mapping[str, Any]) -> None:
    """Whether the encoders are those of the weights that their streams' `init` names.

    Args:
      section: a normalised `schema.Model`; sizes that the data will give may still be 0.

    Raises:
      DataError: the weights cannot be had.
      ConfigError: the architecture of an encoder is another one; names the field.
    """
    for name, stream in section["streams"].items():
        if stream["init"]:
            theirs = read_section(locate(stream["init"]))
            source = _stream_of(theirs, stream["kind"], name, stream["init"])
            _check_architecture(name, stream, theirs["streams"][source]["encoder"])


def published_encoders(
    section: Mapping[str, Any], variables: Mapping[str, Any]
) -> tuple[Variables, dict[str, InitReport]]:
    """The arrays with which the encoders of a model start, where its streams name published weights.

    Args:
      section: a normalised `schema.Model`.
      variables: the model's collections, of which only the shapes are looked at.

    Returns:
      (collection -> '<stream>_encoder' -> arrays, of those streams, one layer after the other and not
      stacked; stream -> what became of its weights).

    Raises:
      DataError: the weights cannot be had.
      ConfigError: the architecture of an encoder is another one; names the field.
    """
    found: dict[str, np.ndarray] = {}
    reports = {}
    for name, stream in section["streams"].items():
        if not stream["init"]:
            continue
        arrays, reports[name] = _encoder(name, stream, variables)
        for path, array in arrays.items():
            collection, inside = path.split("/", 1)
            found[f"{collection}/{name}_encoder/{inside}"] = array
    return flax.traverse_util.unflatten_dict(found, sep="/"), reports


def _encoder(name, stream, variables):
    """('params/...' inside the encoder -> array, what became of the weights) for one stream."""
    weights = read_weights(locate(stream["init"]))
    theirs = _stream_of(weights.section, stream["kind"], name, stream["init"])
    _check_architecture(name, stream, weights.section["streams"][theirs]["encoder"])
    source = _leaves(weights.variables, f"{theirs}_encoder")
    target = _leaves(jax.eval_shape(unstack_blocks, dict(variables)), f"{name}_encoder")
    arrays, loaded, resized = {}, [], []
    for path, leaf in target.items():
        if path not in source:
            continue
        array = source[path]
        if array.shape == leaf.shape:
            loaded.append(path)
        else:
            array = _resized(array, leaf.shape, path, name)
            resized.append(path)
        arrays[path] = array
    report = InitReport(loaded, resized, sorted(set(target) - set(arrays)), sorted(set(source) - set(arrays)))
    return arrays, report


def _stream_of(section, kind, name, source):
    """The stream of a published model that an encoder for `kind` comes from."""
    kinds = {theirs: stream["kind"] for theirs, stream in section["streams"].items()}
    matching = [theirs for theirs, their_kind in kinds.items() if their_kind == kind]
    if not matching:
        raise ConfigError(
            f"model.streams.{name}.init: '{source}' encodes {', '.join(sorted(kinds.values()))}, "
            f"this stream is {kind}"
        )
    return matching[0]


def _check_architecture(name, stream, theirs):
    ours = normalise_section({"streams": {name: {**stream, "init": ""}}})["streams"][name]["encoder"]
    path = f"model.streams.{name}.encoder"
    if ours["type"] != theirs["type"]:
        raise ConfigError(f"{path}.type: is '{ours['type']}', the weights of init are of '{theirs['type']}'")
    for key, value in theirs.items():
        own = ours[key]
        if key in _FREE or own == value or (key == "vocab_size" and not own):
            continue
        if not isinstance(value, float) or own is None or not math.isclose(own, value, rel_tol=1e-6):
            raise ConfigError(f"{path}.{key}: is {own!r}, the weights of init have {value!r}; set it to that")
    if "max_length" in theirs and ours["max_length"] > theirs["max_length"] and ours["position"] == "learned":
        raise ConfigError(
            f"{path}.max_length: is {ours['max_length']}, the weights of init have positions for "
            f"{theirs['max_length']}; set it to that or less"
        )


def _resized(array, shape, path, name):
    if path.endswith("positions/table") and array.ndim == len(shape) == 3:
        return np.asarray(resize_positions(jnp.asarray(array), *shape[:2]))
    if path.endswith("positions/table") and array.ndim == len(shape) == 2 and shape[0] < array.shape[0]:
        return array[: shape[0]]
    raise ConfigError(
        f"model.streams.{name}.init: {path} is {list(array.shape)} in the weights, expected {list(shape)}, "
        "as in the encoder"
    )


def _leaves(variables, part):
    """'params/...' without the name of the part -> leaf."""
    return {
        f"{collection}/{path}": leaf
        for collection, tree in variables.items()
        for path, leaf in named_leaves(tree.get(part, {}))
    }
