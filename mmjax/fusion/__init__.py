"""Fusions: how the features of several streams become one.

`(features: dict[str, Features], *, train) -> Features`; what they all share is in
`mmjax.fusion.common`. Averaging decisions instead of features is a head, `late_classifier`.
"""

from mmjax.fusion.co_attention import CoAttention
from mmjax.fusion.concat import Concat
from mmjax.fusion.gated import Gated

FUSIONS = {
    "co_attention": CoAttention,
    "concat": Concat,
    "gated": Gated,
}
