"""Attention on TPUs in one kernel per pass: the scores are never written to memory.

The forward pass keeps, besides its result, one number for each query (the logarithm of the sum of the
exponentials), and the backward pass computes the scores again (Dao et al. 2022, arXiv:2205.14135,
section 3.1). A head's keys stay on the chip as a whole, so that no online softmax is needed; queries
come in tiles where there are many.

All is transposed: arrays `[K, L]` and scores `[Lk, Lq]`. Tokens are then the axis along which a TPU lays
out its vectors of 128, which heads of width 64 would fill by half, and the numbers of a query are rows.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from mmjax.parallel.mesh import batch_and_head_axes

_HIDDEN = float(jnp.finfo(jnp.float32).min)
# Scores of a tile, float32; a few such arrays fit into the 16 MiB that a kernel may use.
_TILE = 2**18
_LANES = 128
_LONGEST = _TILE // _LANES


def fits_tpu_kernel(query: jax.Array, key: jax.Array, mask: jax.Array | None, bias: jax.Array | None) -> bool:
    """Whether `tpu_attention` is there for these arrays, on the devices that are compiled for.

    It takes masks that hide the same keys from all queries and heads, no bias, heads of a width that is
    a multiple of 16, and up to 2,048 keys.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.abstract_device is None or mesh.abstract_device.platform != "tpu":
        return False
    hides_keys = mask is None or mask.shape[1:3] == (1, 1)
    return hides_keys and bias is None and query.shape[-1] % 16 == 0 and key.shape[1] <= _LONGEST


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
    interpret = mesh.abstract_device.platform != "tpu"
    batch, heads = batch_and_head_axes(mesh, query.shape[0], query.shape[2])
    seen = None
    if mask is not None:
        seen = jnp.broadcast_to(mask[:, 0, 0, :, None], (query.shape[0], key.shape[1], 1))
        seen = seen.astype(jnp.float32)
    arrays = [x.transpose(0, 2, 3, 1) for x in (query, key, value)]
    tile = _tile(query.shape[1], key.shape[1])
    arrays[0] = jnp.pad(arrays[0], [(0, 0)] * 3 + [(0, -query.shape[1] % tile)])
    split = PartitionSpec(batch, heads)
    attend = jax.shard_map(
        lambda *arrays: _attend(*arrays, causal, tile, interpret),
        mesh=mesh,
        in_specs=(split, split, split, PartitionSpec(batch)),
        out_specs=split,
        check_vma=False,
    )
    return attend(*arrays, seen)[..., : query.shape[1]].transpose(0, 3, 1, 2)


def _tile(queries: int, keys: int) -> int:
    """How many queries a kernel takes at a time: all, or as many groups of 128 as fit."""
    if queries * keys <= _TILE:
        return queries
    return max(1, _TILE // (keys * _LANES)) * _LANES


def _heads_at_a_time(heads: int, queries: int, keys: int) -> int:
    """A step of the grid takes a while to start: several small heads share one."""
    most = max(1, min(4, _TILE // (queries * keys)))
    return max(number for number in range(1, most + 1) if heads % number == 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend(query, key, value, seen, causal, tile, interpret):
    return _forward(query, key, value, seen, causal, tile, interpret)[0]


def _dot(a, b, contracted):
    return jax.lax.dot_general(a, b, (contracted, ((), ())), preferred_element_type=jnp.float32)


def _scores(query, key, seen, causal, first):
    """Float32 `[Lk, Lq]` of one head; queries are numbered from `first`."""
    scores = _dot(key, query, ((0,), (0,))) * (1.0 / math.sqrt(query.shape[0]))
    if seen is not None:
        scores = jnp.where(jnp.broadcast_to(seen, scores.shape) > 0, scores, _HIDDEN)
    if causal:
        number = [jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis) for axis in (0, 1)]
        scores = jnp.where(number[0] <= number[1] + first, scores, _HIDDEN)
    return scores


def _forward_kernel(query, key, value, *rest, causal, tile, masked):
    seen, (out, log_total) = (rest[0][0] if masked else None), rest[masked:]
    for head in range(query.shape[1]):
        scores = _scores(query[0, head], key[0, head], seen, causal, pl.program_id(2) * tile)
        top = scores.max(axis=0, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(axis=0, keepdims=True)
        mean = _dot(value[0, head], weights.astype(value.dtype), ((1,), (0,))) / total
        out[0, head] = mean.astype(out.dtype)
        log_total[0, head] = top + jnp.log(total)


def _backward_kernel(query, key, value, *rest, causal, tile, masked):
    seen = rest[0][0] if masked else None
    out, log_total, d_out, d_query, d_key, d_value, key_sum, value_sum = rest[masked:]
    step = pl.program_id(2)

    @pl.when(step == 0)
    def _():
        key_sum[...] = jnp.zeros_like(key_sum)
        value_sum[...] = jnp.zeros_like(value_sum)

    for head in range(query.shape[1]):
        q, k, v, d_o = (x[0, head] for x in (query, key, value, d_out))
        weights = jnp.exp(_scores(q, k, seen, causal, step * tile) - log_total[0, head])
        slope = (d_o.astype(jnp.float32) * out[0, head].astype(jnp.float32)).sum(axis=0, keepdims=True)
        d_scores = weights * (_dot(v, d_o, ((0,), (0,))) - slope) * (1.0 / math.sqrt(q.shape[0]))
        d_scores = d_scores.astype(q.dtype)
        d_query[0, head] = _dot(k, d_scores, ((1,), (0,))).astype(d_query.dtype)
        key_sum[head] += _dot(q, d_scores, ((1,), (1,)))
        value_sum[head] += _dot(d_o, weights.astype(d_o.dtype), ((1,), (1,)))

    @pl.when(step == pl.num_programs(2) - 1)
    def _():
        d_key[0] = key_sum[...].astype(d_key.dtype)
        d_value[0] = value_sum[...].astype(d_value.dtype)


def _call(kernel, products, arrays, seen, more, results, scratch, causal, tile, interpret):
    """Runs a kernel over examples, heads and tiles of queries.

    Args:
      kernel: one of the two above.
      products: of matrices `[Lk, Lq]` and `K`, for the estimate of its cost.
      arrays: query, key, value `[B, H, K, L]`.
      seen: float `[B, Lk, 1]` or None.
      more: further arrays `[B, H, ?, Lq]`.
      results: shapes of the results; those with as many tokens as the keys come whole, others in tiles.
      scratch: shapes without their heads.
    """
    batch, heads, width, queries = arrays[0].shape
    keys = arrays[1].shape[3]
    together = _heads_at_a_time(heads, tile, keys)

    def whole(x):
        return pl.BlockSpec((1, together, x.shape[2], x.shape[3]), lambda b, h, i: (b, h, 0, 0))

    def tiled(x):
        return pl.BlockSpec((1, together, x.shape[2], tile), lambda b, h, i: (b, h, 0, i))

    masks = [] if seen is None else [seen]
    mask_specs = [pl.BlockSpec((1, keys, 1), lambda b, h, i: (b, 0, 0)) for _ in masks]
    given = [*arrays, *masks, *more]
    size = batch * heads * queries * keys
    return pl.pallas_call(
        functools.partial(kernel, causal=causal, tile=tile, masked=len(masks)),
        grid=(batch, heads // together, queries // tile),
        in_specs=[tiled(arrays[0]), whole(arrays[1]), whole(arrays[2]), *mask_specs, *map(tiled, more)],
        out_specs=[(whole if is_whole else tiled)(shape) for shape, is_whole in results],
        out_shape=[shape for shape, _ in results],
        scratch_shapes=[pltpu.VMEM((together, *shape), jnp.float32) for shape in scratch],
        cost_estimate=pl.CostEstimate(
            flops=2 * products * size * width,
            transcendentals=size,
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*given, *(shape for shape, _ in results))),
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        name=kernel.__name__.strip("_").replace("_kernel", "_attention"),
        interpret=interpret,
    )(*given)


def _forward(query, key, value, seen, causal, tile, interpret):
    numbers = jax.ShapeDtypeStruct((*query.shape[:2], 1, query.shape[3]), jnp.float32)
    results = [(jax.ShapeDtypeStruct(query.shape, query.dtype), False), (numbers, False)]
    out, log_total = _call(
        _forward_kernel, 2, (query, key, value), seen, (), results, (), causal, tile, interpret
    )
    return out, (query, key, value, seen, out, log_total)


def _backward(causal, tile, interpret, kept, d_out):
    query, key, value, seen, out, log_total = kept
    like = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key, value)]
    results = [(like[0], False), (like[1], True), (like[2], True)]
    scratch = [key.shape[2:]] * 2
    more = (out, log_total, d_out)
    gradients = _call(
        _backward_kernel, 5, (query, key, value), seen, more, results, scratch, causal, tile, interpret
    )
    return (*gradients, None)


_attend.defvjp(_forward, _backward)
