"""Contrastive loss between fused views, and between these and views of one stream alone (CoMM)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.errors import ConfigError
from mmjax.objectives.nt_xent import check_temperature, nt_xent
from mmjax.objectives.objective import Metrics, Objective, count, presence, valid_rows
from mmjax.objectives.pairs import without_padding
from mmjax.types import Batch, Outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoMM(Objective):
    """Two augmented views of all streams, fused, agree with each other and with every stream alone.

    With Z' and Z'' the fused embeddings of two augmented views of an example, Z_i' and Z_i'' those of
    the same views where all streams but i are masked, and N the loss of `mmjax.objectives.nt_xent`:

        loss = N(Z', Z'') + sum_i 1/2 (N(Z_i', Z'') + N(Z_i'', Z'))

    The first term is to hold what streams share, what they have alone, and what only all of them tell
    together; the others what stream i and the whole have in common.

    Source: Dufumier et al. 2024, arXiv:2409.07402, section 3. As in the authors' code,
    embeddings are also repelled by those of their own side, and a masked view meets the full view of the
    other augmentation.

    Metrics: `full` (the first term), `alone` (the sum) and `accuracy` of the first term.

    Attributes:
      a, b: outputs `[B, D]`, the fused embeddings of the two views, of length one.
      a_alone, b_alone: outputs `[B, D]`, the same with one stream each, in the same order.
      streams: the streams that all of them come from; a row counts when all are present.
      temperature: of all terms.
    """

    a: str
    b: str
    a_alone: list[str]
    b_alone: list[str]
    streams: list[str]
    temperature: float = 0.1

    def __post_init__(self):
        check_temperature("comm", self.temperature)
        if not self.a_alone or len(self.a_alone) != len(self.b_alone):
            raise ConfigError(
                f"comm: got {len(self.a_alone)} outputs in a_alone and {len(self.b_alone)} in b_alone, "
                "expected as many in both, one for each stream"
            )

    def reads(self) -> tuple[str, ...]:
        return (self.a, self.b, *self.a_alone, *self.b_alone)

    def targets(self) -> tuple[str, ...]:
        return presence(self.streams)

    def __call__(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        valid = valid_rows(batch, self.streams)

        def contrast(a, b):
            rows = (without_padding(outputs[name], valid) for name in (a, b))
            return nt_xent(*rows, valid, self.temperature)

        full, hits = contrast(self.a, self.b)
        alone = jnp.float32(0.0)
        for a_alone, b_alone in zip(self.a_alone, self.b_alone, strict=True):
            alone = alone + 0.5 * (contrast(a_alone, self.b)[0] + contrast(b_alone, self.a)[0])
        one = jnp.float32(1.0)
        metrics = {"full": (full, one), "alone": (alone, one), "accuracy": (hits, 2 * count(valid))}
        return full + alone, metrics
