"""Small features and small fusions for the tests of this folder."""

import functools

import jax
import jax.numpy as jnp

from mmjax import components
from mmjax.types import Features

SIZES = {"audio": (5, 6), "image": (4, 8), "text": (3, 10)}  # stream -> (L, D)
ALL = tuple(SIZES)

# Rows: everything; no audio; text only; image only; nothing; and everything again.
MISSING = {"audio": (1, 2, 3, 4), "image": (2, 4), "text": (3, 4)}


def features(streams=ALL, batch=8, seed=0, missing=True):
    """Random features; row 0 of every stream ends in a padding token."""
    made = {}
    for name in streams:
        length, width = SIZES[name]
        key = jax.random.fold_in(jax.random.key(seed), ALL.index(name))
        tokens = jax.random.normal(key, (batch, length, width))
        mask = jnp.ones((batch, length), bool).at[0, -1].set(False)
        if missing:
            mask = mask.at[jnp.array(MISSING[name])].set(False)
        weights = mask[:, :, None] / jnp.maximum(mask.sum(axis=1), 1)[:, None, None]
        made[name] = Features(tokens=tokens, mask=mask, pooled=(tokens * weights).sum(axis=1))
    return made


# Tokens of the fusion's own in front of the streams' ones.
OWN_TOKENS = {"merged_attention": 1, "cross_attention": 1, "perceiver_resampler": 2, "q_former": 2}

# Some of whose parameters only the fused tokens depend on, not the fused vector.
TOKENS_TOO = {"q_former"}


def small(name, streams=ALL, **settings):
    """The fusion `name` at a size that compiles fast; a stream it must name is the last."""
    cls = components.table("fusions")[name]
    sizes = {"width": 8, "depth": 1, "heads": 2, "mlp_width": 16, "hidden": [12]}
    sizes |= {"stream_width": 3, "rank": 2, "factors": 2, "queries": 2}
    sizes |= {"query": streams[-1], "text": streams[-1]} if streams else {"query": "text"}
    return cls(**{key: value for key, value in sizes.items() if key in components.fields(cls)} | settings)


@functools.cache
def variables(name, streams=ALL):
    """Initial variables, made once for all tests: compiling takes longer than computing."""
    return jax.jit(small(name, streams).init)(jax.random.key(1), features(streams))


@functools.cache
def _jitted(name, streams):
    return jax.jit(small(name, streams).apply)


def apply(name, given):
    """The fused features of `given`, by the fusion `name` with its initial variables."""
    streams = tuple(sorted(given))
    return _jitted(name, streams)(variables(name, streams), given)


@functools.cache
def step(name):
    """(variables, features) -> ((a number that depends on all of pooled, fused), its gradient)."""

    def loss(variables, given):
        fused = small(name).apply(variables, given)
        factors = jax.random.normal(jax.random.key(9), fused.pooled.shape)
        total = (fused.pooled * factors).sum()
        if name in TOKENS_TOO:
            total = total + jnp.square(fused.tokens).mean()
        return total, fused

    return jax.jit(jax.value_and_grad(loss, has_aux=True))
