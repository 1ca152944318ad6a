"""Learned scalars of contrastive losses: the inverse temperature and the bias of the similarities."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.errors import ConfigError
from mmjax.types import Features


class LearnedScale(nn.Module):
    """exp(s) with s learned, at most `maximum`: the factor on the similarities.

    CLIP (Radford et al. 2021, arXiv:2103.00020, section 2.5) starts at 1 / 0.07 and keeps it at 100
    or less; SigLIP (Zhai et al. 2023, arXiv:2303.15343, section 3.2) starts at 10 without a bound,
    and adds a `learned_bias`.

    CLIP clips the parameter after each update, so that it can come back. Here the parameter is left
    alone and its value is clipped, with a gradient that passes where it is below the bound and where
    a step of descent would lower it, which comes to the same.

    Attributes:
      initial: value at the start, exp(s).
      maximum: upper bound; none has none.
    """

    initial: float = 1 / 0.07
    maximum: float | None = 100.0

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Float[Array, ""]:
        """The factor, a scalar."""
        if self.initial <= 0 or (self.maximum is not None and self.maximum < self.initial):
            raise ConfigError(
                f"learned_scale: got initial {self.initial} and maximum {self.maximum}, "
                "expected 0 < initial <= maximum"
            )
        log_scale = self.param("log_scale", nn.initializers.constant(math.log(self.initial)), (), jnp.float32)
        if self.maximum is not None:
            log_scale = _at_most(log_scale, math.log(self.maximum))
        return jnp.exp(log_scale)


class LearnedBias(nn.Module):
    """A learned number added to the similarities, as in SigLIP (arXiv:2303.15343, section 3.2).

    Attributes:
      initial: value at the start; the paper's -10 makes the first predictions close to "no pair",
        as most pairs are.
    """

    initial: float = -10.0

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Float[Array, ""]:
        """The bias, a scalar."""
        return self.param("bias", nn.initializers.constant(self.initial), (), jnp.float32)


@jax.custom_vjp
def _at_most(x, bound):
    return jnp.minimum(x, bound)


def _at_most_forward(x, bound):
    return _at_most(x, bound), x < bound


def _at_most_backward(below, gradient):
    return jnp.where(below | (gradient > 0), gradient, 0.0), None


_at_most.defvjp(_at_most_forward, _at_most_backward)
