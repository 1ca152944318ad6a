"""Mean squared error of a prediction."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.errors import ConfigError
from mmjax.objectives.objective import MeanObjective, Metrics, count, presence, valid_rows
from mmjax.types import Batch, Outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanSquaredError(MeanObjective):
    """loss = mean over all elements that count of (prediction - target)^2.

    Rows that only pad the batch, lack one of `streams`, or (where the batch has
    '<target>_present') lack the target do not count; where the batch has '<target>_mask' `[B, L]`,
    neither do the positions it hides. NaN in a target marks a missing value.

    Metrics: none besides the loss.

    Attributes:
      prediction: output of the shape of the target, or with one more axis of size 1 at its end.
      target: batch entry, a stream such as 'image' or a label such as 'rating'.
      streams: streams that a row must have to count.
    """

    prediction: str
    target: str
    streams: list[str] = dataclasses.field(default_factory=list)

    def reads(self) -> tuple[str, ...]:
        return (self.prediction,)

    def targets(self) -> tuple[str, ...]:
        return (self.target, *presence(self.streams))

    def terms(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, ""], Float[Array, ""], Metrics]:
        prediction, target = outputs[self.prediction], batch[self.target]
        if prediction.shape == (*target.shape, 1):
            prediction = prediction[..., 0]
        if prediction.shape != target.shape:
            raise ConfigError(
                f"mse: the prediction '{self.prediction}' has shape {tuple(prediction.shape)}, the target "
                f"'{self.target}' {tuple(target.shape)}; expected the same, change the head"
            )
        valid = _leading(valid_rows(batch, self.streams), target)
        for companion in (f"{self.target}_present", f"{self.target}_mask"):
            if companion in batch:
                valid = valid & _leading(batch[companion], target)
        target = target.astype(jnp.float32)
        valid = jnp.broadcast_to(valid, target.shape) & ~jnp.isnan(target)
        # The inner choice keeps a NaN out of the square's gradient, which the outer one would not.
        difference = jnp.where(valid, prediction.astype(jnp.float32) - jnp.where(valid, target, 0.0), 0.0)
        return jnp.square(difference).sum(), count(valid), {}


def _leading(mask, target):
    """`mask` with as many axes as `target`, broadcast over the trailing ones."""
    return mask.reshape(mask.shape + (1,) * (target.ndim - mask.ndim))
