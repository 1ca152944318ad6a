"""wav2vec 2.0 over waveforms (Baevski et al. 2020, arXiv:2006.11477)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.encoders.common import Variant, check_rank, full_mask, make_features
from mmjax.encoders.transformer import Embedded, TransformerEncoder
from mmjax.errors import ConfigError
from mmjax.layers.mlp import ACTIVATIONS, Activation
from mmjax.layers.norms import LayerNorm
from mmjax.layers.pooling import mean_pool
from mmjax.types import Features


class Wav2Vec2(TransformerEncoder):
    """A waveform through strided convolutions to frames, then a transformer over them (section 2).

    Positions are a grouped convolution over the frames. Published weights hold its kernel under weight
    normalisation, as a direction and a length; here it is one plain kernel, their product, which
    computes the same and trains a little differently.

    A frame is real where all samples that it is made of are. What is not real takes no part in 'group'
    normalisation either, so a padded batch gives what each example gives alone; published models with
    'group' were used without a mask and saw the zeros of the padding.

    The defaults are the BASE model; LARGE is `variant` 'L', and the ones trained on more data (LV-60,
    XLSR) have `conv_norm` 'layer', `conv_bias` and `norm_position` 'pre'.

    Attributes:
      conv_widths, conv_kernels, conv_strides: channels, samples seen and stride of each convolution.
      conv_norm: 'layer' over the channels of each frame after every convolution, or 'group': each
        channel over time, after the first only.
      conv_bias: whether the convolutions over samples have biases.
      conv_activation: after each of them, and after that of the positions.
      position_kernel: frames that the convolution of the positions sees.
      position_groups: its groups of channels.
      feature_dropout: rate of what enters the positions.
      mask_time_prob: share of the frames, about, that a learned vector replaces in training, in spans of
        `mask_time_length`; a frame starts one with probability prob / length.
      mask_feature_prob, mask_feature_length: the same of channels, which become zero (Park et al. 2019,
        arXiv:1904.08779).

    The other attributes are those of `TransformerEncoder`.
    """

    variant: Variant = "B"
    eps: float = 1e-5
    norm_position: Literal["pre", "post"] = "post"
    conv_widths: Sequence[int] = (512,) * 7
    conv_kernels: Sequence[int] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: Sequence[int] = (5, 2, 2, 2, 2, 2, 2)
    conv_norm: Literal["group", "layer"] = "group"
    conv_bias: bool = False
    conv_activation: Activation = "gelu"
    position_kernel: int = 128
    position_groups: int = 16
    feature_dropout: float = 0.0
    mask_time_prob: float = 0.0
    mask_time_length: int = 10
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10

    def setup(self):
        self._check_convolutions()
        settings = self.make_blocks()
        width = settings.width
        self.convolutions = [
            SampleConvolution(
                features,
                kernel,
                stride,
                norm="layer" if self.conv_norm == "layer" else "group" if i == 0 else "none",
                use_bias=self.conv_bias,
                activation=self.conv_activation,
                dtype=self.dtype,
            )
            for i, (features, kernel, stride) in enumerate(
                zip(self.conv_widths, self.conv_kernels, self.conv_strides, strict=True)
            )
        ]
        self.feature_norm = LayerNorm(self.eps, dtype=self.dtype)
        self.projection = nn.Dense(width, dtype=self.dtype)
        self.dropout_of_features = nn.Dropout(self.feature_dropout)
        if self.mask_time_prob:
            self.mask_vector = self.param("mask_vector", nn.initializers.uniform(1.0), (width,), jnp.float32)
        if width % self.position_groups:
            raise ConfigError(
                f"position_groups: got {self.position_groups}, expected a divisor of the width {width}"
            )
        half = self.position_kernel // 2
        self.positions = nn.Conv(
            width,
            (self.position_kernel,),
            # Frame t sees half a kernel before it and what is left of the kernel from it on.
            padding=((half, self.position_kernel - 1 - half),),
            feature_group_count=self.position_groups,
            kernel_init=nn.initializers.normal(2 / math.sqrt(self.position_kernel * width)),
            dtype=self.dtype,
        )
        if self.norm_position == "post":
            self.embedding_norm = settings.make_norm(self.dtype)

    def embed(self, x: Float[Array, "B T"], mask: Bool[Array, "#B #T"] | None, train: bool) -> Embedded:
        """What enters the blocks, one token per frame.

        Args:
          x: waveforms, of mean 0 and variance 1 each for most published weights, at 16 kHz.
          mask: which samples are real; None is all.
          train: whether dropout and the masks of training are on.

        Raises:
          ConfigError: where `x` is no batch of waveforms, or too short for one frame.
        """
        check_rank("wav2vec2", x, "waveforms [B, T]")
        shortest = receptive_field(self.conv_kernels, self.conv_strides)
        if x.shape[1] < shortest:
            raise ConfigError(f"wav2vec2: got {x.shape[1]} samples, expected at least {shortest}, one frame")
        all_real = mask is None
        mask = full_mask(mask, *x.shape)
        x = jnp.where(mask, x, 0)[..., None].astype(self.dtype)
        for convolution in self.convolutions:
            x, mask = convolution(x, mask)
        x = self.projection(self.feature_norm(x))
        x = self.dropout_of_features(x, deterministic=not train)
        x = jnp.where(mask[..., None], self._hide(x) if train else x, 0)
        x = x + ACTIVATIONS[self.conv_activation](self.positions(x))
        if self.norm_position == "post":
            x = self.embedding_norm(x)
        return self.embedding_dropout(x, deterministic=not train), mask, None if all_real else mask

    def finish(self, tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Features:
        """Features from what leaves the blocks; pooled is the mean of the frames."""
        tokens = self.norm_tokens(tokens)
        return make_features(tokens, mask, self.norm_pooled(mean_pool(tokens, mask)))

    def _hide(self, x):
        batch, length, width = x.shape
        if self.mask_time_prob:
            hidden = spans(
                self.make_rng("dropout"), batch, length, self.mask_time_prob, self.mask_time_length
            )
            x = jnp.where(hidden[..., None], self.mask_vector.astype(x.dtype), x)
        if self.mask_feature_prob:
            hidden = spans(
                self.make_rng("dropout"), batch, width, self.mask_feature_prob, self.mask_feature_length
            )
            x = jnp.where(hidden[:, None], 0, x)
        return x

    def _check_convolutions(self):
        for name in ("conv_kernels", "conv_strides"):
            given = getattr(self, name)
            if len(given) != len(self.conv_widths):
                raise ConfigError(
                    f"{name}: got {len(given)} convolutions, expected as many as conv_widths, "
                    f"{len(self.conv_widths)}"
                )
        if not self.conv_widths:
            raise ConfigError("conv_widths: got none, expected at least one convolution")


class SampleConvolution(nn.Module):
    """A convolution over time without padding, its normalisation, and the activation.

    Attributes:
      features: channels it puts out.
      kernel, stride: steps of time it sees, and goes on by.
      norm: 'layer' over the channels of a frame, 'group' each channel over the real frames, or 'none'.
      use_bias: whether the convolution has a bias.
      activation: after the normalisation.
      dtype: what it computes in.
    """

    features: int
    kernel: int
    stride: int
    norm: Literal["layer", "group", "none"]
    use_bias: bool
    activation: Activation
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T C"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """The frames, and which of them are made of real steps only."""
        x = nn.Conv(
            self.features,
            (self.kernel,),
            strides=(self.stride,),
            padding="VALID",
            use_bias=self.use_bias,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            name="conv",
        )(x)
        last = (x.shape[1] - 1) * self.stride + 1
        seen = [mask[:, i : i + last : self.stride] for i in range(self.kernel)]
        mask = jnp.stack(seen).all(axis=0)
        if self.norm == "layer":
            x = LayerNorm(1e-5, dtype=self.dtype, name="norm")(x)
        elif self.norm == "group":
            x = NormOverTime(dtype=self.dtype, name="norm")(x, mask)
        return ACTIVATIONS[self.activation](x), mask


class NormOverTime(nn.Module):
    """Each channel of each example with mean 0 and variance 1 over its real frames, scaled and shifted.

    Group normalisation (Wu and He 2018, arXiv:1803.08494) with a group per channel.

    Attributes:
      eps: added to the variance.
      dtype: of the result.
    """

    eps: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T C"], mask: Bool[Array, "B T"]) -> Float[Array, "B T C"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x, real = x.astype(jnp.float32), mask[..., None]
        count = jnp.maximum(mask.sum(axis=1), 1).astype(jnp.float32)[:, None, None]
        centred = x - x.sum(axis=1, keepdims=True, where=real) / count
        variance = jnp.square(centred).sum(axis=1, keepdims=True, where=real) / count
        return (centred * (jax.lax.rsqrt(variance + self.eps) * scale) + bias).astype(self.dtype)


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """The samples that one frame is made of."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def spans(
    key: Key[Array, ""], batch: int, length: int, share: float, span: int
) -> Bool[Array, "{batch} {length}"]:
    """Random spans of `span` places each, which may overlap; about `share` of all places are in one."""
    starts = jax.random.bernoulli(key, share / span, (batch, length + span - 1))
    inside = jnp.cumsum(starts, axis=1)
    before = jnp.pad(inside, ((0, 0), (1, 0)))[:, :length]
    return inside[:, span - 1 :] > before
