"""Heads: what is read off the features. The output stands in `Outputs` under the head's name.

A head is a Linen module `(features: dict[str, Features], *, train) -> array`. Its config field
`reads` names the entry it reads: a stream, or 'fused'; `late_classifier` names several, and learned
scalars none. Where an example does not have that entry (the stream is missing) the row is what the
head makes of a vector of zeros, and means nothing: objectives and evaluators leave such rows out.
Embeddings (`projection`) are zeros there.
"""

from __future__ import annotations

from typing import Any

from mmjax.decoders.image import ImageDecoder
from mmjax.heads.classifier import Classifier, LateClassifier
from mmjax.heads.projection import Projection
from mmjax.heads.regressor import Regressor
from mmjax.heads.scalars import LearnedBias, LearnedScale
from mmjax.heads.token_logits import TokenLogits

HEADS = {
    "classifier": Classifier,
    "image_decoder": ImageDecoder,
    "late_classifier": LateClassifier,
    "learned_bias": LearnedBias,
    "learned_scale": LearnedScale,
    "projection": Projection,
    "regressor": Regressor,
    "token_logits": TokenLogits,
}


def entries(head: Any) -> list[str]:
    """The entries that a head reads; `head` is a module, or its config."""
    reads = head.get("reads", []) if hasattr(head, "get") else getattr(head, "reads", [])
    return [reads] if isinstance(reads, str) else list(reads)
