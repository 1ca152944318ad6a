"""Bottleneck tokens: the streams' encoders exchange a few vectors between their blocks."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from mmjax.errors import ConfigError
from mmjax.fusion import common
from mmjax.fusion.stack import Stack
from mmjax.types import Features


class Bottleneck(nn.Module):
    """Multimodal bottleneck transformer (MBT), Nagrani et al. 2021, arXiv:2107.00135, section 3.

    With z_s the tokens of stream s between two blocks of its own encoder, z_f the `bottlenecks`
    learned vectors, P the streams an example has, and `[;]` one sequence, each block from
    `fusion_layer` on computes

        [z_s; z_f,s] <- block_s([z_s; z_f])           for every stream s
        z_f          <- 1/|P| sum_{s in P} z_f,s

    and the blocks before it z_s <- block_s(z_s). Streams see each other through z_f alone, so the cost
    is linear in their number. What they write in one block they read in the next: two blocks at
    least must come after `fusion_layer`. The equations are the paper's, which has two streams.

    It works inside the encoders: all must be stacks of bidirectional transformer blocks, of one width
    and depth. Every stream's features are those that leave its stack, and have seen the others. The
    fused tokens are those of all streams; the fused vector is the mean of the pooled vectors of the
    streams an example has, on which a linear classifier is the paper's mean of the logits that one
    classifier gives for each class token. A missing stream writes nothing into z_f; a row without any
    stream gives zeros.

    Attributes:
      bottlenecks: number of learned vectors (the paper's B).
      fusion_layer: the first block that has them (the paper's L_f).
      dtype: what it computes in.
    """

    bottlenecks: int = 4
    fusion_layer: int = 8
    dtype: Any = jnp.float32

    inside: ClassVar[bool] = True

    @nn.compact
    def __call__(self, stacks: dict[str, Stack], *, train: bool = False) -> dict[str, Features]:
        """A stack per stream -> the features of every stream, and 'fused'."""
        stacks = common.in_order_of_names(stacks)
        common.check_positive(bottlenecks=self.bottlenecks)
        tokens, masks, visible = {}, {}, {}
        for name, stack in stacks.items():
            tokens[name], masks[name], visible[name] = stack.embed()
        depth = self._check(stacks, {name: x.shape[-1] for name, x in tokens.items()})

        width, count = next(iter(tokens.values())).shape[-1], self.bottlenecks
        present = jnp.stack([stack.present for stack in stacks.values()], axis=1)  # [B, M]
        weights = present.astype(self.dtype)
        weights = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1)
        shared = common.LearnedTokens(count, width, self.dtype, name="bottlenecks")(len(present))
        if self.fusion_layer > 0:
            for name, stack in stacks.items():
                tokens[name] = stack.run(tokens[name], visible[name], stop=self.fusion_layer)
        for name, mask in visible.items():
            if mask is not None:
                visible[name] = jnp.pad(mask, ((0, 0), (0, count)), constant_values=True)
        for i in range(self.fusion_layer, depth):
            written = []
            for name, stack in stacks.items():
                both = jnp.concatenate([tokens[name], shared], axis=1)
                both = stack.run(both, visible[name], i, i + 1)
                tokens[name] = both[:, :-count]
                written.append(both[:, -count:])
            shared = jnp.einsum("bm,mbld->bld", weights, jnp.stack(written))

        features = {name: stack.finish(tokens[name], masks[name]) for name, stack in stacks.items()}
        pooled = jnp.stack([entry.pooled for entry in features.values()], axis=1)
        fused = [entry.tokens for entry in features.values()]
        pooled = jnp.einsum("bm,bmd->bd", weights, pooled)
        return {**features, "fused": common.gather(fused, features, pooled)}

    def _check(self, stacks, widths) -> int:
        """The depth of all stacks."""
        sizes = {name: (stack.depth, widths[name]) for name, stack in stacks.items()}
        if len(set(sizes.values())) > 1:
            given = ", ".join(f"{name} {depth} x {width}" for name, (depth, width) in sizes.items())
            raise ConfigError(
                f"model.fusion: bottlenecks need encoders of one depth and width, got {given}; "
                "give the encoders the same variant"
            )
        for name, stack in stacks.items():
            if getattr(stack.encoder, "causal", False):
                raise ConfigError(
                    f"model.streams.{name}.encoder.causal: is on, but tokens must see the bottlenecks and "
                    "these the tokens; set it to False, or use another fusion"
                )
            if getattr(stack.encoder, "fixed_tokens", False):
                raise ConfigError(
                    f"model.streams.{name}.encoder: its blocks take no tokens but its own, so bottlenecks "
                    "cannot stand among them; use an encoder such as video_transformer, or another fusion"
                )
        ((depth, _),) = set(sizes.values())
        if not 0 <= self.fusion_layer <= depth - 2:
            raise ConfigError(
                f"model.fusion.fusion_layer: got {self.fusion_layer}, expected 0 to {depth - 2}: bottlenecks "
                f"are written in one of the {depth} blocks and read in a later one"
            )
        return depth
