"""The model: streams are encoded, fused, and read by heads.

`build_model` makes it from a resolved config, `init_model` its variables. Parameters lie under
'<stream>_encoder', 'fusion' and '<head>_head', so a path reads like the config.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax import components
from mmjax.errors import ConfigError
from mmjax.fusion.common import silence
from mmjax.fusion.stack import Stack
from mmjax.heads import entries
from mmjax.model_checks import check_data, check_model
from mmjax.types import Batch, Features, Outputs

# Name in the batch -> (shape of one example, dtype), as `Pipeline.spec` gives it.
Spec = Mapping[str, tuple[Sequence[int], Any]]


class Model(nn.Module):
    """encode -> fuse -> heads.

    Attributes:
      streams: stream -> the stream whose encoder it uses, its own name unless it shares.
      encoders: by the stream that owns it.
      fusion: adds the entry 'fused'; None adds nothing. One that works inside the encoders (its class
        has `inside = True`) gets a `mmjax.fusion.stack.Stack` per stream and gives all entries.
      heads: by name; each adds its output.
      views: by name, `schema.View` as mappings.
    """

    streams: Mapping[str, str]
    encoders: Mapping[str, nn.Module]
    fusion: nn.Module | None
    heads: Mapping[str, nn.Module]
    views: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    # Parameters are named by the parts' own names ('image_encoder') and not by these fields.
    preserve_adopted_names: ClassVar[bool] = True

    def __call__(self, batch: Batch, *, train: bool = False) -> Outputs:
        """Everything the model computes, by name.

        Args:
          batch: every stream, with its '<stream>_mask' where it has one, and what else its encoder
            takes (`mmjax.encoders`); a stream without
            '<stream>_present' is there in every row. Other entries are not looked at.
          train: whether dropout is on (rng 'dropout') and BatchNorm uses the batch's statistics.

        Returns:
          '<entry>/tokens' `[B, L, D]`, '<entry>/mask' `[B, L]` and '<entry>/pooled' `[B, D]` for
          each stream and for 'fused', and the output of each head under its name. What depends on
          a missing stream alone is zeros, or means nothing (see `mmjax.heads`). All of it again as
          '<view>/...' for each of the views whose arrays are in the batch.
        """
        outputs = self._view(batch, train)
        for name, view in self.views.items():
            if set(view["streams"].values()) <= set(batch):
                seen = self._view(self._seen(batch, view), train, view["drop"])
                outputs |= {f"{name}/{output}": value for output, value in seen.items()}
        return outputs

    def _view(self, batch: Batch, train: bool, drop: Sequence[str] = ()) -> Outputs:
        """The outputs for the streams of a batch, some of them dropped."""
        stacks = {stream: self._stack(stream, batch, train) for stream in self.streams}
        if getattr(self.fusion, "inside", False):
            absent = {stream: stacks[stream].without() for stream in drop}
            return self._outputs(self.fusion({**stacks, **absent}, train=train), train)
        features = {stream: stack.features() for stream, stack in stacks.items()}
        for stream in drop:  # after its encoder, whose work views share where they read the same
            mask = jnp.zeros_like(features[stream].mask)
            features[stream] = silence(features[stream].replace(mask=mask))
        if self.fusion is not None:
            features["fused"] = self.fusion(dict(features), train=train)
        return self._outputs(features, train)

    def _seen(self, batch: Batch, view: Mapping[str, Any]) -> Batch:
        """The batch with the arrays of other entries in place of the streams' own."""
        seen = dict(batch)
        for stream, other in view["streams"].items():
            for own in self.inputs(stream):
                name = other + own.removeprefix(stream)
                seen.pop(own, None)
                if name in batch:
                    seen[own] = batch[name]
        return seen

    def encode(self, batch: Batch, streams: Collection[str], *, train: bool = False) -> Outputs:
        """As `__call__`, for some streams only: their entries, and the heads that read only those.

        Use it as `model.apply(variables, batch, ["text"], method="encode")`; the batch needs no
        other stream, and no fusion works inside the encoders.
        """
        features = {stream: self._stack(stream, batch, train).features() for stream in streams}
        return self._outputs(features, train)

    def inputs(self, stream: str) -> list[str]:
        """Names of the arrays of a batch that are of a stream."""
        further = further_inputs(self.encoders[self.streams[stream]])
        return [stream, *(f"{stream}_{name}" for name in ("mask", "present", *further))]

    def _stack(self, stream: str, batch: Batch, train: bool) -> Stack:
        x, mask = batch[stream], batch.get(f"{stream}_mask")
        present = jnp.asarray(batch.get(f"{stream}_present", np.ones(x.shape[0], bool)))
        # What stands in the rows of a missing stream must not matter, not even a NaN in a gradient.
        x = jnp.where(present.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))
        mask = present[:, None] if mask is None else mask & present[:, None]
        encoder = self.encoders[self.streams[stream]]
        further = {name: jnp.asarray(batch[f"{stream}_{name}"]) for name in further_inputs(encoder)}
        return Stack(encoder, x, mask, present, train, further)

    def _outputs(self, features: dict[str, Features], train: bool) -> dict[str, jax.Array]:
        outputs = {}
        for name, entry in features.items():
            outputs[f"{name}/tokens"] = entry.tokens
            outputs[f"{name}/mask"] = entry.mask
            outputs[f"{name}/pooled"] = entry.pooled
        for name, head in self.heads.items():
            if set(entries(head)) <= set(features):
                outputs[name] = head(features, train=train)
        return outputs


def build_model(config: Mapping[str, Any], spec: Spec) -> Model:
    """The model that a resolved config declares.

    Args:
      config: a whole config (`mmjax.config.resolve`), its sizes filled by `fill_from_data`.
      spec: what the data gives.

    Raises:
      ConfigError: when the parts do not fit each other or the data.
    """
    fill_from_data(config, {}, {})  # fails where a size is still to be filled
    check_data(config, spec)
    return assemble(
        config["model"], dtype=jnp.dtype(config["dtype"]), remat=config["remat"], scan=config["scan"]
    )


def assemble(
    section: Mapping[str, Any], *, dtype: Any = jnp.float32, remat: bool | str = False, scan: bool = False
) -> Model:
    """The model of a normalised `model` section, sizes and all; whether it fits any data is not looked at.

    Args:
      section: a `schema.Model`.
      dtype, remat, scan: see `schema.Config`.
    """
    extra = {"dtype": dtype, "remat": remat, "scan": scan}

    def part(room, spec, name):
        return components.build(room, spec, **extra).clone(name=name)

    streams = section["streams"]
    return Model(
        streams={name: stream["share"] or name for name, stream in streams.items()},
        encoders={
            name: part("encoders", stream["encoder"], f"{name}_encoder")
            for name, stream in streams.items()
            if not stream["share"]
        },
        fusion=part("fusions", section["fusion"], "fusion") if section["fusion"] else None,
        heads={name: part("heads", head, f"{name}_head") for name, head in section["heads"].items()},
        views=dict(section.get("views", {})),
    )


def init_model(model: Model, spec: Spec, key: jax.Array, batch: int = 2) -> dict[str, Any]:
    """Fresh variables: 'params' in float32, and further collections such as 'batch_stats'.

    Args:
      model: from `build_model`.
      spec: what the data gives.
      key: of the random initial values.
      batch: rows of the batch it is traced with; the variables do not depend on it.

    Returns:
      Collections of strongly typed arrays, so that a step compiled for them is not compiled again
      for what it returns. Under `jax.jit` with `out_shardings` they are made where they belong.
    """

    def init(key):
        variables = model.init(key, _placeholder(spec, batch))
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), variables)

    return jax.jit(init)(key)


def output_shapes(model: Model, spec: Spec, batch: int = 2) -> dict[str, jax.ShapeDtypeStruct]:
    """The shape and dtype of every output, without computing anything."""

    def outputs(key):
        return model.init_with_output(key, _placeholder(spec, batch))[0]

    return jax.eval_shape(outputs, jax.random.key(0))


def fill_from_data(
    config: Mapping[str, Any], vocab_sizes: Mapping[str, int], class_counts: Mapping[str, int]
) -> Mapping[str, Any]:
    """A copy of `config` in which sizes left at 0 are those of the data.

    They are `vocab_size` in the encoder of a text stream, at any depth, and in a head that names its
    `stream`; and `num_classes` in a head that names its `label`.

    Args:
      config: a resolved config.
      vocab_sizes: stream -> size of its tokenizer's vocabulary.
      class_counts: label -> number of classes.

    Raises:
      ConfigError: where the parts of the model do not fit together, a key is 0 for which the data
        gives nothing, or a stream shares an encoder that was made for another vocabulary.
    """
    check_model(config)
    filled = copy.deepcopy(config)
    streams = filled["model"]["streams"]
    for name, section in streams.items():
        if section["encoder"] and section["kind"] == "text":
            _fill(section["encoder"], "vocab_size", vocab_sizes, name, f"model.streams.{name}.encoder")
        theirs = vocab_sizes.get(section["share"])
        if theirs is not None and vocab_sizes.get(name, theirs) != theirs:
            raise ConfigError(
                f"model.streams.{name}.share: '{name}' has a vocabulary of {vocab_sizes[name]}, "
                f"'{section['share']}' of {theirs}; give both the same tokenizer, or no shared encoder"
            )
    for name, head in filled["model"]["heads"].items():
        _fill(head, "num_classes", class_counts, head.get("label"), f"model.heads.{name}")
        _fill(head, "vocab_size", vocab_sizes, head.get("stream"), f"model.heads.{name}")
    return filled


def _fill(node: Any, key: str, sizes: Mapping[str, int], name: str | None, path: str) -> None:
    """Sets every `key` that is 0 in `node` to the size of `name`."""
    if isinstance(node, list):
        for i, item in enumerate(node):
            _fill(item, key, sizes, name, f"{path}.{i}")
    elif hasattr(node, "items"):
        for inner, value in list(node.items()):
            if inner != key or value != 0:
                _fill(value, key, sizes, name, f"{path}.{inner}")
            elif name in sizes:
                node[key] = int(sizes[name])
            else:
                raise ConfigError(_cannot_fill(key, sizes, name, path))


def _cannot_fill(key: str, sizes: Mapping[str, int], name: str | None, path: str) -> str:
    whose = "class names of label" if key == "num_classes" else "tokenizer of stream"
    near = components.suggestion(name, sizes)
    return f"{path}.{key}: is 0, but the data has no {whose} '{name}'{near} to take it from; set it"


def further_inputs(encoder: Any) -> Sequence[str]:
    """Names of the arrays '<stream>_<name>' of a batch that an encoder takes besides the mask."""
    return getattr(encoder, "further", ())


def _placeholder(spec: Spec, batch: int) -> dict[str, jax.Array]:
    """A batch of zeros in which everything is present."""
    return {
        name: jnp.full((batch, *shape), np.dtype(dtype) == bool, np.dtype(dtype))
        for name, (shape, dtype) in spec.items()
    }
