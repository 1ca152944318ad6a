"""Layout, colours and edges of images: descriptors that need no learning, under a linear map."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.errors import ConfigError
from mmjax.types import Features


class ImageDescriptors(nn.Module):
    """Three classical descriptors of an image, each of the same length, side by side under a linear map.

    `layout` (the image made small), `colour_histogram` and `oriented_gradients`. A few thousand images are
    too few to learn filters from; these know already what matters in a drawing. No gradient reaches the
    image. `Features.tokens` are linear maps of the gradients and the mean colour of each cell, plus a
    learned position. The size of the images is fixed by the first batch.

    Attributes:
      width: D of the tokens and of the pooled vector.
      layout: rows and columns of the small image.
      bins: of the histogram, for each colour channel.
      cell: height and width in pixels of a cell whose gradients are counted.
      orientations: bins of a cell's gradients.
      length: of each descriptor, as a vector; with it grows the part of the image in the pooled vector.
      low, high: smallest and largest value of a pixel, after normalisation.
      dropout: rate on the tokens and on the pooled vector.
      dtype: what it computes in; the descriptors are float32.
    """

    width: int = 256
    layout: int = 16
    bins: int = 6
    cell: int = 8
    orientations: int = 8
    length: float = 10.0
    low: float = -1.0
    high: float = 1.0
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B height width C"],
        mask: Bool[Array, "#B #L"] | None = None,
        *,
        train: bool = False,
    ) -> Features:
        """Encodes images.

        Args:
          x: images, normalised to values from `low` to `high`; others count as the nearest of these.
          mask: [B, 1] which images are real.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is no batch of images, or its size no multiple of `layout` and `cell`.
        """
        check_rank("image_descriptors", x, "images [B, height, width, C]")
        self._check_size(*x.shape[1:3])
        x = x.astype(jnp.float32)
        x = jax.lax.stop_gradient(jnp.clip((x - self.low) / (self.high - self.low), 0.0, 1.0))
        batch, height, width, _ = x.shape

        edges = oriented_gradients(x.mean(axis=-1), self.cell, self.orientations)
        colours = cell_means(x, height // self.cell, width // self.cell)
        cells = jnp.concatenate([edges, colours], axis=-1).reshape(batch, -1, edges.shape[-1] + x.shape[-1])
        tokens = nn.Dense(self.width, dtype=self.dtype, name="cells")(cells)
        shape = (tokens.shape[1], self.width)
        tokens = tokens + self.param("positions", nn.initializers.normal(0.02), shape).astype(self.dtype)

        # On white as on black the background is the colour of most pixels; 1 - x makes white zero.
        small = 1.0 - cell_means(x, self.layout, self.layout)
        descriptors = [small, colour_histogram(x, self.bins), edges]
        whole = self.length * jnp.concatenate([unit(d.reshape(batch, -1)) for d in descriptors], axis=-1)
        pooled = nn.Dense(self.width, dtype=self.dtype, name="whole")(whole)

        tokens, pooled = (nn.Dropout(self.dropout, deterministic=not train)(y) for y in (tokens, pooled))
        return make_features(tokens, full_mask(mask, batch, tokens.shape[1]), pooled)

    def _check_size(self, height, width):
        for field in ("layout", "cell"):
            value = getattr(self, field)
            if height % value or width % value:
                raise ConfigError(
                    f"image_descriptors.{field}: got {value}, expected a divisor of height and width; the "
                    f"images are {height} x {width}"
                )


def cell_means(
    x: Float[Array, "B height width C"], rows: int, columns: int
) -> Float[Array, "B {rows} {columns} C"]:
    """Means over equal rectangles: the image made small."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, rows, height // rows, columns, width // columns, channels).mean(axis=(2, 4))


def colour_histogram(x: Float[Array, "B height width C"], bins: int) -> Float[Array, "B _"]:
    """Root of the share of pixels in each cell of the colour space, of values from 0 to 1.

    Histograms: Swain and Ballard 1991, 'Color indexing', section 2; the root makes the dot product the
    Bhattacharyya coefficient (Arandjelovic and Zisserman 2012, 'Three things', section 3).
    """
    batch, channels = x.shape[0], x.shape[-1]
    numbers = jnp.clip((x * bins).astype(jnp.int32), 0, bins - 1).reshape(batch, -1, channels)
    numbers = (numbers * bins ** jnp.arange(channels)).sum(axis=-1)
    counts = jnp.zeros((batch, bins**channels)).at[jnp.arange(batch)[:, None], numbers].add(1.0)
    return jnp.sqrt(counts / numbers.shape[1])


def oriented_gradients(
    grey: Float[Array, "B height width"], cell: int, orientations: int
) -> Float[Array, "B _ _ {orientations}"]:
    """Histograms of the directions of edges, one per cell (HOG, Dalal and Triggs 2005, section 6).

    Central differences; unsigned directions; each pixel votes with its magnitude for the two nearest
    bins. Normalised, unlike there, by the mean length over the image's cells, and its root taken.
    """
    batch, height, width = grey.shape
    across = jnp.pad(grey[:, :, 2:] - grey[:, :, :-2], ((0, 0), (0, 0), (1, 1)))
    down = jnp.pad(grey[:, 2:] - grey[:, :-2], ((0, 0), (1, 1), (0, 0)))
    angle = jnp.mod(jnp.arctan2(down, across), jnp.pi) * orientations / jnp.pi
    distance = jnp.abs(angle[..., None] - jnp.arange(orientations))
    votes = nn.relu(1.0 - jnp.minimum(distance, orientations - distance))
    votes = votes * jnp.hypot(across, down)[..., None]
    cells = cell_means(votes, height // cell, width // cell)
    length = jnp.linalg.norm(cells, axis=-1, keepdims=True).mean(axis=(1, 2), keepdims=True)
    return jnp.sqrt(cells / jnp.maximum(length, 1e-6))


def unit(x: Float[Array, "*axes D"]) -> Float[Array, "*axes D"]:
    """Each vector at length one; zeros stay."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
