"""Low-rank adaptation of kernels (LoRA, Hu et al. 2021, arXiv:2106.09685, section 4.1).

A chosen kernel W does not move. The model computes with W + alpha / rank * A B, where A starts
random and B starts as zeros, so that training starts from exactly what the model was.

The factors are parameters of their own, 'lora/<path of the kernel>/a' and '.../b', which no module
knows: `Adapted` adds their products to the kernels before it calls the model. A kernel is a matrix
from the axes that a layer reads to those that it gives:

    kernel                        A             B
    [D, F]                        [D, r]        [r, F]      a dense layer
    [D, H, K]                     [D, r]        [r, H, K]   query, key and value of an attention
    [H, K, D]                     [H, K, r]     [r, D]      out of an attention
    [height, width, Cin, Cout]    [.., Cin, r]  [r, Cout]   a convolution reads patches
    [N, ..]                       [N, .., r]    [N, r, ..]  'blocks', N scanned layers, each by itself
"""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.errors import ConfigError
from mmjax.parallel.placement import named_leaves
from mmjax.training.patterns import check_matches, matches

LORA = "lora"

# Kernels with three axes of which the last two are given; those of a fusion of low rank are such too.
_GIVES_TWO = re.compile(r"(.*/)?(query|key|value|[^/]*_factors)/kernel")


@dataclasses.dataclass(frozen=True)
class Adapted:
    """A model with factors beside some of its kernels; called as the model is.

    Attributes:
      model: computes with the sums.
      kernels: paths of the kernels.
      rank: r.
      scale: alpha / rank.
    """

    model: nn.Module
    kernels: tuple[str, ...]
    rank: int
    scale: float

    def init(self, rngs: Mapping[str, jax.Array], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The variables of the model, with fresh factors in 'params'."""
        variables = dict(self.model.init(rngs, *args, **kwargs))
        params = variables["params"]
        shapes = {name: leaf.shape for name, leaf in named_leaves(params)}
        factors = {name: _fresh(rngs["params"], name, shapes[name], self.rank) for name in self.kernels}
        return variables | {"params": {**params, LORA: unflatten_dict(factors, sep="/")}}

    def apply(self, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """`model.apply` with the sums."""
        params = _add_products(variables["params"], self.scale)
        return self.model.apply({**variables, "params": params}, *args, **kwargs)


def adapt(model: nn.Module, section: Mapping[str, Any], params: Any) -> nn.Module | Adapted:
    """The model with factors beside the kernels that a config chooses; the model itself at rank 0.

    Args:
      model: `model.init(rngs, ...)` gives `params`.
      section: a normalised `schema.Lora`.
      params: parameters of the model, or their shapes.

    Raises:
      ConfigError: a pattern matches no kernel, or the rank is larger than a side of one.
    """
    if not section["rank"]:
        return model
    shapes = {name: leaf.shape for name, leaf in named_leaves(params) if name.split("/")[-1] == "kernel"}
    for pattern in section["patterns"]:
        check_matches(pattern, list(shapes), "lora.patterns", "kernel")
    chosen = tuple(name for name in shapes if matches(section["patterns"], name))
    for name in chosen:
        _, reads, gives = _axes(name, shapes[name])
        sides = math.prod(reads), math.prod(gives)
        if section["rank"] > min(sides):
            raise ConfigError(
                f"lora.rank: got {section['rank']}, but {name} is a matrix of {sides[0]} by {sides[1]}; "
                f"expected {min(sides)} or less, or lora.patterns that leave it out"
            )
    return Adapted(model, chosen, section["rank"], _scale(section))


def merge(params: Mapping[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without factors that compute the same: each kernel becomes the sum.

    Args:
      params: of a run; without factors they stay as they are.
      section: the `schema.Lora` of that run.
    """
    return _add_products(params, _scale(section)) if LORA in params else dict(params)


def adapted_kernels(params: Mapping[str, Any]) -> set[str]:
    """Paths of the kernels that have factors."""
    return {name for name, _, _ in _pairs(params.get(LORA, {}))}


def _scale(section) -> float:
    return 1.0 if section["alpha"] is None else section["alpha"] / section["rank"]


def _add_products(params, scale):
    kernels = flatten_dict({name: tree for name, tree in params.items() if name != LORA}, sep="/")
    for name, a, b in _pairs(params[LORA]):
        kernels[name] = kernels[name] + scale * _product(a, b, len(_axes(name, kernels[name].shape)[0]))
    return unflatten_dict(kernels, sep="/")


def _product(a, b, stacked):
    """A B, of the shape of the kernel; each of the `stacked` leading axes by itself."""
    layers = tuple(range(stacked))
    contracted = ((a.ndim - 1,), (stacked,))
    # It is small beside the model's own products, and what is exported must be what was trained.
    return jax.lax.dot_general(a, b, (contracted, (layers, layers)), precision=jax.lax.Precision.HIGHEST)


def _fresh(key, name, shape, rank):
    """A is random with variance 1 / (numbers that an output of the layer reads), B is zero."""
    layers, reads, gives = _axes(name, shape)
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))  # by name: not by which others are chosen
    return {
        "a": jax.random.normal(key, (*layers, *reads, rank), jnp.float32) / math.sqrt(math.prod(reads)),
        "b": jnp.zeros((*layers, rank, *gives), jnp.float32),
    }


def _axes(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The axes of a kernel: (of stacked layers, those that are read, those that are given)."""
    stacked = 1 if "blocks" in name.split("/") else 0
    own = shape[stacked:]
    given = 2 if len(own) == 3 and _GIVES_TWO.fullmatch(name) else 1
    return shape[:stacked], own[:-given], own[-given:]


def _pairs(factors: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(path of the kernel, A, B) of every kernel."""
    leaves = flatten_dict(factors, sep="/")
    for path, a in leaves.items():
        name, _, which = path.rpartition("/")
        if which == "a":
            yield name, a, leaves[f"{name}/b"]
