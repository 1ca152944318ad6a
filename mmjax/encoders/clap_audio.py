"""HTS-AT, the audio encoder of CLAP (Chen et al. 2022, arXiv:2202.00874; Wu et al. 2022, 2211.06687)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.errors import ConfigError
from mmjax.layers.mlp import Activation
from mmjax.layers.norms import BatchNorm, LayerNorm
from mmjax.layers.pooling import mean_pool
from mmjax.layers.remat import rematerialised
from mmjax.layers.swin import PatchMerging, SwinBlock
from mmjax.types import Features


@dataclasses.dataclass(frozen=True)
class ClapAudioSize:
    """Channels of a patch, blocks of each stage, heads of each stage."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]


# The configurations of LAION's CLAP: HTSAT-tiny, -base, -large.
SIZES = {
    "tiny": ClapAudioSize(96, (2, 2, 6, 2), (4, 8, 16, 32)),
    "base": ClapAudioSize(128, (2, 2, 12, 2), (4, 8, 16, 32)),
    "large": ClapAudioSize(256, (2, 2, 12, 2), (4, 8, 16, 32)),
}


class ClapAudio(nn.Module):
    """A clip of log-mel frames, folded into a square image, through a Swin transformer.

    Each mel bin is normalised over the batch. Time is interpolated to `spec_size` * r frames (bicubic,
    the ends aligned), where r = `spec_size` / C, and cut into r pieces that stand above each other: a
    square image of `spec_size` (Chen et al., section 2.2). Each stage but the last merges 2 x 2 places
    and doubles the width, so D = width * 2^(stages - 1).

    `Features.tokens` are the last grid moment by moment, and within a moment from low frequencies to
    high ones; `pooled` is their mean. Fusion of longer clips (`enable_fusion`) is not part of it.

    Attributes:
      variant: a published size by name, or 'custom'.
      width, depths, heads: what differs from the variant, all for 'custom': channels of a patch, blocks
        and heads of each stage.
      spec_size: side of the image, a multiple of the mel bins C.
      frames: of a whole clip; a shorter one is padded to it, with frames that are not real. 1001 are
        10 s in steps of 10 ms.
      patch_size, patch_stride: of the first convolution; sides in pixels.
      patch_norm: whether patches are normalised.
      window: side of a window of attention, in places of the grid.
      mlp_ratio, activation, qkv_bias, eps: see `mmjax.layers.swin.SwinBlock`; the normalisations outside
        of blocks have an eps of 1e-5.
      attention_dropout, dropout: rate of what attention, and the MLP, of a block put out.
      drop_path: probability that the last block's branches are dropped; earlier ones' less.
      remat: which activations of a block are recomputed, see `mmjax.layers.remat`.
      dtype: what it computes in.
    """

    variant: Literal["custom", "tiny", "base", "large"] = "tiny"
    width: int | None = None
    depths: list[int] | None = None
    heads: list[int] | None = None
    spec_size: int = 256
    frames: int = 1001
    patch_size: int = 4
    patch_stride: int = 4
    patch_norm: bool = True
    window: int = 8
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    qkv_bias: bool = True
    eps: float = 1e-5
    attention_dropout: float = 0.0
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: Any = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T C"],
        mask: Bool[Array, "#B #T"] | None = None,
        *,
        train: bool = False,
    ) -> Features:
        """Encodes audio.

        Args:
          x: log-mel frames, in decibels for the published weights; C mel bins.
          mask: which frames are real; None is all. The others are left out of the batch statistics,
            are the mean of each bin afterwards, and no place that holds only such frames is seen by
            another or is a real token.
          train: whether dropout and drop path are on and batch statistics are those of the batch.

        Raises:
          ConfigError: where `x` is no batch of frames, or the sizes do not fit together.
        """
        check_rank("clap_audio", x, "log-mel frames [B, T, C]")
        size, ratio = self._check_sizes(*x.shape[1:])
        batch, length, _ = x.shape
        everything_real = mask is None and length == self.frames
        mask = full_mask(mask, batch, length)

        x = BatchNorm(dtype=self.dtype, name="bin_norm")(x, mask, train)
        # Zero after the normalisation: neither loud nor silent.
        padding = self.frames - length
        x = jnp.pad(jnp.where(mask[..., None], x, 0), ((0, 0), (0, padding), (0, 0)))
        mask = jnp.pad(mask, ((0, 0), (0, padding)))
        image = fold(stretch(x, self.spec_size * ratio), ratio)
        grid = self._patches(size.width)(image[..., None])
        if self.patch_norm:
            grid = LayerNorm(1e-5, dtype=self.dtype, name="patch_norm")(grid)
        # A patch is real where any frame in it is; those of all frequencies are alike.
        real = mask[:, nearest(self.frames, self.spec_size * ratio)]
        real = real.reshape(batch, ratio, grid.shape[2], self.patch_stride).any(axis=-1)
        real = jnp.repeat(real, grid.shape[1] // ratio, axis=1)

        rates = np.linspace(0, self.drop_path, sum(size.depths)).tolist()
        block = rematerialised(SwinBlock, self.remat, static_argnums=(3,))
        for stage, (depth, heads) in enumerate(zip(size.depths, size.heads, strict=True)):
            if stage:
                grid = PatchMerging(dtype=self.dtype, name=f"stage_{stage}_merge")(grid)
                real = real.reshape(batch, grid.shape[1], 2, grid.shape[2], 2).any(axis=(2, 4))
            for i in range(depth):
                grid = block(
                    heads,
                    self.window,
                    shifted=i % 2 == 1,
                    mlp_ratio=self.mlp_ratio,
                    activation=self.activation,
                    qkv_bias=self.qkv_bias,
                    eps=self.eps,
                    attention_dropout=self.attention_dropout,
                    dropout=self.dropout,
                    drop_path=rates.pop(0),
                    dtype=self.dtype,
                    name=f"stage_{stage}_block_{i}",
                )(grid, None if everything_real else real, train)
        grid = LayerNorm(1e-5, dtype=self.dtype, name="norm")(grid)
        tokens, token_mask = unfold(grid, ratio), unfold(real[..., None], ratio)[..., 0]
        return make_features(tokens, token_mask, mean_pool(tokens, token_mask))

    def _patches(self, width):
        return nn.Conv(
            width,
            (self.patch_size, self.patch_size),
            strides=self.patch_stride,
            padding=(self.patch_size - self.patch_stride) // 2,
            dtype=self.dtype,
            name="patch",
        )

    def _check_sizes(self, length: int, bins: int) -> tuple[ClapAudioSize, int]:
        """The size, and r: how many pieces of time stand above each other."""
        size = self.size
        ratio, rest = divmod(self.spec_size, bins)
        if rest:
            raise ConfigError(f"spec_size: got {self.spec_size}, expected a multiple of the {bins} mel bins")
        if self.frames > self.spec_size * ratio:
            raise ConfigError(
                f"frames: got {self.frames}, expected at most {self.spec_size * ratio}, which is what the "
                f"image of spec_size {self.spec_size} holds of {bins} mel bins"
            )
        if length > self.frames:
            raise ConfigError(
                f"clap_audio: got {length} frames, expected at most {self.frames} (frames); cut the sound, "
                "with the transform 'random_crop_frames' or 'center_crop_frames'"
            )
        overlap = self.patch_size - self.patch_stride
        if overlap < 0 or overlap % 2:
            raise ConfigError(
                f"patch_size: got {self.patch_size}, expected patch_stride, {self.patch_stride}, "
                "or an even number more"
            )
        merges = 2 ** (len(size.depths) - 1)
        smallest = self.patch_stride * merges * self.window
        if self.spec_size % smallest:
            raise ConfigError(
                f"spec_size: got {self.spec_size}, expected a multiple of {smallest}, so that the last grid "
                f"divides into windows of {self.window} x {self.window}"
            )
        if self.spec_size // (self.patch_stride * merges) % ratio:
            raise ConfigError(
                f"spec_size: got {self.spec_size}, expected rows of the last grid that divide by the "
                f"{ratio} pieces of time"
            )
        return size, ratio

    @property
    def size(self) -> ClapAudioSize:
        """Channels of a patch, depths and heads."""
        given = {"width": self.width, "depths": self.depths, "heads": self.heads}
        given = {key: value for key, value in given.items() if value is not None}
        if self.variant == "custom":
            lacking = [key for key in ("width", "depths", "heads") if key not in given]
            if lacking:
                raise ConfigError(f"{lacking[0]}: is missing; variant 'custom' needs width, depths and heads")
            size = ClapAudioSize(**given)
        else:
            size = dataclasses.replace(SIZES[self.variant], **given)
        if len(size.depths) != len(size.heads):
            raise ConfigError(
                f"depths: got {len(size.depths)} stages, expected as many as heads, {len(size.heads)}"
            )
        if min(size.depths, default=0) < 1:
            raise ConfigError(f"depths: got {list(size.depths)}, expected at least one block in each stage")
        return size


def stretch(x: Float[Array, "B T C"], length: int) -> Float[Array, "B {length} C"]:
    """Frames interpolated to `length`, the first on the first and the last on the last.

    Cubic convolution (Keys 1981, IEEE TASSP 29(6)) with coefficient -0.75; beyond the ends the first and
    the last frame go on.
    """
    old = x.shape[1]
    if old == length:
        return x
    position = np.arange(length) * (old - 1) / max(length - 1, 1)
    start = np.floor(position).astype(int)
    total = 0.0
    for tap in range(-1, 3):
        weight = _cubic(np.abs(position - start - tap)).astype(np.float32)
        total = total + x[:, np.clip(start + tap, 0, old - 1)] * jnp.asarray(weight, x.dtype)[:, None]
    return total


def _cubic(d: np.ndarray) -> np.ndarray:
    a = -0.75
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, far)


def nearest(old: int, length: int) -> np.ndarray:
    """For each frame that `stretch` makes of `old` ones, the frame it lies nearest to."""
    return np.round(np.arange(length) * (old - 1) / max(length - 1, 1)).astype(int)


def fold(x: Float[Array, "B T C"], pieces: int) -> Float[Array, "B rows columns"]:
    """`pieces` stretches of time above each other; in each, a row is a mel bin and a column a frame."""
    batch, length, bins = x.shape
    x = x.reshape(batch, pieces, length // pieces, bins).swapaxes(2, 3)
    return x.reshape(batch, pieces * bins, length // pieces)


def unfold(grid, pieces):
    """[B, rows, columns, D] to [B, L, D]: moment by moment, its frequencies from low to high."""
    batch, rows, columns, width = grid.shape
    grid = grid.reshape(batch, pieces, rows // pieces, columns, width).swapaxes(2, 3)
    return grid.reshape(batch, rows * columns, width)
