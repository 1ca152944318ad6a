"""A relation network: all pairs of one stream's tokens, conditioned on the other streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion import common
from mmjax.types import Features


class Relation(nn.Module):
    """RN, Santoro et al. 2017, arXiv:1706.01427, equation 1 with the condition of section 5.1.

    With o_i the tokens of the stream `objects`, and q the pooled vectors of all other streams, one after
    another (zeros where an example lacks one):

        fused = f( sum_{i, j} g(o_i, o_j, q) )          over all pairs of real tokens, i = j among them

    g is an MLP with a ReLU after each of its layers, whose widths are `relation`. f is one with a ReLU
    after each of the layers `hidden`, and a last linear map to `width`, which with a linear classifier
    behind it is one linear map. The first kernel of f starts smaller by the number of pairs, as if their
    mean were taken, so that the first outputs are of one size however many objects there are.

    The objects of the paper know where they are. Tokens of an image do where their encoder says so, as
    `cnn` with `coordinates` does.

    The first layer of g meets three vectors; its matrix is kept as one block for each, so that a block
    is applied once to an object, and not once to each of its pairs. An example without objects is
    f(g(0, 0, q)). Fused tokens: that of object i is f of the part of the sum in which it comes first;
    that of another stream is what the fusion makes of it where nothing else is there.

    Attributes:
      objects: the stream whose tokens are related.
      relation: widths of the layers of g.
      hidden: widths of the hidden layers of f.
      width: D of the fused vectors.
      dropout: rate after each hidden layer of f, in training.
      dtype: what g computes in; the sum over many pairs and f, one vector per example, are float32.
    """

    objects: str
    relation: Sequence[int] = (256, 256, 256, 256)
    hidden: Sequence[int] = (256, 256)
    width: int = 256
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ -> tokens `[B, sum of L, width]`, pooled `[B, width]`.

        Raises:
          ConfigError: there is no stream `objects`, or g has no layers.
        """
        streams = common.in_order(features)
        common.check_stream("objects", self.objects, streams)
        common.check_positive(relation=len(self.relation))
        objects = streams[self.objects]
        g = [nn.Dense(w, dtype=self.dtype, name=f"relation_{i}") for i, w in enumerate(self.relation[1:], 1)]
        *f, last = [
            nn.Dense(
                w, kernel_init=_initial(1.0 if i else 1 / objects.tokens.shape[1] ** 4), name=f"layers_{i}"
            )
            for i, w in enumerate([*self.hidden, self.width])
        ]
        drop = nn.Dropout(self.dropout, deterministic=not train)

        # The variance that one kernel over all of g's input would start with.
        sizes = {name: stream.pooled.shape[-1] for name, stream in streams.items()}
        total = sum(sizes.values()) + sizes[self.objects]
        bias = self.param("bias", nn.initializers.zeros, (self.relation[0],), jnp.float32).astype(self.dtype)

        def block(name, size):
            return nn.Dense(
                self.relation[0], False, self.dtype, kernel_init=_initial(size / total), name=name
            )

        def related(x):  # g, from the sum of what its first layer makes of its parts
            x = nn.relu(x + bias)
            for layer in g:
                x = nn.relu(layer(x))
            return x.astype(jnp.float32)

        def finish(x):
            for layer in f:
                x = drop(nn.relu(layer(x)))
            return last(x).astype(self.dtype)

        first = block(f"{self.objects}_first", sizes[self.objects])(objects.tokens)
        second = block(f"{self.objects}_second", sizes[self.objects])(objects.tokens)
        condition, tokens = jnp.zeros((len(first), self.relation[0]), self.dtype), {}
        for name in streams:
            if name != self.objects:
                project = block(f"{name}_projection", sizes[name])
                condition = condition + project(streams[name].pooled)
                tokens[name] = finish(related(project(streams[name].tokens)))

        pairs = related(first[:, :, None] + second[:, None, :] + condition[:, None, None])
        by_first = _masked_sum(pairs, objects.mask[:, None, :])
        tokens[self.objects] = finish(by_first)
        relations = _masked_sum(by_first, objects.mask)
        alone = related(condition)
        pooled = finish(jnp.where(objects.present[:, None], relations, alone))
        return common.gather([tokens[name] for name in streams], streams, pooled)


def _initial(variance: float) -> nn.initializers.Initializer:
    """The usual kernel, of `variance` times the variance."""
    return nn.initializers.variance_scaling(variance, "fan_in", "truncated_normal")


def _masked_sum(x: Float[Array, "*axes L D"], mask: Bool[Array, "*#axes L"]) -> Float[Array, "*axes D"]:
    """The sum of the vectors that are real."""
    return jnp.where(mask[..., None], x, 0).sum(axis=-2)
