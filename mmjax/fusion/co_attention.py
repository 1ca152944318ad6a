"""Cross-attention between all pairs of streams, in both directions."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion import common
from mmjax.fusion.attention import AttentionFusion, feed_forward
from mmjax.layers.attention import MultiHeadAttention, token_mask
from mmjax.layers.norms import LayerNorm
from mmjax.layers.pooling import mean_pool
from mmjax.layers.remat import rematerialised
from mmjax.layers.transformer import BlockSettings, Residual, TransformerBlock
from mmjax.types import Features


class CoAttention(AttentionFusion):
    """Co-attention, Lu et al. 2019 (ViLBERT), arXiv:1908.02265, section 2.2, for any number of streams.

    With X_s the tokens of stream s, P_s the other streams that the example has, and LN layer
    normalisation, each layer computes for every stream

        X_s <- X_s + 1/|P_s| sum_{t in P_s} MultiHead_{s,t}(query LN X_s, keys and values LN X_t)
        X_s <- X_s + MLP_s(LN X_s)
        X_s <- TransformerBlock_s(X_s)                self-attention within the stream, and an MLP

    all streams at once, from the tokens of the layer before. The first two lines are the paper's
    co-attentional layer and the third the layer that follows it there. Two streams are the paper's
    case; normalisation comes first (Xiong et al. 2020, arXiv:2002.04745), not after.

    The fused tokens are those of all streams after a last normalisation; the fused vector is the
    mean over the streams an example has of the mean of each one's tokens. A stream alone attends
    only to itself.

    The weights with which text looks at image are sown as `layers_0/text_to_image/attention`
    `[B, H, L_text, L_image]` into the collection 'intermediates'.

    Attributes: see `mmjax.fusion.attention`.
    """

    depth: int = 2

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ -> tokens `[B, sum of L, width]`, pooled `[B, width]`."""
        streams = common.in_order(features)
        masks = {name: stream.mask for name, stream in streams.items()}
        tokens = {
            name: nn.Dense(self.width, dtype=self.dtype, name=f"{name}_projection")(stream.tokens)
            for name, stream in streams.items()
        }
        # Argument 3 of __call__ (self is 0) is `train`, a Python bool.
        layer = rematerialised(CoAttentionLayer, self.remat, static_argnums=(3,))
        for i in range(self.depth):
            tokens = layer(self.settings(), self.dtype, name=f"layers_{i}")(tokens, masks, train)

        tokens = {name: LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x) for name, x in tokens.items()}
        means = jnp.stack([mean_pool(x, masks[name]) for name, x in tokens.items()], axis=1)
        pooled = mean_pool(means, common.present(streams))
        return common.gather(list(tokens.values()), streams, pooled)


class CoAttentionLayer(nn.Module):
    """One layer of `CoAttention`, with parameters of its own for every ordered pair of streams.

    Attributes:
      settings: width, heads, MLP width and dropout.
      dtype: what it computes in.
    """

    settings: BlockSettings
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: dict[str, Float[Array, "B _ D"]],
        masks: dict[str, Bool[Array, "B _"]],
        train: bool = False,
    ) -> dict[str, Float[Array, "B _ D"]]:
        s = self.settings
        # A stream alone has nothing to look at.
        alone = len(tokens) == 1
        normed = {} if alone else {name: self._norm(f"{name}_norm", x) for name, x in tokens.items()}
        result = {}
        for name, x in tokens.items():
            if not alone:
                x = Residual(s, name=f"{name}_residual")(x, self._look(name, normed, masks), train)
            x = feed_forward(s, self.dtype, x, train, prefix=f"{name}_")
            block = TransformerBlock(s, dtype=self.dtype, name=f"{name}_block")
            result[name] = block(x, masks[name], train)
        return result

    def _norm(self, name, x):
        return LayerNorm(dtype=self.dtype, name=name)(x)

    def _look(self, name, normed, masks):
        """What stream `name` sees in the others, averaged over those the example has."""
        found, has = [], []
        for other in normed:
            if other == name:
                continue
            attention = MultiHeadAttention(
                self.settings.width, self.settings.heads, dtype=self.dtype, name=f"{name}_to_{other}"
            )
            found.append(attention(normed[name], normed[other], token_mask(masks[other])))
            has.append(masks[other].any(axis=1))
        # Averaged here, since the bias of the output projection is not zero where nothing was seen.
        weights = jnp.stack(has, axis=1).astype(self.dtype)  # [B, M - 1]
        weights = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1)
        return jnp.einsum("bm,mbld->bld", weights, jnp.stack(found))
