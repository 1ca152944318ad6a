"""Gated sum of the streams' vectors."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.fusion import common
from mmjax.types import Features


class Gated(nn.Module):
    """Gated multimodal unit (GMU), Arevalo et al. 2017, arXiv:1702.01992, section 3.1.

    With x_i the pooled vector of stream i and P the streams an example has:

        h_i   = tanh(W_i x_i + b_i)
        g_i   = sum_{j in P} U_ij x_j + c_i
        z_i   = exp(g_i) / sum_{j in P} exp(g_j)     for i in P, else 0; elementwise over the width
        fused = sum_i z_i * h_i

    The paper's bimodal unit, z h_1 + (1 - z) h_2 with z a sigmoid, is this one with M = 2. For more
    streams the paper leaves the gates independent sigmoids; a softmax keeps the sum a weighted mean
    of the streams that are there. An example with one stream gets its h_i; a row without any, zeros.

    Tokens are tanh(W_i t + b_i) of each token t. The gates are sown as `<stream>_gate` `[B, width]`
    into the collection 'intermediates'.

    Attributes:
      width: D of the fused vectors.
      dtype: what it computes in.
    """

    width: int = 512
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ -> tokens `[B, sum of L, width]`, pooled `[B, width]`."""
        streams = common.in_order(features)
        values, tokens = [], []
        for name, stream in streams.items():
            project = nn.Dense(self.width, dtype=self.dtype, name=f"{name}_projection")
            values.append(nn.tanh(project(stream.pooled)))
            tokens.append(nn.tanh(project(stream.tokens)))

        # Absent streams are zeros here, which is what leaving them out of the sum over j means.
        seen = jnp.concatenate([stream.pooled for stream in streams.values()], axis=-1)
        logits = nn.Dense(len(streams) * self.width, dtype=self.dtype, name="gate")(seen)
        logits = logits.reshape(-1, len(streams), self.width).astype(jnp.float32)
        gates = nn.softmax(logits, axis=1, where=common.present(streams)[:, :, None]).astype(self.dtype)
        for i, name in enumerate(streams):
            self.sow("intermediates", f"{name}_gate", gates[:, i])
        return common.gather(tokens, streams, (gates * jnp.stack(values, axis=1)).sum(axis=1))
