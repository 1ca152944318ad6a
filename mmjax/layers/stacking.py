"""Parameters of a stack of layers in its two forms.

Unrolled, layer i has a subtree 'blocks_<i>' of its own; scanned, one subtree 'blocks' holds arrays
with a leading axis of layers. Both hold the same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

_LAYER = re.compile(r"blocks_(\d+)")


def stack_blocks(tree: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with every 'blocks_0', 'blocks_1', ... gathered into one 'blocks', at any depth.

    Args:
      tree: nested dictionaries of arrays, such as a model's parameters.

    Raises:
      ValueError: where the layers of a stack differ in structure or shape, and so cannot be scanned.
    """
    layers = sorted((int(m[1]), key) for key in tree if (m := _LAYER.fullmatch(key)))
    inside = {key for _, key in layers}
    result = {key: _inner(value, stack_blocks) for key, value in tree.items() if key not in inside}
    if layers:
        blocks = [stack_blocks(tree[key]) for _, key in layers]
        shapes = [jax.tree.map(jnp.shape, block) for block in blocks]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError("blocks: the layers differ from each other; only equal ones can be scanned")
        result["blocks"] = jax.tree.map(lambda *x: jnp.stack(x), *blocks)
    return result


def unstack_blocks(tree: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with every scanned 'blocks' taken apart into 'blocks_0', 'blocks_1', ...: the inverse."""
    result = {}
    for key, value in tree.items():
        if key != "blocks" or not isinstance(value, Mapping):
            result[key] = _inner(value, unstack_blocks)
            continue
        depth = len(jax.tree.leaves(value)[0])
        for i in range(depth):
            result[f"blocks_{i}"] = unstack_blocks(jax.tree.map(lambda x, i=i: x[i], dict(value)))
    return result


def _inner(value, function):
    return function(value) if isinstance(value, Mapping) else value
