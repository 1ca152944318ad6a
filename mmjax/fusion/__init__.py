"""Fusions: how the features of several streams become one.

`(features: dict[str, Features], *, train) -> Features`; what they all share is in
`mmjax.fusion.common`. Two work inside the encoders, between their blocks (`bottleneck`,
`gated_cross_attention`, see `mmjax.fusion.stack`), and `modality_dropout` wraps another one. Averaging
decisions instead of features is a head, `late_classifier`.
"""

from mmjax.fusion.bilinear import Bilinear
from mmjax.fusion.bottleneck import Bottleneck
from mmjax.fusion.co_attention import CoAttention
from mmjax.fusion.concat import Concat
from mmjax.fusion.cross_attention import CrossAttention
from mmjax.fusion.film import FiLM
from mmjax.fusion.gated import Gated
from mmjax.fusion.gated_cross_attention import GatedCrossAttention
from mmjax.fusion.low_rank import LowRank
from mmjax.fusion.merged_attention import MergedAttention
from mmjax.fusion.modality_dropout import ModalityDropout
from mmjax.fusion.perceiver_resampler import PerceiverResampler
from mmjax.fusion.q_former import QFormer
from mmjax.fusion.relation import Relation
from mmjax.fusion.tensor import Tensor

FUSIONS = {
    "bilinear": Bilinear,
    "bottleneck": Bottleneck,
    "co_attention": CoAttention,
    "concat": Concat,
    "cross_attention": CrossAttention,
    "film": FiLM,
    "gated": Gated,
    "gated_cross_attention": GatedCrossAttention,
    "low_rank": LowRank,
    "merged_attention": MergedAttention,
    "modality_dropout": ModalityDropout,
    "perceiver_resampler": PerceiverResampler,
    "q_former": QFormer,
    "relation": Relation,
    "tensor": Tensor,
}
