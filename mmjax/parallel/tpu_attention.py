"""Attention on TPUs in one kernel per pass: the scores are never written to memory.

The forward pass keeps, besides its result, one number for each query (the logarithm of the sum of the
exponentials), and the backward pass computes the scores again (Dao et al. 2022, arXiv:2205.14135,
section 3.1). A head's keys stay on the chip as a whole, so that no online softmax is needed; queries
come in tiles where there are many.

Arrays are `[L, heads x K]`, as projections make them: nothing is transposed in memory, and vectors of 128
are full although heads are narrower. Heads that share such a vector are taken apart by setting the
other's part of one factor to zero; the matrix unit takes no longer for it. Scores are `[Lk, Lq]`, so that
the numbers of a query are rows.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from mmjax.parallel.mesh import batch_and_head_axes, compiles_for_tpu

_HIDDEN = float(jnp.finfo(jnp.float32).min)
# Scores of a tile, float32; a few such arrays fit into the 16 MiB that a kernel may use.
_TILE = 2**18
_LANES = 128
_LONGEST = _TILE // _LANES
# Bytes of a head's keys on the chip. Twice as many did not always compile (v5e, forward and backward).
_MOST_KEY_BYTES = 2**20
_LEAST = 8  # rows of a vector; with fewer the compiler fails


def fits_tpu_kernel(query: jax.Array, key: jax.Array, mask: jax.Array | None, bias: jax.Array | None) -> bool:
    """Whether `tpu_attention` is there for these arrays, on the devices that are compiled for.

    It takes masks that hide the same keys from all queries and heads, no bias, heads that fill vectors of
    128 evenly (on each device), and 8 to 2,048 keys, of a head not more than 1 MiB.
    """
    if not compiles_for_tpu():
        return False
    mesh = jax.sharding.get_abstract_mesh()
    hides_keys = mask is None or mask.shape[1:3] == (1, 1)
    _, axis = batch_and_head_axes(mesh, query.shape[0], query.shape[2])
    heads = query.shape[2] // (mesh.shape[axis] if axis else 1)
    fits = _together(heads, query.shape[3]) is not None
    key_bytes = key.shape[1] * max(_LANES, key.shape[3]) * key.dtype.itemsize
    short = _LEAST <= key.shape[1] <= _LONGEST and key_bytes <= _MOST_KEY_BYTES
    return hides_keys and bias is None and fits and short


def tpu_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, causal: bool
) -> jax.Array:
    """What `mmjax.layers.attention.dot_product_attention` gives, but for queries that see no key.

    These get a mean of the values. Inside `activation_rules` with a mesh whose `sequence` is 1. On other
    devices than TPUs the kernels are interpreted, which is slow.

    Args:
      query: `[B, Lq, H, K]`.
      key, value: `[B, Lk, H, K]`.
      mask: bool `[B or 1, 1, 1, Lk]`.
      causal: query i sees keys up to i only.

    Returns:
      `[B, Lq, H, K]` in the dtype of `query`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    interpret = not compiles_for_tpu()
    rows, queries, heads, width = query.shape
    keys = key.shape[1]
    batch, head_axis = batch_and_head_axes(mesh, rows, heads)
    seen = None
    if mask is not None:
        seen = jnp.broadcast_to(mask[:, 0, 0, :, None], (rows, keys, 1)).astype(jnp.float32)
    tile = _tile(queries, keys)
    arrays = [x.reshape(*x.shape[:2], heads * width) for x in (query, key, value)]
    arrays[0] = jnp.pad(arrays[0], [(0, 0), (0, -queries % tile), (0, 0)])
    split = PartitionSpec(batch, None, head_axis)
    attend = jax.shard_map(
        lambda *arrays: _attend(*arrays, width, causal, tile, interpret),
        mesh=mesh,
        in_specs=(split, split, split, PartitionSpec(batch)),
        out_specs=split,
        check_vma=False,
    )
    return attend(*arrays, seen)[:, :queries].reshape(query.shape)


def _tile(queries: int, keys: int) -> int:
    """How many queries a kernel takes at a time: all, or as many groups of 128 as fit; at least 8."""
    if queries * keys <= _TILE:
        return max(queries, _LEAST)
    return max(1, _TILE // (keys * _LANES)) * _LANES


def _together(heads: int, width: int) -> int | None:
    """How many heads fill one vector, or one head some vectors; None where that leaves a rest."""
    if width % _LANES == 0:
        return 1
    if _LANES % width == 0 and heads * width % _LANES == 0:
        return _LANES // width
    return None


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def _attend(query, key, value, seen, width, causal, tile, interpret):
    return _forward(query, key, value, seen, width, causal, tile, interpret)[0]


def _dot(a, b, left, right):
    """A product that sums over axis `left` of `a` and axis `right` of `b`."""
    return jax.lax.dot_general(a, b, (((left,), (right,)), ((), ())), preferred_element_type=jnp.float32)


def _of_head(x, head, width):
    """`x [L, heads x K]` with zeros but for one head."""
    if x.shape[1] == width:
        return x
    lane = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    return jnp.where(lane // width == head, x, jnp.zeros((), x.dtype))


def _scores(query, key, seen, width, causal, first):
    """Float32 `[Lk, Lq]` of the one head that `key` has; queries are numbered from `first`."""
    scores = _dot(key, query, 1, 1) * (1.0 / math.sqrt(width))
    if seen is not None:
        scores = jnp.where(jnp.broadcast_to(seen, scores.shape) > 0, scores, _HIDDEN)
    if causal:
        number = [jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis) for axis in (0, 1)]
        scores = jnp.where(number[0] <= number[1] + first, scores, _HIDDEN)
    return scores


def _forward_kernel(query, key, value, *rest, width, causal, tile, masked):
    seen, (out, log_total) = (rest[0][0] if masked else None), rest[masked:]
    mean = jnp.zeros(query.shape[1:], jnp.float32)
    for head in range(query.shape[2] // width):
        k, v = (_of_head(x[0], head, width) for x in (key, value))
        scores = _scores(query[0], k, seen, width, causal, pl.program_id(2) * tile)
        top = scores.max(axis=0, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(axis=0, keepdims=True)
        mean += _dot((weights / total).astype(v.dtype), v, 0, 0)
        log_total[0, 0, head] = (top + jnp.log(total))[0]
    out[0] = mean.astype(out.dtype)


def _backward_kernel(query, key, value, *rest, width, causal, tile, masked):
    seen = rest[0][0] if masked else None
    log_total, d_out, d_query, d_key, d_value, key_sum, value_sum = rest[masked:]
    step = pl.program_id(2)

    @pl.when(step == 0)
    def _():
        key_sum[...] = jnp.zeros_like(key_sum)
        value_sum[...] = jnp.zeros_like(value_sum)

    q, d_o = query[0], d_out[0]
    query_sum = jnp.zeros(q.shape, jnp.float32)
    for head in range(q.shape[1] // width):
        k, v = (_of_head(x[0], head, width) for x in (key, value))
        weights = jnp.exp(_scores(q, k, seen, width, causal, step * tile) - log_total[0, 0, head][None])
        d_weights = _dot(v, d_o, 1, 1)
        slope = (weights * d_weights).sum(axis=0, keepdims=True)
        d_scores = (weights * (d_weights - slope) * (1.0 / math.sqrt(width))).astype(q.dtype)
        query_sum += _dot(d_scores, k, 0, 0)
        key_sum[...] += _of_head(_dot(d_scores, q, 1, 0), head, width)
        value_sum[...] += _of_head(_dot(weights.astype(d_o.dtype), d_o, 1, 0), head, width)
    d_query[0] = query_sum.astype(d_query.dtype)

    @pl.when(step == pl.num_programs(2) - 1)
    def _():
        d_key[0] = key_sum[...].astype(d_key.dtype)
        d_value[0] = value_sum[...].astype(d_value.dtype)


class _Call:
    """Runs a kernel over examples, groups of heads and tiles of queries."""

    def __init__(self, query, key, seen, width, causal, tile, interpret):
        self.batch, self.queries, lanes = query.shape
        self.keys, self.width = key.shape[1], width
        self.together = _together(lanes // width, width)
        self.groups = lanes // (self.together * width)
        self.masks = [] if seen is None else [seen]
        self.tile, self.causal, self.interpret = tile, causal, interpret
        lanes = self.together * width
        self.tiled = pl.BlockSpec((1, tile, lanes), lambda b, h, i: (b, i, h))
        self.whole = pl.BlockSpec((1, self.keys, lanes), lambda b, h, i: (b, 0, h))
        self.numbers = pl.BlockSpec((1, 1, self.together, tile), lambda b, h, i: (b, h, 0, i))
        self.log_total = jax.ShapeDtypeStruct(
            (self.batch, self.groups, self.together, self.queries), jnp.float32
        )

    def __call__(self, kernel, products, arrays, more, results, sums=0):
        """`arrays` are query, key and value, `more` and `results` pairs (array or its shape, spec)."""
        mask_specs = [pl.BlockSpec((1, self.keys, 1), lambda b, h, i: (b, 0, 0)) for _ in self.masks]
        given = [*arrays, *self.masks, *(x for x, _ in more)]
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x, _ in results]
        scores = self.batch * self.groups * self.together * self.queries * self.keys
        return pl.pallas_call(
            functools.partial(
                kernel, width=self.width, causal=self.causal, tile=self.tile, masked=len(self.masks)
            ),
            grid=(self.batch, self.groups, self.queries // self.tile),
            in_specs=[self.tiled, self.whole, self.whole, *mask_specs, *(spec for _, spec in more)],
            out_specs=[spec for _, spec in results],
            out_shape=shapes,
            scratch_shapes=[pltpu.VMEM(self.whole.block_shape[1:], jnp.float32)] * sums,
            cost_estimate=pl.CostEstimate(
                flops=2 * products * scores * self.width,
                transcendentals=scores,
                bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*given, *shapes)),
            ),
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
            name=kernel.__name__.strip("_").replace("_kernel", "_attention"),
            interpret=self.interpret,
        )(*given)


def _forward(query, key, value, seen, width, causal, tile, interpret):
    call = _Call(query, key, seen, width, causal, tile, interpret)
    results = [(query, call.tiled), (call.log_total, call.numbers)]
    out, log_total = call(_forward_kernel, 2, (query, key, value), (), results)
    log_total = checkpoint_name(log_total, "attended")  # a name of `mmjax.layers.remat`
    return out, (query, key, value, seen, log_total)


def _backward(width, causal, tile, interpret, kept, d_out):
    query, key, value, seen, log_total = kept
    call = _Call(query, key, seen, width, causal, tile, interpret)
    more = [(log_total, call.numbers), (d_out, call.tiled)]
    results = [(query, call.tiled), (key, call.whole), (value, call.whole)]
    gradients = call(_backward_kernel, 5, (query, key, value), more, results, sums=2)
    return (*gradients, None)


_attend.defvjp(_forward, _backward)
