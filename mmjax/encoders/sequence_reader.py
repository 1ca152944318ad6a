"""An image read as a sequence: the convolutional network followed by a recurrent one of textbooks."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from mmjax.components import component
from mmjax.encoders.common import check_rank
from mmjax.types import Features


class SequenceReader(nn.Module):
    """The tokens of an image encoder, row by row, through a sequence encoder.

    Attributes:
      image: the image encoder.
      reader: an encoder of vectors [B, L, C], such as `rnn`.
    """

    image: component("encoders")
    reader: component("encoders")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B height width C"],
        mask: Bool[Array, "#B #L"] | None = None,
        *,
        train: bool = False,
    ) -> Features:
        """Encodes images; `mask` is that of the image encoder.

        Raises:
          ConfigError: where `x` is no batch of images.
        """
        check_rank("sequence_reader", x, "images [B, height, width, C]")
        seen = self.image(x, mask, train=train)
        return self.reader(seen.tokens, seen.mask, train=train)
