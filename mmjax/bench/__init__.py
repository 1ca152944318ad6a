"""Measured speed on the machine at hand, beside PyTorch: `./launch.sh bench`.

A benchmark is a module with `measure(settings) -> JSON` and `table(JSON) -> Markdown`, and a line in
`BENCHMARKS`. What is compared takes turns in one process, so that other work on the machine slows all
alike; `timing` says how the ratios are made.
"""

from __future__ import annotations

import importlib
from types import ModuleType

# name -> (module, what it measures)
BENCHMARKS = {
    "clip": ("mmjax.bench.clip", "CLIP ViT-B/32: train step and encoders, beside transformers, open_clip"),
    "pipeline": ("mmjax.bench.pipeline", "images and texts from files to batches, beside a DataLoader"),
    "losses": ("mmjax.bench.losses", "contrastive losses: memory and time by batch and chunk"),
    "checkpoints": ("mmjax.bench.checkpoints", "what saving a state costs a step, and restoring it"),
}


def load(name: str) -> ModuleType:
    """The module of a benchmark, which may take seconds to import."""
    return importlib.import_module(BENCHMARKS[name][0])
