"""Optimizers: update rules by name, and who moves how fast.

Regular expressions match a whole '/'-joined parameter path, `text_encoder/.*` or
`.*/(cross|gate)_.*`.

Weight decay is decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101) in every rule, multiplied
by the learning rate, and applies to matrices only: parameters named `kernel`, `embedding` or
`recurrent`, and the factors `a` and `b` of `mmjax.training.lora`. Biases, norm scales, position
tables, class and latent tokens and the logit scale are not decayed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax import components
from mmjax.errors import ConfigError
from mmjax.parallel.placement import named_leaves, path_name
from mmjax.training import lora
from mmjax.training.patterns import check_matches, matches

_DECAYED = ("kernel", "embedding", "recurrent", "a", "b")
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101).

    b1, b2: decay of the first and second moment.
    eps: added to the root of the second moment.
    moment_dtype: what the first moment is kept in.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    moment_dtype: Literal["float32", "bfloat16"] = "float32"

    def direction(self) -> optax.GradientTransformation:
        """What the learning rate multiplies, before weight decay."""
        return optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=_DTYPES[self.moment_dtype])


@dataclasses.dataclass(frozen=True)
class Lion:
    """Sign of an interpolated momentum (Chen et al. 2023, arXiv:2302.06675, algorithm 2)."""

    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.0
    moment_dtype: Literal["float32", "bfloat16"] = "float32"

    def direction(self) -> optax.GradientTransformation:
        """What the learning rate multiplies, before weight decay."""
        return optax.scale_by_lion(self.b1, self.b2, mu_dtype=_DTYPES[self.moment_dtype])


@dataclasses.dataclass(frozen=True)
class SGD:
    """Gradient descent with heavy-ball or Nesterov momentum; 0 keeps no state."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def direction(self) -> optax.GradientTransformation:
        """What the learning rate multiplies, before weight decay."""
        if not self.momentum:
            return optax.identity()
        return optax.trace(self.momentum, self.nesterov)


@dataclasses.dataclass(frozen=True)
class Adafactor:
    """Adam with a factored second moment (Shazeer and Stern 2018, arXiv:1804.04235).

    decay_rate: exponent c of the second moment's decay 1 - t^-c (section 7.2).
    clipping_threshold: largest root mean square of an update (section 6); none does not clip.
    multiply_by_parameter_scale: relative step sizes (section 8).
    momentum: decay of the first moment; none keeps none.
    min_dim_size_to_factor: arrays with a smaller second-largest axis keep the whole second moment.
    """

    decay_rate: float = 0.8
    clipping_threshold: float | None = 1.0
    multiply_by_parameter_scale: bool = False
    momentum: float | None = None
    min_dim_size_to_factor: int = 128
    weight_decay: float = 0.0
    moment_dtype: Literal["float32", "bfloat16"] = "float32"

    def direction(self) -> optax.GradientTransformation:
        """What the learning rate multiplies, before weight decay."""
        parts = [
            optax.scale_by_factored_rms(
                decay_rate=self.decay_rate, min_dim_size_to_factor=self.min_dim_size_to_factor
            )
        ]
        if self.clipping_threshold is not None:
            parts.append(optax.clip_by_block_rms(self.clipping_threshold))
        if self.multiply_by_parameter_scale:
            parts.append(optax.scale_by_param_block_rms())
        if self.momentum is not None:
            dtype = _DTYPES[self.moment_dtype]
            parts.append(optax.ema(self.momentum, debias=False, accumulator_dtype=dtype))
        return optax.chain(*parts)


OPTIMIZERS = {
    "adamw": AdamW,
    "lion": Lion,
    "sgd": SGD,
    "adafactor": Adafactor,
}


def make_optimizer(
    section: Mapping[str, Any], params: Any, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The gradient transformation that an `optimizer` section describes.

    Args:
      section: a normalised `schema.Optimizer`.
      params: the parameters, or their shapes.
      schedule: number of updates made -> learning rate.

    Raises:
      ConfigError: where a pattern matches no parameter, or `layer_decay` finds no layers.
    """
    method = components.build("optimizers", section["method"])
    moves = trainable(section, params)
    factors = learning_rate_factors(section, params)
    parts = [method.direction()]
    if method.weight_decay:
        parts.append(optax.add_decayed_weights(method.weight_decay, mask=decayed))
    if any(np.any(factor != 1.0) for factor in jax.tree.leaves(factors)):
        parts.append(_scale_by_tree(factors))
    parts.append(optax.scale_by_learning_rate(schedule))
    if section["clip_norm"] is not None:
        parts.insert(0, optax.clip_by_global_norm(section["clip_norm"]))
    labels = jax.tree.map(lambda moving: "moves" if moving else "frozen", moves)
    return optax.partition({"moves": optax.chain(*parts), "frozen": optax.set_to_zero()}, labels)


def trainable(section: Mapping[str, Any], params: Any) -> Any:
    """Tree of bools like `params`: False where `section['frozen']` matches, and for kernels with factors."""
    patterns, names = section["frozen"], [name for name, _ in named_leaves(params)]
    for pattern in patterns:
        check_matches(pattern, names, "optimizer.frozen")
    still = lora.adapted_kernels(params) | {name for name in names if matches(patterns, name)}
    if still == set(names):
        hint = "; '(?!lora/).*' leaves out the factors of lora" if lora.LORA in params else ""
        raise ConfigError(f"optimizer.frozen: matches every parameter; nothing would be trained{hint}")
    return jax.tree.map_with_path(lambda path, _: path_name(path) not in still, params)


def decayed(params: Any) -> Any:
    """Tree of bools like `params`: whether weight decay applies, see the module docstring."""
    return jax.tree.map_with_path(lambda path, _: path_name(path).split("/")[-1] in _DECAYED, params)


def learning_rate_factors(section: Mapping[str, Any], params: Any) -> Any:
    """Tree of floats like `params`, which multiply the learning rate; arrays where layers are stacked.

    Each is the factor of the first of `section['multipliers']` that matches the path, times
    `layer_decay` to the number of layers between it and the top of its encoder (Bao et al. 2022,
    arXiv:2106.08254; Clark et al. 2020, arXiv:2003.10555). What stands beside the blocks
    (`patch`, `positions`, `embedding`, ...) lies below block 0, except for the final `norm` and
    `pool`; these, and all that is in no encoder with blocks, are at the top. Of stacks within one
    encoder (frames, then time) each is counted by itself.
    """
    shapes = {name: np.shape(leaf) for name, leaf in named_leaves(params)}
    for multiplier in section["multipliers"]:
        check_matches(multiplier["pattern"], list(shapes), "optimizer.multipliers")
    # Factors lie where their kernel does.
    below_top = _layers_below_top({_in_model(name): shape for name, shape in shapes.items()})
    if section["layer_decay"] != 1.0 and not any(np.any(below) for below in below_top.values()):
        raise ConfigError(
            f"optimizer.layer_decay: got {section['layer_decay']}, but no encoder has numbered blocks such "
            "as image_encoder/blocks_0; set it to 1"
        )

    def factor(path, _):
        name = path_name(path)
        matching = (m["factor"] for m in section["multipliers"] if re.fullmatch(m["pattern"], name))
        return next(matching, 1.0) * section["layer_decay"] ** below_top[_in_model(name)]

    return jax.tree.map_with_path(factor, params)


def _in_model(name: str) -> str:
    return name.removeprefix(f"{lora.LORA}/")


# Blocks one by one, and blocks whose parameters are stacked along a leading axis.
_BLOCK = re.compile(r"(?P<stack>[^/]*_encoder(?:/.+?)?)/blocks(?:_(?P<index>\d+))?/.*")
_ABOVE_BLOCKS = ("norm", "pool")


def _layers_below_top(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """How many layers each parameter lies below the top of its stack of blocks; the last block has 1.

    An array, broadcastable to the parameter, where it holds the blocks of a stack along its first axis.
    """
    blocks = {name: match for name in shapes if (match := _BLOCK.fullmatch(name))}
    depths: dict[str, int] = {}
    for name, match in blocks.items():
        depth = int(match["index"]) + 1 if match["index"] else shapes[name][0]
        depths[match["stack"]] = max(depths.get(match["stack"], 0), depth)
    below: dict[str, Any] = dict.fromkeys(shapes, 0)
    for stack, depth in depths.items():
        for name, shape in shapes.items():
            if name in blocks:
                match = blocks[name]
                depth_here = depths[match["stack"]]
                below[name] = depth_here - (
                    int(match["index"])
                    if match["index"]
                    else np.arange(depth_here).reshape(-1, *[1] * (len(shape) - 1))
                )
            elif name.startswith(f"{stack}/") and name[len(stack) + 1 :].split("/")[0] not in _ABOVE_BLOCKS:
                below[name] = depth + 1
    return below


def _scale_by_tree(factors: Any) -> optax.GradientTransformation:
    """Multiplies the update of each parameter by its own constant."""
    by_name = dict(named_leaves(factors))  # by path, since frozen parameters are masked out of updates

    def update(updates, state, params=None):
        del params
        scaled = jax.tree.map_with_path(lambda path, update: update * by_name[path_name(path)], updates)
        return scaled, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
