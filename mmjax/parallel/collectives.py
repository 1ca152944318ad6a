"""What needs all rows of a batch, computed on the devices that hold the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mmjax.parallel.mesh import BATCH_AXES, batch_parts


def rows_against_all(function: Callable[[Any, Any, Any], Any], rows: Any, columns: Any, shared: Any) -> Any:
    """`function(rows, columns, shared)`, where each device takes its own rows and gathers all columns.

    Inside `activation_rules` with a mesh; elsewhere it is a plain call. The result, and its gradient,
    are those of the plain call on any mesh, if a row of the result depends on no other of `rows`.
    Columns are gathered once, and their gradients summed by one reduce-scatter: `function` itself
    communicates nothing, whatever loops it has.

    Args:
      function: gives a tree of arrays `[R, ...]` from `R` of the rows and all columns. It must not
        close over traced arrays.
      rows, columns: trees of arrays `[B, ...]`, `B` a multiple of `mmjax.parallel.mesh.batch_parts`.
      shared: a tree of arrays that every device reads whole, such as scalars.

    Returns:
      A tree of arrays `[B, ...]`, split over the devices as a batch is.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function(rows, columns, shared)

    def on_device(rows, columns, shared):
        columns = jax.tree.map(lambda x: jax.lax.all_gather(x, BATCH_AXES, tiled=True), columns)
        return function(rows, columns, shared)

    split, whole = PartitionSpec(BATCH_AXES), PartitionSpec()
    return jax.shard_map(on_device, mesh=mesh, in_specs=(split, split, whole), out_specs=split)(
        rows, columns, shared
    )


def batch_is_split() -> bool:
    """Whether a batch lies on several devices here, inside `activation_rules` with a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and batch_parts(mesh) > 1


def map_chunks(function: Callable[[Any], Any], rows: Any, chunk_size: int) -> Any:
    """`function(rows)` in chunks of at most `chunk_size` rows, one after the other.

    In the backward pass each chunk is computed again, so that what `function` computes on its way is
    kept of one chunk at a time (Chen et al. 2016, arXiv:1604.06174).

    Args:
      function: gives a tree of arrays `[R, ...]` from `R` rows, each from its own row. Rows are made
        up where the chunks would be unequal, with zeros (False) everywhere; what it gives for them is
        dropped.
      rows: a tree of arrays `[B, ...]`.
      chunk_size: 1 or more; the chunks are made as equal as possible.

    Returns:
      A tree of arrays `[B, ...]`.
    """
    total = jax.tree.leaves(rows)[0].shape[0]
    chunks = max(1, -(-total // chunk_size))
    size = -(-total // chunks)
    missing = chunks * size - total

    def split(x):
        padded = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(chunks, size, *x.shape[1:])

    # A loop keeps its computations apart by itself: nothing in it needs to be hidden from the compiler.
    results = jax.lax.map(jax.checkpoint(function, prevent_cse=False), jax.tree.map(split, rows))
    return jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[:total], results)
