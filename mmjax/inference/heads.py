"""Which heads of a run embed and which predict, and what their predictions say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.errors import ConfigError
from mmjax.heads import entries

# Types of heads, as in `mmjax.heads.HEADS`.
EMBEDDINGS = ("projection",)
CLASSIFIERS = ("classifier", "late_classifier")
PREDICTIONS = (*CLASSIFIERS, "regressor")


def readable_heads(
    heads: Mapping[str, Mapping[str, Any]], types: Sequence[str], streams: Sequence[str]
) -> list[str]:
    """The heads of some types that read something of what is given.

    Args:
      heads: name -> config, of the model.
      types: of the heads.
      streams: that are given.

    Raises:
      ConfigError: the model has no head of these types, or none that reads any of the streams.
    """
    reads = {name: entries(head) for name, head in heads.items() if head["type"] in types}
    if not reads:
        raise ConfigError(f"the model has no head of type {' or '.join(types)}, which this needs")
    readable = [name for name, read in reads.items() if {*streams, "fused"} & set(read)]
    if not readable:
        shown = ", ".join(f"{name} (reads {' and '.join(read)})" for name, read in reads.items())
        raise ConfigError(f"nothing can be computed from {' and '.join(streams)} alone; there is: {shown}")
    return readable


def is_multi_label(head: str, objectives: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether an objective trains the classifier with several right labels at once."""
    return any(o.get("logits") == head and o.get("multi_label", False) for o in objectives.values())


def classes(
    logits: np.ndarray, names: Sequence[str] | None, top_k: int, *, several: bool
) -> list[dict[str, Any]]:
    """What a classifier says of each row, see `mmjax.inference.run.Run.predict`.

    Args:
      logits: `[n, N]`.
      names: of the N classes; None numbers them.
      top_k: how many of the most probable classes are listed.
      several: each class is a yes or no of its own (sigmoid), else they exclude each other (softmax).

    Raises:
      ConfigError: `top_k` is not 1 or more.
    """
    if top_k < 1:
        raise ConfigError(f"top_k: got {top_k}, expected 1 or more")
    logits = logits.astype(np.float64)
    names = names or [str(c) for c in range(logits.shape[1])]
    if several:
        probabilities = np.exp(-np.logaddexp(0.0, -logits))
    else:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
    found = []
    for row in probabilities:
        best = np.argsort(-row, kind="stable")[:top_k]
        top = [{"label": names[c], "probability": float(row[c])} for c in best]
        right = [names[c] for c in np.flatnonzero(row > 0.5)]
        found.append({"labels": right, "top_k": top} if several else {**top[0], "top_k": top})
    return found
