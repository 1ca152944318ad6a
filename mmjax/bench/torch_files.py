"""A PyTorch DataLoader over a manifest of images and captions, as one would write it by hand."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from mmjax.bench.torch_clip import import_torch
from mmjax.data.tokenizers import Tokenizer


class Files:
    """Map-style data set: decode, random resized crop (bicubic, Pillow), normalise; tokenize, pad.

    Args:
      manifest: rows with `image`, `text` and `split`, of which 'train' is read.
      crop: 'size', 'scale' and 'ratio' of the crop.
      normalise: 'mean' and 'std'.
      tokenizer: of the captions.
      length: tokens of a caption.
    """

    def __init__(
        self,
        manifest: pathlib.Path,
        crop: Mapping[str, Any],
        normalise: Mapping[str, Any],
        tokenizer: Tokenizer,
        length: int,
    ):
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        self._rows = [row for row in rows if row["split"] == "train"]
        self._folder, self._crop = manifest.parent, crop
        self._mean, self._std = (np.float32(normalise[key]) for key in ("mean", "std"))
        self._tokenizer, self._length = tokenizer, length

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = self._rows[index]
        with Image.open(self._folder / row["image"]) as file:
            image = file.convert("RGB")
        size = self._crop["size"]
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=self._box(*image.size))
        pixels = (np.asarray(image, np.float32) / 255 - self._mean) / self._std
        tokens = np.full(self._length, self._tokenizer.pad_id, np.int32)
        ids = self._tokenizer.encode(row["text"])[: self._length]
        tokens[: len(ids)] = ids
        return {"image": pixels, "text": tokens}

    def _box(self, width, height):
        rng = np.random.default_rng()
        area = width * height * rng.uniform(*self._crop["scale"])
        ratio = math.exp(rng.uniform(*np.log(self._crop["ratio"])))
        w, h = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
        return left, top, left + w, top + h


class Endless:
    """The batches of a DataLoader, epoch after epoch; `close` ends its workers."""

    def __init__(self, loader: Any):
        self._loader, self._iterator = loader, iter(loader)

    def __iter__(self) -> Endless:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(self._loader)
            return next(self._iterator)

    def close(self) -> None:
        self._iterator = self._loader = None


def loader(
    manifest: pathlib.Path,
    streams: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    workers: int,
) -> Endless:
    """Endless shuffled batches.

    Args:
      manifest: see `Files`.
      streams: of our config, whose training transforms are made here too.
      tokenizer: of the captions.
      batch_size: examples in a batch.
      workers: processes; 0 does the work in this one.
    """
    torch = import_torch()
    chain = {step["type"]: step for name in ("image", "text") for step in streams[name]["train"]}
    files = Files(
        manifest,
        chain["random_resized_crop"],
        chain["normalise"],
        tokenizer,
        chain["tokenize"]["max_length"],
    )
    return Endless(
        torch.utils.data.DataLoader(
            files,
            batch_size=batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            # A forked process would share the locks of JAX's threads.
            multiprocessing_context="spawn" if workers else None,
        )
    )
