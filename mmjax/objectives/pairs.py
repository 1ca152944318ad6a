"""What the pairwise contrastive objectives share: their fields, and rows against columns.

The functions work on any block of rows against any block of columns, so that a loss may be computed
from a whole `[B, B]` matrix or piece by piece.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import ConfigError
from mmjax.objectives.objective import Metrics, Objective, count, presence, valid_rows
from mmjax.parallel.collectives import batch_is_split, map_chunks, rows_against_all
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
      chunk_size: how many of its rows a device compares at a time with all of the batch, see `by_rows`: the
        same loss and gradient with less memory and more arithmetic. 0 compares all at once.
    """

    a: str
    b: str
    streams: list[str]
    scale: str = ""
    temperature: float = 0.07
    positives: str = ""
    chunk_size: int = 0

    def __post_init__(self):
        if self.temperature <= 0:
            raise ConfigError(f"objectives: got temperature {self.temperature}, expected a number above 0")
        if self.chunk_size < 0:
            raise ConfigError(
                f"objectives: got chunk_size {self.chunk_size}, expected 1 row or more, or 0 for all at once"
            )

    def reads(self) -> tuple[str, ...]:
        return (self.a, self.b, self.scale) if self.scale else (self.a, self.b)

    def by_device(self) -> bool:
        """Whether each device takes its own rows, see `by_rows`.

        Of the whole matrix over many devices the compiler for TPUs makes more exchanges of arrays
        [B, D] than the two gathers and one sum that are needed: seven for a sigmoid loss over 2,048.
        """
        return self.chunk_size > 0 or batch_is_split()

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
    row_numbers: Int[Array, " R"] | None = None,
) -> Bool[Array, "R S"]:
    """Which pairs belong together: row r with its own partner, and with all of the same id.

    Args:
      valid_rows, valid_columns: what counts; nothing else is in any pair.
      row_ids, column_ids: ids; a negative one is unknown and equals no other. None: no ids.
      row_numbers: the column that is the partner of each row; None: row r has column r.
    """
    partner = jnp.arange(valid_rows.shape[0]) if row_numbers is None else row_numbers
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


def pair_metrics(a_to_b: Bool[Array, " B"], b_to_a: Bool[Array, " B"], pairs: Embeddings) -> Metrics:
    """`a_to_b_accuracy`, `b_to_a_accuracy` (from `best_is_positive` of each row) and `scale`."""
    rows = count(pairs.valid)
    return {
        "a_to_b_accuracy": (count(a_to_b), rows),
        "b_to_a_accuracy": (count(b_to_a), rows),
        "scale": (pairs.scale, jnp.float32(1.0)),
    }


class _Side(NamedTuple):
    """Rows of one stream: embeddings `[R, D]`, which count `[R]`, ids `[R]`."""

    embeddings: jax.Array
    valid: jax.Array
    ids: jax.Array | None


def by_rows(
    function: Callable[[jax.Array, jax.Array, jax.Array], Any],
    anchors: Float[Array, "B D"],
    others: Float[Array, "B D"],
    pairs: Embeddings,
    chunk_size: int,
    bias: Float[Array, ""] | float = 0.0,
) -> Any:
    """`function(logits, positive, valid_columns)` of whole rows, on each device of its own.

    Each device compares its own anchors with all others of the batch, which it gathers once. With a
    `chunk_size` it takes so many anchors at a time, and does so again in the backward pass: beside the
    gathered `[B, D]` others it keeps matrices `[chunk_size, B]`, where the whole ones are
    `[B / devices, B]`. Since a row stands whole in its chunk, `function` is the same as for the whole
    matrix; nothing is carried from chunk to chunk.

    Args:
      function: gives a tree of arrays `[R]` from logits `[R, B]`, positive pairs `[R, B]` and which
        columns count `[B]`; each from its own row. It must not close over traced arrays.
      anchors, others: `pairs.a` and `pairs.b`, or the reverse.
      pairs: the rest of what is contrasted.
      chunk_size: anchors at a time, see `mmjax.parallel.collectives.map_chunks`; 0 takes all that the
        device has.
      bias: is added to the logits.

    Returns:
      A tree of arrays `[B]`.
    """

    def on_device(rows: tuple[jax.Array, _Side], columns: _Side, shared: tuple[jax.Array, jax.Array]):
        scale, bias = shared

        def chunk(part: tuple[jax.Array, _Side]):
            numbers, side = part
            logits = scale * similarities(side.embeddings, columns.embeddings) + bias
            positive = positive_pairs(side.valid, columns.valid, side.ids, columns.ids, numbers)
            return function(logits, positive, columns.valid)

        return map_chunks(chunk, rows, chunk_size) if chunk_size else chunk(rows)

    rows = (jnp.arange(anchors.shape[0]), _Side(anchors, pairs.valid, pairs.ids))
    columns = _Side(others, pairs.valid, pairs.ids)
    return rows_against_all(on_device, rows, columns, (pairs.scale, jnp.float32(bias)))


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
