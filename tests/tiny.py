"""A data set of coloured squares with captions, and a small model of both: runs of a second or two."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict
from PIL import Image

from mmjax import components, schema
from mmjax.config import check
from mmjax.parallel.mesh import make_mesh
from mmjax.parallel.placement import named_leaves
from mmjax.training.checkpoint_files import complete_steps, verify
from mmjax.training.setup import Setup, fill_sizes, load_data, set_up

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220), "grey": (120, 120, 120)}
SIZE = 8
# What may differ between equal runs.
TIMINGS = ("seconds", "train/examples_per_second", "train/mfu", "train/waiting_for_data")


def write_data(folder: pathlib.Path, train: int = 36, test: int = 10) -> pathlib.Path:
    """Images with a caption, a class, a number and a group each, and a manifest of them; its path."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(train + test):
        colour = list(COLOURS)[i % len(COLOURS)]
        pixels = np.full((SIZE, SIZE, 3), COLOURS[colour]) + rng.integers(-30, 30, (SIZE, SIZE, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")
        rows.append(
            {
                "image": f"{i:02d}.png",
                "text": f"a {colour} square, number {i}",
                "colour": colour,
                "brightness": float(pixels.mean() / 255),
                "series": f"series {i // 6}",
                "split": "train" if i < train else "test",
            }
        )
    manifest = folder / "rows.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def plain_config(manifest: pathlib.Path, data_dir: pathlib.Path) -> dict[str, Any]:
    """Every kind of randomness and state: augmentation, stream dropout, dropout, BatchNorm, EMA."""
    data = {"type": "manifest", "path": str(manifest), "labels": ["colour"], "numbers": ["brightness"]}
    normalise = {"type": "normalise", "mean": [0.5], "std": [0.25]}
    text = [{"type": "tokenize", "max_length": 8}, {"type": "pad", "length": 8}]
    return {
        "seed": 3,
        "batch_size": 8,
        "total_steps": 9,
        "data": {
            "dir": str(data_dir),
            "train": data,
            "eval": {"test": {"dataset": {**data, "split": "test"}}},
            "streams": {
                "image": {
                    "features": ["image"],
                    "train": [{"type": "decode_image"}, {"type": "random_flip"}, normalise],
                    "eval": [{"type": "decode_image"}, normalise],
                },
                "text": {"features": ["text"], "train": text, "eval": text, "drop_rate": 0.1},
            },
            "labels": {"colour": "colour", "brightness": "brightness"},
            "tokenizers": {"default": {"type": "wordpiece", "features": ["text"], "vocab_size": 60}},
        },
        "model": {
            "streams": {
                "image": {"kind": "image", "encoder": {"type": "cnn", "widths": [8, 16], "norm": "batch"}},
                "text": {
                    "kind": "text",
                    "encoder": {
                        "type": "text_transformer",
                        "variant": "custom",
                        "width": 16,
                        "depth": 1,
                        "heads": 2,
                        "max_length": 8,
                        "dropout": 0.1,
                    },
                },
            },
            "fusion": {"type": "co_attention", "width": 16, "depth": 1, "heads": 2},
            "heads": {
                "image_embedding": {"type": "projection", "reads": "image", "width": 8},
                "text_embedding": {"type": "projection", "reads": "text", "width": 8},
                "scale": {"type": "learned_scale"},
                "colour_logits": {"type": "classifier", "label": "colour"},
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
            "colour": {"type": "cross_entropy", "logits": "colour_logits", "label": "colour"},
        },
        "optimizer": {
            "method": {"type": "adamw"},
            "schedule": {"type": "cosine", "peak": 3e-3, "warmup_steps": 2},
            "ema": 0.5,
        },
        "checkpoint": {"every_steps": 3},
        "log": {"every_steps": 4, "tensorboard": False},
        "evals": {
            "colour": {
                "type": "classification",
                "data": "test",
                "head": "colour_logits",
                "label": "colour",
                "every_steps": 5,
                "bootstrap_samples": 0,
            },
            "retrieval": {
                "type": "retrieval",
                "data": "test",
                "a": "image_embedding",
                "b": "text_embedding",
                "a_name": "image",
                "b_name": "text",
                "streams": ["image", "text"],
                "gallery_queries": 0,
            },
        },
    }


def without_fusion(plain: dict[str, Any]) -> dict[str, Any]:
    """The classifier reads the image alone: half the parameters, half the time to compile."""
    plain = copy.deepcopy(plain)
    plain["model"]["fusion"] = None
    plain["model"]["heads"]["colour_logits"]["reads"] = "image"
    return plain


def without_chance(plain: dict[str, Any]) -> dict[str, Any]:
    """Nothing is random, and no example sees another (but in the loss)."""
    plain = copy.deepcopy(plain)
    streams, encoders = plain["data"]["streams"], plain["model"]["streams"]
    streams["image"]["train"] = streams["image"]["eval"]
    streams["text"]["drop_rate"] = 0.0
    encoders["image"]["encoder"]["norm"] = "group"
    encoders["text"]["encoder"]["dropout"] = 0.0
    return plain


def resolved(plain: dict[str, Any], **changes: Any) -> ConfigDict:
    """The checked config, with dotted keys written as `optimizer__ema=0.0`."""
    plain = copy.deepcopy(plain)
    for key, value in changes.items():
        *parents, last = key.split("__")
        section = plain
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return check(components.normalise(plain, schema.Config, ""))


@contextlib.contextmanager
def on_devices(count: int) -> Iterator[None]:
    """Inside, runs use the first `count` devices; one compiles in half the time of eight."""
    with pytest.MonkeyPatch.context() as patch:
        mesh = functools.partial(make_mesh, devices=jax.devices()[:count])
        patch.setattr("mmjax.training.setup.make_mesh", mesh)
        yield


def make_setup(config: ConfigDict) -> Setup:
    """What `mmjax.training.loop.train` begins with."""
    data = load_data(config, None)
    return set_up(fill_sizes(config, data), data)


def saved(workdir: pathlib.Path, step: int | None = None) -> tuple[int, dict[str, np.ndarray]]:
    """(step, path -> array) of all that a checkpoint holds, by default the newest."""
    directory = (workdir / "checkpoints").absolute()
    step = complete_steps(directory)[-1] if step is None else step
    verify(directory, step)
    items = ("params", "model_state", "ema", "training")
    handlers = {name: ocp.StandardCheckpointHandler() for name in items}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers)) as checkpointer:
        there = checkpointer.metadata(directory / str(step)).item_metadata
        wanted = {
            name: jax.tree.map(lambda x: np.empty(x.shape, x.dtype), there[name].tree)
            for name in items
            if there.get(name) is not None
        }
        args = {name: ocp.args.StandardRestore(tree) for name, tree in wanted.items()}
        found = checkpointer.restore(directory / str(step), ocp.args.Composite(**args))
    return step, {name: leaf for item in wanted for name, leaf in named_leaves({item: found[item]})}


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Paths of the arrays that do not have the same bits in both."""
    assert one.keys() == other.keys()
    return [name for name in one if one[name].tobytes() != other[name].tobytes()]


def metrics_lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without timings."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMINGS} for line in lines]


def flip_a_bit(path: pathlib.Path) -> None:
    """In the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest_file(folder: pathlib.Path) -> pathlib.Path:
    """Of all files below a directory."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
