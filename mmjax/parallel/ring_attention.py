"""Attention over tokens that are split over devices (Liu et al. 2023, arXiv:2310.01889, section 3).

Queries stay where they are; keys and values go around the devices of the mesh axis `sequence`, and each
device takes in one part of them at a time with an online softmax (Milakov and Gimelshein 2018,
arXiv:1805.02867). The backward pass goes around once more and computes the scores again. So a device
holds scores of `L / parts` queries and `L / parts` keys, and never those of the whole sequence.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mmjax.parallel.mesh import batch_and_head_axes

_AXIS = "sequence"
# Finite, so that a row that has seen no key yet gives no NaN.
_HIDDEN = float(jnp.finfo(jnp.float32).min)


def sequence_parts() -> int:
    """Over how many devices tokens are split here: 1 outside of `activation_rules`."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(_AXIS, 1)


def ring_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    causal: bool,
) -> jax.Array:
    """What `mmjax.layers.attention.dot_product_attention` gives, with its arguments.

    Inside `activation_rules` with a mesh. Lengths that do not divide evenly are filled up with tokens
    that nobody sees. A query that sees no key gets zeros and passes no gradient on.

    Args:
      query: `[B, Lq, H, K]`, of any length.
      key, value: `[B, Lk, H, K]`.
      mask: bool, broadcasts to `[B, H, Lq, Lk]`; each device keeps the rows of its queries whole.
      bias: `[B or 1, H or 1, Lq, Lk]`; likewise.
      causal: query i sees keys up to i only.

    Returns:
      `[B, Lq, H, K]` in the dtype of `query`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    parts, queries, keys = mesh.shape[_AXIS], query.shape[1], key.shape[1]
    batch, heads = batch_and_head_axes(mesh, query.shape[0], query.shape[2])
    tokens = PartitionSpec(batch, _AXIS, heads, None)

    def fill(x, axis):
        missing = [(0, 0)] * x.ndim
        missing[axis] = (0, -x.shape[axis] % parts)
        return jnp.pad(x, missing)

    def rows(x):
        """`mask` or `bias` with all columns, and rows filled up unless one stands for all."""
        x = fill(jnp.broadcast_to(x, (*x.shape[:3], keys)), 3)
        return x if x.shape[2] == 1 else fill(x, 2)

    def split(x):
        """Where `mask` or `bias` lie: as the queries do, and whole along axes of size one."""
        if x is None:
            return PartitionSpec()
        axes = (batch, heads, _AXIS)
        return PartitionSpec(*(axis if size > 1 else None for axis, size in zip(axes, x.shape, strict=False)))

    given = tuple(None if x is None else rows(x) for x in (mask, bias))
    used = _names(tokens)

    def on_device(query, key, value, mask, bias):
        # What is the same on several devices is said to differ: its gradient is then summed over these.
        mask, bias = (
            None if x is None else _varying(x, tuple(axis for axis in used if axis not in _names(split(y))))
            for x, y in ((mask, given[0]), (bias, given[1]))
        )
        return _attend(query, key, value, mask, bias, causal, keys, used)

    attended = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(tokens, tokens, tokens, *map(split, given)),
        out_specs=tokens,
    )(fill(query, 1), fill(key, 1), fill(value, 1), *given)
    return attended[:, :queries]


def _names(spec: PartitionSpec) -> tuple[str, ...]:
    """All mesh axes in a spec."""
    groups = ((axes,) if isinstance(axes, str) else axes or () for axes in spec)
    return tuple(axis for group in groups for axis in group)


def _varying(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    return jax.lax.pcast(x, axes, to="varying") if axes else x


def _zeros(shape: tuple[int, ...], axes: tuple[str, ...]) -> jax.Array:
    return _varying(jnp.zeros(shape, jnp.float32), axes)


def _pass_on(tree):
    """Hands what this device holds to the next one."""
    parts = jax.lax.axis_size(_AXIS)
    return jax.lax.ppermute(tree, _AXIS, [(i, (i + 1) % parts) for i in range(parts)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _attend(query, key, value, mask, bias, causal, keys, axes):
    return _forward(query, key, value, mask, bias, causal, keys, axes)[0]


def _scores(query, key, mask, bias, causal, keys, step):
    """Float32 scores of this device's queries and the keys that it holds in `step`, and which count."""
    rows, columns = query.shape[1], key.shape[1]
    here, parts = jax.lax.axis_index(_AXIS), jax.lax.axis_size(_AXIS)
    start = (here - step) % parts * columns
    scores = jnp.einsum("bqhk,bshk->bhqs", query, key, preferred_element_type=jnp.float32)
    scores = scores * (1.0 / math.sqrt(query.shape[-1]))
    if bias is not None:
        scores += jax.lax.dynamic_slice_in_dim(bias, start, columns, 3).astype(jnp.float32)
    column = start + jnp.arange(columns)
    visible = (column < keys)[None, None, None, :]
    if mask is not None:
        visible &= jax.lax.dynamic_slice_in_dim(mask, start, columns, 3)
    if causal:
        visible &= column <= (here * rows + jnp.arange(rows))[:, None]
    return scores, visible


def _forward(query, key, value, mask, bias, causal, keys, axes):
    batch, rows, heads, width = query.shape

    def take_in(carry, step):
        top, total, mean, key, value = carry
        scores, visible = _scores(query, key, mask, bias, causal, keys, step)
        new_top = jnp.maximum(top, jnp.where(visible, scores, _HIDDEN).max(-1))
        weights = jnp.where(visible, jnp.exp(scores - new_top[..., None]), 0.0)
        shrink = jnp.exp(top - new_top)
        total = total * shrink + weights.sum(-1)
        part = jnp.einsum(
            "bhqs,bshk->bhqk", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
        )
        return (new_top, total, mean * shrink[..., None] + part, *_pass_on((key, value))), None

    one = (batch, heads, rows)
    start = (_zeros(one, axes) + _HIDDEN, _zeros(one, axes), _zeros((*one, width), axes), key, value)
    (top, total, mean, _, _), _ = jax.lax.scan(take_in, start, jnp.arange(jax.lax.axis_size(_AXIS)))
    total = jnp.where(total > 0, total, 1.0)
    attended = (mean / total[..., None]).swapaxes(1, 2).astype(query.dtype)
    return attended, (query, key, value, mask, bias, attended, top + jnp.log(total))


def _backward(causal, keys, axes, kept, cotangent):
    query, key, value, mask, bias, attended, log_total = kept
    slope = jnp.einsum("bqhk,bqhk->bhq", cotangent, attended, preferred_element_type=jnp.float32)
    scale = 1.0 / math.sqrt(query.shape[-1])

    def take_in(carry, step):
        d_query, d_bias, key, value, d_key, d_value = carry
        scores, visible = _scores(query, key, mask, bias, causal, keys, step)
        weights = jnp.where(visible, jnp.exp(scores - log_total[..., None]), 0.0)
        d_weights = jnp.einsum("bqhk,bshk->bhqs", cotangent, value, preferred_element_type=jnp.float32)
        d_scores = weights * (d_weights - slope[..., None])
        if bias is not None:
            start = (jax.lax.axis_index(_AXIS) - step) % jax.lax.axis_size(_AXIS) * key.shape[1]
            whole = tuple(i for i in range(3) if bias.shape[i] == 1)
            part = d_scores.sum(whole, keepdims=True)
            d_bias = jax.lax.dynamic_update_slice_in_dim(d_bias, part, start, 3)
        d_scores = (d_scores * scale).astype(query.dtype)
        product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        d_query += product("bhqs,bshk->bqhk", d_scores, key)
        d_key += product("bhqs,bqhk->bshk", d_scores, query)
        d_value += product("bhqs,bqhk->bshk", weights.astype(cotangent.dtype), cotangent)
        return (d_query, d_bias, *_pass_on((key, value, d_key, d_value))), None

    none = [_zeros(x.shape, axes) for x in (query, key, value)]
    d_bias = None if bias is None else _zeros(bias.shape, axes)
    start = (none[0], d_bias, key, value, none[1], none[2])
    steps = jnp.arange(jax.lax.axis_size(_AXIS))
    # After as many steps as there are parts, the gradients of keys and values are home again.
    (d_query, d_bias, _, _, d_key, d_value), _ = jax.lax.scan(take_in, start, steps)
    d_bias = None if bias is None else d_bias.astype(bias.dtype)
    same = (d_query.astype(query.dtype), d_key.astype(key.dtype), d_value.astype(value.dtype))
    return (*same, None, d_bias)


_attend.defvjp(_forward, _backward)
