"""What the pairwise contrastive objectives share: their fields, and rows against columns.

The functions work on any block of rows against any block of columns, so that a loss may be computed
from a whole `[B, B]` matrix or piece by piece.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import ConfigError
from mmjax.objectives.objective import Metrics, Objective, count, presence, valid_rows
from mmjax.types import Batch, Outputs


class Embeddings(NamedTuple):
    """Two streams of a batch, ready to be contrasted; what its rows hold is float32.

    Attributes:
      a, b: `[B, D]`, zeros in the rows that do not count.
      valid: bool `[B]`, the rows that count.
      ids: int `[B]`, rows that share one belong together; None where only partners do.
      scale: factor of the similarities, a scalar.
    """

    a: jax.Array
    b: jax.Array
    valid: jax.Array
    ids: jax.Array | None
    scale: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrastive(Objective):
    """Base of the objectives that contrast the embeddings of two streams.

    Rows that only pad the batch, or lack one of `streams`, are neither anchors nor negatives.

    Attributes:
      a, b: outputs `[B, D]`, embeddings of length one.
      streams: the streams that the embeddings come from; a row counts when all are present.
      scale: scalar output that multiplies the similarities (already exponentiated and clamped by
        its head); empty uses 1 / `temperature`.
      temperature: fixed temperature where `scale` is empty.
      positives: integer batch label `[B]`; rows that share it belong together, -1 is shared with
        none. Empty: only partners do.
    """

    a: str
    b: str
    streams: list[str]
    scale: str = ""
    temperature: float = 0.07
    positives: str = ""

    def __post_init__(self):
        if self.temperature <= 0:
            raise ConfigError(f"objectives: got temperature {self.temperature}, expected a number above 0")

    def reads(self) -> tuple[str, ...]:
        return (self.a, self.b, self.scale) if self.scale else (self.a, self.b)

    def targets(self) -> tuple[str, ...]:
        return presence(self.streams) + ((self.positives,) if self.positives else ())

    def embeddings(self, outputs: Outputs, batch: Batch) -> Embeddings:
        """What is contrasted."""
        valid = valid_rows(batch, self.streams)
        return Embeddings(
            a=without_padding(outputs[self.a], valid),
            b=without_padding(outputs[self.b], valid),
            valid=valid,
            ids=batch[self.positives] if self.positives else None,
            scale=scalar(outputs, self.scale) if self.scale else jnp.float32(1.0 / self.temperature),
        )


def similarities(rows: Float[Array, "R D"], columns: Float[Array, "S D"]) -> Float[Array, "R S"]:
    """Dot products in full float32.

    Accelerators round the inputs of a float32 product (to bfloat16 on a TPU, TF32 on a GPU) unless
    told otherwise. A scale of 100 would turn that into an error of several tenths of a logit.
    """
    return jnp.einsum("rd,sd->rs", rows, columns, precision=jax.lax.Precision.HIGHEST)


def positive_pairs(
    valid_rows: Bool[Array, " R"],
    valid_columns: Bool[Array, " S"],
    row_ids: Int[Array, " R"] | None = None,
    column_ids: Int[Array, " S"] | None = None,
    offset: int | Int[Array, ""] = 0,
) -> Bool[Array, "R S"]:
    """Which pairs belong together: row r with its own partner, and with all of the same id.

    Args:
      valid_rows, valid_columns: what counts; nothing else is in any pair.
      row_ids, column_ids: ids; a negative one is unknown and equals no other. None: no ids.
      offset: the column that is the partner of row 0.
    """
    partner = jnp.arange(valid_rows.shape[0]) + offset
    positive = partner[:, None] == jnp.arange(valid_columns.shape[0])[None, :]
    if row_ids is not None:
        positive |= (row_ids[:, None] == column_ids[None, :]) & (row_ids >= 0)[:, None]
    return positive & valid_rows[:, None] & valid_columns[None, :]


def best_is_positive(
    logits: Float[Array, "R S"], positive: Bool[Array, "R S"], valid_columns: Bool[Array, " S"]
) -> Bool[Array, " R"]:
    """Whether the highest of the valid columns (the first of equals) is a positive of its row."""
    best = jnp.where(valid_columns[None, :], logits, -jnp.inf).argmax(axis=1)
    return jnp.take_along_axis(positive, best[:, None], axis=1)[:, 0]


def pair_metrics(logits: Float[Array, "B B"], positive: Bool[Array, "B B"], pairs: Embeddings) -> Metrics:
    """`a_to_b_accuracy`, `b_to_a_accuracy` and `scale`."""
    rows = count(pairs.valid)
    return {
        "a_to_b_accuracy": (count(best_is_positive(logits, positive, pairs.valid)), rows),
        "b_to_a_accuracy": (count(best_is_positive(logits.T, positive.T, pairs.valid)), rows),
        "scale": (pairs.scale, jnp.float32(1.0)),
    }


def scalar(outputs: Outputs, name: str) -> Float[Array, ""]:
    """The output `name` as a float32 scalar.

    Raises:
      ConfigError: when it has more than one element.
    """
    value = outputs[name]
    if value.size != 1:
        raise ConfigError(
            f"objectives: the output '{name}' has shape {tuple(value.shape)}, expected one number; "
            "name a head such as 'learned_scale'"
        )
    return value.reshape(()).astype(jnp.float32)


def without_padding(values: Float[Array, "B D"], valid: Bool[Array, " B"]) -> Float[Array, "B D"]:
    """`values` in float32, with zeros in the rows that do not count, whatever stood there."""
    return jnp.where(valid[:, None], values.astype(jnp.float32), 0.0)
