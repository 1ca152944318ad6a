"""Models that start from published weights: `model.streams.<name>.init` and `init.weights`."""

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
from mmjax.interop.pretrained import (
    Variables,
    Weights,
    first_of,
    normalise_section,
    read_section,
    read_weights,
)
from mmjax.layers.position import resize_positions
from mmjax.layers.stacking import unstack_blocks
from mmjax.parallel.placement import named_leaves

# What may differ: how a model is trained, and how much it reads;
_FREE = (
    *("dropout", "attention_dropout", "feature_dropout", "drop_path"),
    *("mask_time_prob", "mask_time_length", "mask_feature_prob", "mask_feature_length"),
    *("max_length", "antialias", "left_over"),
)
# and, of an encoder whose heads are new, what is read of it.
_FREE_ALONE = (*_FREE, "pooling", "pooler", "eos_id")


@dataclasses.dataclass(frozen=True)
class InitReport:
    """What became of published weights, as paths of parameters of an encoder, or of all heads.

    Attributes:
      source: the weights.
      loaded: taken as they are.
      resized: positions, interpolated for another image size, or cut to fewer tokens.
      fresh: parameters that the weights do not have.
      left: arrays of the weights that the model does not have.
    """

    source: str
    loaded: list[str]
    resized: list[str]
    fresh: list[str]
    left: list[str]

    def __str__(self) -> str:
        parts = [f"{self.source}: {len(self.loaded)} arrays loaded"]
        for what in ("resized", "fresh", "left"):
            names = getattr(self, what)
            if names:
                parts.append(f"{len(names)} {what} ({first_of(names)})")
        return "; ".join(parts)


def check_architectures(section: Mapping[str, Any], whole: str = "") -> None:
    """Whether the encoders are those of the weights that they start from.

    Args:
      section: a normalised `schema.Model`; sizes that the data will give may still be 0.
      whole: `init.weights` of the config.

    Raises:
      DataError: the weights cannot be had.
      ConfigError: the architecture of an encoder is another one; names the field.
    """
    for name, stream, given, key in _starting(section, whole):
        theirs = read_section(locate(given))
        source = _stream_of(theirs, stream["kind"], key, given)
        _check_architecture(name, stream, theirs["streams"][source]["encoder"])


def published_start(
    section: Mapping[str, Any], variables: Mapping[str, Any], whole: str = ""
) -> tuple[Variables, dict[str, InitReport]]:
    """The arrays with which a model starts, where its streams or the whole of it name published weights.

    Of the whole model's weights it takes the encoder of each stream that names none of its own, and the heads
    that have the same names, such as the projections and the scale of CLIP.

    Args:
      section: a normalised `schema.Model`.
      variables: the model's collections, of which only the shapes are looked at.
      whole: `init.weights` of the config; empty: there are none.

    Returns:
      (collection -> '<stream>_encoder' or '<head>_head' -> arrays, one layer after the other and not stacked;
      'stream <name>' or 'heads' -> what became of the weights).

    Raises:
      DataError: the weights cannot be had.
      ConfigError: the architecture of an encoder is another one; names the field.
    """
    found: dict[str, np.ndarray] = {}
    reports = {}
    target = jax.eval_shape(unstack_blocks, dict(variables))
    read: dict[str, Weights] = {}
    for name, stream, given, key in _starting(section, whole):
        weights = read[given] = read.get(given) or read_weights(locate(given))
        source = _stream_of(weights.section, stream["kind"], key, given)
        _check_architecture(name, stream, weights.section["streams"][source]["encoder"])
        theirs = _leaves(weights.variables, f"{source}_encoder")
        wanted = _leaves(target, f"{name}_encoder")
        arrays, reports[f"stream {name}"] = _fitted(theirs, wanted, given, key)
        found |= _placed(arrays, f"{name}_encoder")
    if whole:
        weights = read.get(whole) or read_weights(locate(whole))
        loaded, fresh, left = [], [], []
        for head in dict.fromkeys([*section["heads"], *weights.section["heads"]]):
            arrays = _leaves(weights.variables, f"{head}_head")
            wanted = _leaves(target, f"{head}_head")
            for path in wanted.keys() & arrays.keys():
                if wanted[path].shape != arrays[path].shape:
                    raise ConfigError(
                        f"model.heads.{head}: {path} is {list(wanted[path].shape)}, the weights of "
                        f"init.weights have {list(arrays[path].shape)}; make it as large, or rename the head"
                    )
            loaded += [f"{head}/{path}" for path in wanted if path in arrays]
            fresh += [f"{head}/{path}" for path in wanted if path not in arrays]
            left += [f"{head}/{path}" for path in arrays if path not in wanted]
            found |= _placed({path: arrays[path] for path in wanted if path in arrays}, f"{head}_head")
        reports["heads"] = InitReport(whole, loaded, [], fresh, left)
    return flax.traverse_util.unflatten_dict(found, sep="/"), reports


def _starting(section, whole):
    """(name, stream, its weights, the config's key that names them) of the streams that start from some."""
    for name, stream in section["streams"].items():
        if stream["init"]:
            yield name, stream, stream["init"], f"model.streams.{name}.init"
        elif whole and stream["encoder"]:
            yield name, stream, whole, "init.weights"


def _fitted(source, target, given, key):
    """(path -> array of an encoder, what became of the weights)."""
    arrays, loaded, resized = {}, [], []
    for path, leaf in target.items():
        if path not in source:
            continue
        array = source[path]
        if array.shape == leaf.shape:
            loaded.append(path)
        else:
            array = _resized(array, leaf.shape, path, key)
            resized.append(path)
        arrays[path] = array
    fresh, left = sorted(set(target) - set(arrays)), sorted(set(source) - set(arrays))
    return arrays, InitReport(given, loaded, resized, fresh, left)


def _placed(arrays, part):
    """'params/<part>/...' -> array."""
    split = ((path.split("/", 1), array) for path, array in arrays.items())
    return {f"{collection}/{part}/{inside}": array for (collection, inside), array in split}


def _stream_of(section, kind, key, source):
    """The stream of a published model that an encoder for `kind` comes from."""
    kinds = {theirs: stream["kind"] for theirs, stream in section["streams"].items()}
    matching = [theirs for theirs, their_kind in kinds.items() if their_kind == kind]
    if not matching:
        raise ConfigError(
            f"{key}: '{source}' encodes {', '.join(sorted(kinds.values()))}, this stream is {kind}"
        )
    return matching[0]


def _check_architecture(name, stream, theirs):
    ours = normalise_section({"streams": {name: {**stream, "init": ""}}})["streams"][name]["encoder"]
    path = f"model.streams.{name}.encoder"
    free = _FREE_ALONE if stream["init"] else _FREE
    if ours["type"] != theirs["type"]:
        raise ConfigError(f"{path}.type: is '{ours['type']}', the weights of init are of '{theirs['type']}'")
    for key, value in theirs.items():
        own = ours[key]
        if key in free or own == value or (key == "vocab_size" and not own):
            continue
        if not isinstance(value, float) or own is None or not math.isclose(own, value, rel_tol=1e-6):
            raise ConfigError(f"{path}.{key}: is {own!r}, the weights of init have {value!r}; set it to that")
    if "max_length" in theirs and ours["max_length"] > theirs["max_length"] and ours["position"] == "learned":
        raise ConfigError(
            f"{path}.max_length: is {ours['max_length']}, the weights of init have positions for "
            f"{theirs['max_length']}; set it to that or less"
        )


def _resized(array, shape, path, key):
    if path.endswith("positions/table") and array.ndim == len(shape) == 3:
        return np.asarray(resize_positions(jnp.asarray(array), *shape[:2]))
    if path.endswith("positions/table") and array.ndim == len(shape) == 2 and shape[0] < array.shape[0]:
        return array[: shape[0]]
    raise ConfigError(
        f"{key}: {path} is {list(array.shape)} in the weights, expected {list(shape)}, as in the encoder"
    )


def _leaves(variables, part):
    """'params/...' without the name of the part -> leaf."""
    return {
        f"{collection}/{path}": leaf
        for collection, tree in variables.items()
        for path, leaf in named_leaves(tree.get(part, {}))
    }
