"""Fusions: how the features of several streams become one.

`(features: dict[str, Features], *, train) -> Features`; what they all share is in
`mmjax.fusion.common`. Averaging decisions instead of features is a head, `late_classifier`.
"""

from mmjax.fusion.bilinear import Bilinear
from mmjax.fusion.co_attention import CoAttention
from mmjax.fusion.concat import Concat
from mmjax.fusion.cross_attention import CrossAttention
from mmjax.fusion.film import FiLM
from mmjax.fusion.gated import Gated
from mmjax.fusion.low_rank import LowRank
from mmjax.fusion.merged_attention import MergedAttention
from mmjax.fusion.perceiver_resampler import PerceiverResampler
from mmjax.fusion.q_former import QFormer
from mmjax.fusion.tensor import Tensor

FUSIONS = {
    "bilinear": Bilinear,
    "co_attention": CoAttention,
    "concat": Concat,
    "cross_attention": CrossAttention,
    "film": FiLM,
    "gated": Gated,
    "low_rank": LowRank,
    "merged_attention": MergedAttention,
    "perceiver_resampler": PerceiverResampler,
    "q_former": QFormer,
    "tensor": Tensor,
}
