"""What a case is, and what their batches and outputs have in common."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model to compare with.

    Attributes:
      model: theirs.
      batch: ours; streams under their names.
      outputs: their output -> our name -> array. Tokens are compared where the mask is True.
      arguments: further ones for their model.
      inputs: our batch -> their arguments, where it is another than `reference.their_inputs`.
      write: writes their model into a new directory, where that is not `save_pretrained`.
      atol: largest difference allowed, in float32.
    """

    model: Any
    batch: Mapping[str, np.ndarray]
    outputs: Callable[[Any], Mapping[str, Any]]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inputs: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] | None = None
    write: Callable[[Any, pathlib.Path], None] | None = None
    atol: float = 1e-5


def texts(length=7, end=49, count=3):
    """Ids below 50 in which `end` comes once per row, and a mask: rows of all lengths."""
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 49, (count, length)).astype(np.int32)
    lengths = np.maximum(length - 2 * np.arange(count), 2)
    ids[np.arange(count), lengths - 1] = end
    mask = np.arange(length) < lengths[:, None]
    return {"text": np.where(mask, ids, 1), "text_mask": mask}


def images(height=32, width=32):
    rng = np.random.default_rng(1)
    return {"image": rng.normal(size=(2, height, width, 3)).astype(np.float32)}


def tokens_and_pooled(stream, prefix=0):
    """Their tokens, without the first `prefix`, and their pooled vector."""
    return lambda out: {
        f"{stream}/tokens": out.last_hidden_state[:, prefix:],
        f"{stream}/pooled": out.pooler_output,
    }
