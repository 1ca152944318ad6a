"""How well a decoder rebuilds its input."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from mmjax.errors import ConfigError
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.evaluator import Evaluator, present


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction(Evaluator):
    """`reconstruction/<output>/mse`, the mean over all real elements of the squared difference.

    Positions that '<target>_mask' hides and rows without the target do not count.

    Artifact: `reconstruction`, some pairs of pictures where the target is an image; black and white
    are the lowest and highest value of the originals shown.

    Attributes:
      output: of the shape of the target.
      target: stream that is rebuilt.
      examples: pairs of pictures, evenly spaced over the data and so the same in every round.
    """

    output: str
    target: str
    examples: int = 8

    def needs(self) -> dict[str, set[str]]:
        return {self.data: {self.output, self.target, *present(self.target)}}

    def groups(self) -> tuple[str, ...]:
        return (f"reconstruction/{self.output}",)

    def evaluate(self, context: EvalContext) -> Iterator[tuple[str, float]]:
        rows = context.collect(self.data, [self.target])
        output, target = rows[self.output], rows[self.target]
        if output.shape != target.shape:
            raise ConfigError(
                f"reconstruction: the output '{self.output}' has shape {output.shape}, the target "
                f"'{self.target}' {target.shape}; expected the same"
            )
        squares = np.square(output.astype(np.float64) - target)
        real = np.ones(len(target), bool)
        if f"{self.target}_mask" in rows:
            real = rows[f"{self.target}_mask"]
        real = np.broadcast_to(real.reshape(real.shape + (1,) * (squares.ndim - real.ndim)), squares.shape)
        if target.ndim == 4 and target.shape[-1] in (1, 3) and self.examples and len(target):
            context.save(self.full_name(self.groups()[0]), self._pictures(rows))
        yield f"{self.groups()[0]}/mse", float(squares[real].mean()) if real.any() else float("nan")

    def _pictures(self, rows):
        chosen = np.unique(np.linspace(0, len(rows["example_id"]) - 1, self.examples).astype(int))
        originals, rebuilt = rows[self.target][chosen], rows[self.output][chosen]
        low, high = float(originals.min()), float(originals.max())
        return {
            "kind": "reconstruction",
            "data": self.data,
            "examples": [
                {
                    "example_id": rows["example_id"][row],
                    "original": _png(original, low, high),
                    "reconstruction": _png(reconstruction, low, high),
                }
                for row, original, reconstruction in zip(chosen, originals, rebuilt, strict=True)
            ],
        }


def _png(image: np.ndarray, low: float, high: float) -> str:
    """An image `[height, width, C]` as a base64 PNG, `low` being black and `high` white."""
    scaled = (image.astype(np.float64) - low) / max(high - low, 1e-12)
    pixels = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    stored = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stored, "PNG")
    return base64.b64encode(stored.getvalue()).decode()
