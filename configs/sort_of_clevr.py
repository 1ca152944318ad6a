"""Sort-of-CLEVR: questions about relations between objects, and which fusion can answer them.

    ./launch.sh train --config=configs/sort_of_clevr.py:model=relation,input=states

A question is 11 bits, and what it is about is an image of six coloured objects, or (`input=states`) their
state description: place, colour and shape of each, in random order. Argument `model`:

  relation   a relation network over all pairs of objects, or of cells of the CNN's last grid
  mlp        everything concatenated, and an MLP of as many layers and units: the paper's CNN+MLP
  attention  the question looks at the objects or cells by cross-attention

Argument `size`: `full` has the widths, batch and learning rate of the paper (Santoro et al. 2017,
arXiv:1706.01427, supplement D) and wants an accelerator; `small` (the default) has narrow layers, a
larger learning rate and fewer epochs, for two cores. The CNN has four layers with stride 2 and batch
normalisation, which leave a grid of 5 x 5: of 24 channels as in the paper, or of 8, 16, 24 and 24.
"""

import dataclasses

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.errors import ConfigError

MODELS = ("relation", "mlp", "attention")
INPUTS = ("images", "states")
CELLS, OBJECTS = 25, 6


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths of the CNN, of g (`relation`) and of f, whose last layer is `width`; and how it is trained."""

    channels: list[int]
    relation: list[int]
    hidden: list[int]
    width: int
    depth: int
    heads: int
    learning_rate: float
    epochs: dict[str, float]


SIZES = {
    "full": Size([24] * 4, [2000] * 4, [2000, 1000, 500], 100, 4, 8, 1e-4, {"images": 20.0, "states": 20.0}),
    "small": Size([8, 16, 24, 24], [64] * 4, [64, 64], 64, 2, 4, 1e-3, {"images": 4.0, "states": 5.0}),
}


def get_config(arg: str = "") -> ConfigDict:
    args = config_lib.arguments(arg, model="relation", input="images", size="small")
    for name, known in (("model", MODELS), ("input", INPUTS), ("size", SIZES)):
        if args[name] not in known:
            raise ConfigError(f"argument {name}: got '{args[name]}', expected one of: {', '.join(known)}")
    size = SIZES[args.size]
    scene = _scene(args.input, args.model, size.channels)
    test = {"type": "classification", "head": "reply", "label": "answer", "data": "test"}
    groups = ("relational", "non_relational", "closest_or_furthest", "count")
    images = [
        {"type": "decode_image", "channels": 3},
        {"type": "normalise", "mean": [0.5], "std": [0.5]},
    ]
    return ConfigDict(
        {
            "batch_size": 64,
            "total_epochs": size.epochs[args.input],
            "data": {
                "train": {"type": "sort_of_clevr", "split": "train"},
                "eval": {"test": {"dataset": {"type": "sort_of_clevr", "split": "test"}}},
                "streams": {
                    "question": {"features": ["question"]},
                    "scene": {"features": ["image"], "train": images, "eval": images}
                    if args.input == "images"
                    else {"features": ["objects"]},
                },
                "labels": {name: name for name in ("answer", *groups)},
            },
            "model": {
                "streams": {
                    # A sequence of vectors is what a stream of kind 'audio' is: here one of 11 bits.
                    "question": {"kind": "audio", "encoder": {"type": "vectors"}},
                    "scene": {"kind": "image" if args.input == "images" else "audio", "encoder": scene},
                },
                "fusion": _fusion(args.model, size),
                "heads": {"reply": {"type": "classifier", "label": "answer"}},
            },
            "objectives": {"reply": {"type": "cross_entropy", "logits": "reply", "label": "answer"}},
            "optimizer": {
                "method": {"type": "adamw", "weight_decay": 0.0},
                "schedule": {"type": "constant", "peak": size.learning_rate}
                if args.size == "full"
                else {"type": "cosine", "peak": size.learning_rate, "warmup_percent": 5.0},
                "clip_norm": None if args.size == "full" else 1.0,
            },
            "log": {"every_steps": 200},
            "evals": {
                "progress": {
                    **test,
                    "label": "relational",
                    "prefix": "progress",
                    "every_percent": 12.5,
                    "bootstrap_samples": 0,
                },
                "test": test,
                **{group: {**test, "label": group, "prefix": group} for group in groups},
            },
        }
    )


def _scene(input: str, model: str, channels: list[int]) -> dict:
    """The encoder of the image or of the states; an MLP wants its tokens joined."""
    cnn = {"type": "cnn", "widths": channels, "norm": "batch", "coordinates": model != "mlp"}
    if model == "mlp":
        images = input == "images"
        joined = {"type": "flatten", "length": CELLS if images else OBJECTS}
        return {**joined, "encoder": cnn} if images else joined
    return cnn if input == "images" else {"type": "vectors"}


def _fusion(model: str, size: Size) -> dict:
    if model == "relation":
        layers = {"relation": size.relation, "hidden": size.hidden, "width": size.width}
        return {"type": "relation", "objects": "scene", **layers}
    if model == "mlp":
        return {"type": "concat", "hidden": [*size.relation, *size.hidden], "width": size.width}
    attention = {"width": 512 if size.width == 100 else size.width, "depth": size.depth, "heads": size.heads}
    return {"type": "cross_attention", "query": "question", **attention}
