"""Small features and small fusions for the tests of this folder."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import components
from mmjax.encoders.transformer import TransformerEncoder
from mmjax.fusion.common import in_order
from mmjax.fusion.stack import Stack
from mmjax.layers.pooling import mean_pool
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


class Tokens(TransformerEncoder):
    """A transformer over vectors, to have a fusion inside."""

    causal: bool = False

    def setup(self):
        self.projection = nn.Dense(self.size.width, dtype=self.dtype)
        self.make_blocks(causal=self.causal)

    def embed(self, x, mask, train):
        return self.projection(jnp.where(mask[:, :, None], x, 0)), mask, mask

    def finish(self, tokens, mask):
        tokens = self.norm_tokens(tokens)
        return Features(tokens, mask, mean_pool(tokens, mask))


class InEncoders(nn.Module):
    """A fusion that works inside encoders, as one that takes features: their tokens are encoded."""

    fusion: nn.Module
    encoder: dict[str, Any]

    @nn.compact
    def __call__(self, features, *, train=False):
        return self.entries(features, train=train)["fused"]

    @nn.compact
    def entries(self, features, *, train=False):
        """The features of every stream, and 'fused'."""
        stacks = {}
        for name, stream in (in_order(features) if features else {}).items():
            encoder = Tokens(**self.encoder, name=f"{name}_encoder")
            stacks[name] = Stack(encoder, stream.tokens, stream.mask, stream.present, train)
        return self.fusion(stacks, train=train)


ENCODER = {"variant": "custom", "width": 8, "depth": 2, "heads": 2, "mlp_width": 16}


def small(name, streams=ALL, encoder=None, **settings):
    """The fusion `name` at a size that compiles fast; a stream it must name is the last.

    One that works inside encoders comes with such; `encoder` are their settings.
    """
    cls = components.table("fusions")[name]
    if name == "modality_dropout":
        return cls(small("co_attention", streams, **settings), rate=0.5)
    sizes = {"width": 8, "depth": 1, "heads": 2, "mlp_width": 16, "hidden": [12]}
    sizes |= {"stream_width": 3, "rank": 2, "factors": 2, "queries": 2, "resampler_depth": 1}
    sizes |= {"bottlenecks": 2, "fusion_layer": 0, "relation": [16, 16]}
    sizes |= dict.fromkeys(("query", "text", "objects"), streams[-1] if streams else "text")
    fusion = cls(**{key: value for key, value in sizes.items() if key in components.fields(cls)} | settings)
    if not getattr(cls, "inside", False):
        return fusion
    return InEncoders(fusion, ENCODER | {"dtype": fusion.dtype} | (encoder or {}))


@functools.cache
def variables(name, streams=ALL):
    """Initial variables, made once for all tests: compiling takes longer than computing.

    Gates that start at 0 are opened, since nothing behind them would be seen or trained.
    """
    made = jax.jit(small(name, streams).init)(jax.random.key(1), features(streams))
    return jax.tree.map_with_path(
        lambda path, x: x + 0.5 if jax.tree_util.keystr(path).endswith("_gate']") else x, made
    )


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
