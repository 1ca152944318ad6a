"""A run directory made by hand."""

from __future__ import annotations

import pytest
from reports.run_files import CLASSES, EVIL, write_artifacts, write_history, write_json


@pytest.fixture
def config():
    return {
        "seed": 0,
        "batch_size": 128,
        "total_steps": 3000,
        "checkpoint": {"best_metric": "retrieval/text_to_image/R@10", "keep": 2},
        "model": {"streams": {"image": {"kind": "image"}}, "heads": {EVIL: {"type": "classifier"}}},
        "data": {"dir": "", "eval": {}, "streams": {"image": {"features": ["image"]}}},
    }


@pytest.fixture
def workdir(tmp_path, config):
    """A finished run."""
    folder = tmp_path / "emoji_co_attention"
    folder.mkdir()
    write_json(folder / "config.json", config)
    last = write_history(folder)
    metrics = {name: value for name, value in last.items() if not name.startswith("train/")}
    metrics = {name: v for name, v in metrics.items() if name not in ("step", "examples", "seconds")}
    for way in ("text_to_image", "image_to_text"):
        metrics |= {f"baseline/chance/retrieval/{way}/R@{k}": k / 400 for k in (1, 5, 10)}
        metrics |= {f"baseline/colour_histogram/retrieval/{way}/R@{k}": k / 90 for k in (1, 5, 10)}
        metrics[f"baseline/chance/retrieval/{way}/median_rank"] = 200
    metrics |= {"classification/digit/accuracy_low": 0.93, "classification/digit/accuracy_high": 0.95}
    metrics["baseline/majority/classification/digit/accuracy"] = 0.11
    write_json(
        folder / "result.json",
        {
            "metrics": metrics,
            "steps": 3000,
            "wall_seconds": 331.4,
            "examples_per_second": 1171.3,
            "parameters": 4_821_331,
            "devices": ["TFRT_CPU_0"],
            "versions": {"python": "3.11.2", "jax": "0.10.2", "flax": "0.12.8"},
            "git_revision": "a41340bc0ffe",
            "config": config,
        },
    )
    write_json(
        folder / "data.json",
        {
            "fingerprints": {"train": "ab" * 32, "test": "cd" * 32},
            "examples": {"train": 3200, "test": 400},
            "class_names": {"digit": [*CLASSES[:9], EVIL]},
        },
    )
    write_artifacts(folder)
    return folder
