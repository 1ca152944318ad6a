"""A run directory with a tiny model of images and texts, whose parameters are as they were initialised."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
from PIL import Image

from mmjax import components, schema
from mmjax.config import check
from mmjax.training import workdir as workdir_lib
from mmjax.training.checkpoints import Checkpoints
from mmjax.training.setup import fill_sizes, load_data, set_up
from mmjax.training.state import create_state

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}


def write_images(folder: pathlib.Path, count: int = 20) -> None:
    """Squares of one colour, a manifest of them with their names, and a text file nobody asked for."""
    folder.mkdir(parents=True)
    rows = []
    for i in range(count):
        colour = list(COLOURS)[i % 3]
        pixels = np.full((20, 24, 3), COLOURS[colour], np.uint8)
        pixels[2 : 4 + i % 10, 3:9] = 255
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        split = "test" if i >= count - 5 else "train"
        rows.append(
            {
                "image": f"{i:02d}.png",
                "text": f"a {colour} square",
                "colour": colour,
                "size": i / 10,
                "split": split,
            }
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "readme.md").write_text("not for the model")


def config(root: pathlib.Path):
    """Two streams, co-attention, and a head of every kind."""
    manifest = {
        "type": "manifest",
        "path": str(root / "images" / "rows.jsonl"),
        "labels": ["colour"],
        "numbers": ["size"],
    }
    image = [
        {"type": "decode_image"},
        {"type": "resize", "size": 16},
        {"type": "normalise", "mean": [0.5], "std": [0.25]},
    ]
    text = [{"type": "tokenize", "max_length": 6, "start": "cls"}, {"type": "pad", "length": 6}]
    small = {"variant": "custom", "width": 16, "depth": 1, "heads": 2}
    plain = {
        "data": {
            "dir": str(root / "data"),
            "train": manifest,
            "eval": {"test": {"dataset": {**manifest, "split": "test"}}},
            "streams": {
                "image": {"features": ["image"], "train": image, "eval": image},
                "text": {"features": ["text"], "train": text, "eval": text},
            },
            "labels": {"colour": "colour", "size": "size"},
            "tokenizers": {"default": {"type": "wordpiece", "features": ["text"], "vocab_size": 60}},
        },
        "model": {
            "streams": {
                "image": {"kind": "image", "encoder": {"type": "vit", "patch_size": 4, **small}},
                "text": {"kind": "text", "encoder": {"type": "text_transformer", "max_length": 6, **small}},
            },
            "fusion": {"type": "co_attention", "width": 16, "depth": 1, "heads": 2},
            "heads": {
                "image_embedding": {"type": "projection", "reads": "image", "width": 8},
                "text_embedding": {"type": "projection", "reads": "text", "width": 8},
                "scale": {"type": "learned_scale"},
                "hue": {"type": "classifier", "label": "colour"},
                "late": {"type": "late_classifier", "label": "colour", "reads": ["image", "text"]},
                "extent": {"type": "regressor", "reads": "image"},
            },
        },
        "objectives": {
            "contrastive": {
                "type": "infonce",
                "a": "image_embedding",
                "b": "text_embedding",
                "streams": ["image", "text"],
                "scale": "scale",
            },
        },
        "optimizer": {"method": {"type": "sgd"}, "schedule": {"type": "constant", "peak": 0.1}},
        "batch_size": 8,
        "total_steps": 2,
    }
    return check(components.normalise(plain, schema.Config, ""))


def save_run(workdir: pathlib.Path, resolved) -> None:
    """What training leaves of a run of `resolved` after step 2."""
    data = load_data(resolved, None)
    filled = fill_sizes(resolved, data)
    setup = set_up(filled, data)
    workdir_lib.write_inputs(workdir, filled, data.facts(), setup.pipeline.spec(), data.tokenizers)
    state = create_state(setup.model, setup.batch, setup.tx, setup.abstract, seed=0)
    checkpoints = Checkpoints(workdir / "checkpoints")
    # On one device: of arrays on several, the library compiles a slice for each.
    checkpoints.save(2, jax.device_put(state, jax.devices()[0]), {})
    checkpoints.close()
