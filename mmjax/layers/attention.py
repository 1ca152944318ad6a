"""Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

Every attention in the package goes through `dot_product_attention`, which chooses the kernel; what
is masked, and what a row without any key gives, is the same for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from mmjax.errors import ConfigError
from mmjax.layers.dense import Dense
from mmjax.layers.position import rotate
from mmjax.layers.remat import ATTENDED, PROJECTED
from mmjax.parallel.ring_attention import ring_attention, sequence_parts
from mmjax.parallel.tpu_attention import fits_tpu_kernel, tpu_attention


def dot_product_attention(
    query: Float[Array, "B Lq H K"],
    key: Float[Array, "B Lk H K"],
    value: Float[Array, "B Lk H K"],
    mask: Bool[Array, "#B #H #Lq #Lk"] | None = None,
    *,
    bias: Float[Array, "#B #H Lq Lk"] | None = None,
    causal: bool = False,
) -> Float[Array, "B Lq H K"]:
    """softmax(query key^T / sqrt(K) + bias) value, with the softmax in float32.

    Args:
      query, key, value: the heads' projections, of one dtype.
      mask: True where a query may see a key; None lets it see all. A query that sees no key gets
        zeros, and passes no gradient on.
      bias: added to the scores, such as relative positions; None adds nothing.
      causal: position i sees positions up to i only (besides `mask`); needs Lq == Lk.

    Returns:
      One vector per query and head, in the dtype of `query`.
    """
    if causal and query.shape[1] != key.shape[1]:
        raise ValueError(
            f"causal attention got {query.shape[1]} queries and {key.shape[1]} keys, expected as many; "
            "give a mask instead"
        )
    if sequence_parts() > 1:
        return ring_attention(query, key, value, mask, bias, causal)
    if _fits_cudnn(query):
        attended = _cudnn_attention(query, key, value, mask, bias, causal)
    elif fits_tpu_kernel(query, key, mask, bias):
        attended = tpu_attention(query, key, value, mask, causal)
    else:
        attended = _xla_attention(query, key, value, mask, bias, causal)
    if mask is None:
        return attended
    # A softmax over nothing is uniform in every kernel; this makes it zeros, and cuts its gradient.
    sees_any = _visible(mask, causal, query.shape[1]).any(axis=-1)  # [B, H, Lq]
    return jnp.where(jnp.swapaxes(sees_any, 1, 2)[..., None], attended, jnp.zeros((), attended.dtype))


def attention_weights(
    query: Float[Array, "B Lq H K"],
    key: Float[Array, "B Lk H K"],
    mask: Bool[Array, "#B #H #Lq #Lk"] | None = None,
    *,
    bias: Float[Array, "#B #H Lq Lk"] | None = None,
    causal: bool = False,
) -> Float[Array, "B H Lq Lk"]:
    """The float32 weights that `dot_product_attention` averages the values with, for reports.

    Rows sum to one, or to zero where the query sees no key.
    """
    weights = _softmax_weights(query, key, mask, bias, causal)
    if mask is None and not causal:
        return weights
    return jnp.where(_visible(mask, causal, query.shape[1]), weights, 0.0)


def _softmax_weights(query, key, mask, bias, causal):
    scores = jnp.einsum("bqhk,bshk->bhqs", query, key, preferred_element_type=jnp.float32)
    scores = scores * (1.0 / math.sqrt(query.shape[-1]))
    if bias is not None:
        scores = scores + bias.astype(jnp.float32)
    if mask is not None or causal:
        # Finite, so that a row without any key has a softmax and no NaN in its gradient.
        hidden = jnp.float32(jnp.finfo(jnp.float32).min)
        scores = jnp.where(_visible(mask, causal, query.shape[1]), scores, hidden)
    return jax.nn.softmax(scores, axis=-1)


def _visible(mask, causal, length):
    """`mask` and the causal triangle in one array, broadcastable to [B, H, Lq, Lk]."""
    if not causal:
        return mask
    triangle = jnp.tril(jnp.ones((length, length), bool))[None, None]
    return triangle if mask is None else mask & triangle


def _xla_attention(query, key, value, mask, bias, causal):
    weights = _softmax_weights(query, key, mask, bias, causal).astype(value.dtype)
    return jnp.einsum("bhqs,bshk->bqhk", weights, value)


def _fits_cudnn(query) -> bool:
    """Whether cuDNN has a flash kernel for these heads: a GPU, 16 bits, K a multiple of 8 up to 128."""
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128 and jax.default_backend() == "gpu"


def _cudnn_attention(query, key, value, mask, bias, causal):
    length = query.shape[1]
    if mask is not None:
        # cuDNN takes no broadcast over queries, and no odd length together with a mask.
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], length, key.shape[1]))
        odd_q, odd_k = length % 2, key.shape[1] % 2
        query = jnp.pad(query, ((0, 0), (0, odd_q), (0, 0), (0, 0)))
        key, value = (jnp.pad(x, ((0, 0), (0, odd_k), (0, 0), (0, 0))) for x in (key, value))
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, odd_q), (0, odd_k)))
        if bias is not None:
            bias = jnp.pad(bias, ((0, 0), (0, 0), (0, odd_q), (0, odd_k)))
    attended = jax.nn.dot_product_attention(
        query,
        key,
        value,
        bias=None if bias is None else bias.astype(query.dtype),
        mask=mask,
        is_causal=causal,
        implementation="cudnn",
    )
    return attended[:, :length]


def _constrain_heads(x):
    return nn.with_logical_constraint(x, ("batch", "length", "heads", "head_width"))


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention, or cross-attention to a context.

    `project_query`, `project_context` and `attend` are the three parts of `__call__`, for callers
    that keep keys and values between calls (a decoder's cache).

    Kernels are `query`, `key`, `value` [D, H, K] and `out` [H, K, D], so that heads are one axis.

    Attributes:
      width: D of the output.
      heads: H.
      head_width: K; none is width / heads.
      biased: the projections that have a bias.
      causal: position i sees positions up to i only.
      rotary: queries and keys are turned by their position, see `mmjax.layers.position.rotate`;
        for self-attention.
      dtype: what it computes in.
    """

    width: int
    heads: int
    head_width: int | None = None
    biased: Sequence[str] = ("query", "key", "value", "out")
    causal: bool = False
    rotary: bool = False
    dtype: Any = jnp.float32

    def setup(self):
        if self.head_width is None and self.width % self.heads:
            raise ConfigError(f"heads: got {self.heads}, expected a divisor of the width {self.width}")
        shape = (self.heads, self.head_width or self.width // self.heads)
        self.query = self._dense("query", shape)
        self.key = self._dense("key", shape)
        self.value = self._dense("value", shape)
        self.out = self._dense("out", self.width, axes=2)

    def _dense(self, name, features, axes=1):
        return Dense(
            features,
            axes=axes,
            use_bias=name in self.biased,
            kernel_init=nn.initializers.xavier_uniform(),
            kept_as=PROJECTED,
            dtype=self.dtype,
        )

    def project_query(self, x: Float[Array, "B L D"]) -> Float[Array, "B L H K"]:
        """What looks."""
        return _constrain_heads(self.query(x))

    def project_context(
        self, x: Float[Array, "B L D"]
    ) -> tuple[Float[Array, "B L H K"], Float[Array, "B L H K"]]:
        """Keys and values: what is looked at."""
        return _constrain_heads(self.key(x)), _constrain_heads(self.value(x))

    def attend(
        self,
        query: Float[Array, "B Lq H K"],
        key: Float[Array, "B Lk H K"],
        value: Float[Array, "B Lk H K"],
        mask: Bool[Array, "#B #H #Lq #Lk"] | None = None,
        *,
        bias: Float[Array, "#B #H Lq Lk"] | None = None,
        causal: bool = False,
    ) -> Float[Array, "B Lq D"]:
        """Attention over projected heads, and the output projection.

        The weights [B, H, Lq, Lk] are sown as 'attention' where 'intermediates' is mutable.
        """
        if self.is_mutable_collection("intermediates"):
            weights = attention_weights(query, key, mask, bias=bias, causal=causal)
            self.sow("intermediates", "attention", weights)
        attended = dot_product_attention(query, key, value, mask, bias=bias, causal=causal)
        return self.out(_constrain_heads(checkpoint_name(attended, ATTENDED)))

    def __call__(
        self,
        x: Float[Array, "B Lq Dq"],
        context: Float[Array, "B Lk Dk"] | None = None,
        mask: Bool[Array, "#B #H #Lq #Lk"] | None = None,
        bias: Float[Array, "#B #H Lq Lk"] | None = None,
    ) -> Float[Array, "B Lq D"]:
        """Attends from `x` to `context`, or to itself where no context is given.

        Args:
          x: tokens that look.
          context: tokens that are looked at; of any width.
          mask: True where a query may see a key, see `token_mask`.
          bias: added to the scores.
        """
        query = self.project_query(x)
        key, value = self.project_context(x if context is None else context)
        if self.rotary:
            query, key = rotate(query), rotate(key)
        return self.attend(query, key, value, mask, bias=bias, causal=self.causal)


def token_mask(mask: Bool[Array, "B Lk"]) -> Bool[Array, "B 1 1 Lk"]:
    """Attention mask by which every query sees exactly the real tokens."""
    return mask[:, None, None, :]
