"""Images and texts from files to batches, beside a PyTorch DataLoader that reads the same files."""

from __future__ import annotations

import json
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from mmjax import config as config_lib
from mmjax.bench import torch_files
from mmjax.bench.timing import Settings, markdown, ratio_text, summary
from mmjax.data import loading
from mmjax.data.pipeline import TrainPipeline

OURS, THEIRS = "mmjax", "DataLoader"
BATCH, FILES, SIDE, SIZE, LENGTH = 64, 512, 320, 224, 32
WORKERS = (0, 2)
_BATCHES = 8  # of one timing
_WORDS = ("red", "small", "old", "dog", "house", "tree", "under", "beside", "a", "the", "blue", "river")
_CONFIG = str(pathlib.Path(__file__).parents[2] / "configs" / "clip.py")


def measure(settings: Settings) -> dict[str, Any]:
    """Examples per second of both, by number of worker processes.

    Each example is a JPEG file that is decoded, cropped at random, resized to 224 pixels and normalised,
    and a caption that is tokenized: the same transforms, with Pillow and tokenizers on both sides.

    Raises:
      MmjaxError: PyTorch is not installed.
    """
    batch = settings.batch or BATCH
    result: dict[str, Any] = {"batch": batch, "files": FILES, "workers": {}}
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_files(pathlib.Path(folder))
        for workers in WORKERS:
            logging.info("pipeline with %d workers", workers)
            result["workers"][str(workers)] = _measure(manifest, batch, workers, settings.rounds)
    return result


def table(result: Mapping[str, Any]) -> str:
    """What `measure` found, in words and a table."""
    rows = []
    for workers, found in result["workers"].items():
        rate = result["batch"] / found[OURS]["seconds"]
        rows.append([workers, f"{rate:.0f}", ratio_text(found[THEIRS])])
    head = ["worker processes", "examples/s", "time relative to a PyTorch DataLoader"]
    return (
        f"{result['files']} JPEG files of {SIDE} x {SIDE} pixels with captions to batches of "
        f"{result['batch']}: decoded, cropped, resized to {SIZE}, normalised; tokenized.\n\n"
        f"{markdown(head, rows)}"
    )


def write_files(folder: pathlib.Path) -> pathlib.Path:
    """Smooth random pictures with random captions, and their manifest, which is returned."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(FILES):
        coarse = Image.fromarray(rng.integers(0, 255, (10, 10, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
        text = " ".join(rng.choice(_WORDS, 8))
        rows.append({"image": f"{i}.jpg", "text": text, "split": "test" if i == 0 else "train"})
    manifest = folder / "rows.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def _measure(manifest: pathlib.Path, batch: int, workers: int, rounds: int) -> dict[str, Any]:
    overrides = {
        "batch_size": str(batch),
        "data.num_workers": str(workers),
        "data.dir": str(manifest.parent / "prepared"),
    }
    config = config_lib.resolve(f"{_CONFIG}:data={manifest}", overrides)
    chain = config_lib.to_dict(config)["data"]["streams"]["image"]["train"]
    for transform in chain:
        if transform["type"] == "random_resized_crop":
            transform["size"] = SIZE
    data = config_lib.to_dict(config)["data"]
    data["streams"]["image"]["train"] = chain
    loading.prepare(data)
    loaded = loading.load(data)
    pipeline = TrainPipeline(loaded.train, data, batch_size=batch, seed=0, tokenizers=loaded.tokenizers)
    theirs = torch_files.loader(
        manifest, data["streams"], loaded.tokenizers["default"], batch_size=batch, workers=workers
    )
    ours = pipeline.batches()
    try:
        return summary(_take_turns({OURS: ours, THEIRS: theirs}, rounds), OURS)
    finally:
        ours.close()
        theirs.close()


def _take_turns(batches: Mapping[str, Iterator[Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of a batch in each round, after the first batches, with which workers start.

    Workers read ahead, also while it is the other's turn, so each turn first takes what is ready.
    """
    seconds: dict[str, list[float]] = {name: [] for name in batches}
    for iterator in batches.values():
        next(iterator)
    for _ in range(rounds):
        for name, iterator in batches.items():
            for _ in range(_BATCHES):
                next(iterator)
            began = time.perf_counter()
            for _ in range(_BATCHES):
                next(iterator)
            seconds[name].append((time.perf_counter() - began) / _BATCHES)
    return seconds
