"""The values that travel between the rooms.

Shapes use one alphabet: `B` batch, `L` tokens, `T` time or frames, `D` width, `H` heads, `K` head
width, `F` MLP width, `V` vocabulary, `C` channels, `N` classes, `M` modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import flax.struct
import jax

# A stream stands under its name ('image' [B, height, width, C], 'text' [B, L], 'audio' [B, T, C], a
# waveform [B, T], 'video' [B, T, height, width, C]), with '<name>_mask' [B, L] where its length varies
# and '<name>_present' [B] always; labels stand under their own names; 'example_id' [B] names the
# example and 'example_mask' [B] is False on rows that only pad the last batch.
Batch: TypeAlias = Mapping[str, jax.Array]

# Named arrays that a model returns: '<entry>/tokens', '<entry>/mask', '<entry>/pooled' for each
# stream and for 'fused', and the output of each head under the head's name.
Outputs: TypeAlias = Mapping[str, jax.Array]


@flax.struct.dataclass
class Features:
    """What every encoder and fusion returns.

    Attributes:
      tokens: `[B, L, D]`, one vector per patch, word, frame.
      mask: bool `[B, L]`, True where a token is real. A missing modality has no True in its row.
      pooled: `[B, D]`, one vector per example; zeros where the row has no real token.
    """

    tokens: jax.Array
    mask: jax.Array
    pooled: jax.Array

    @property
    def present(self) -> jax.Array:
        """bool `[B]`: whether the example has any real token."""
        return self.mask.any(axis=1)
