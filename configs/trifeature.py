"""Bimodal Trifeature: what two images share, what one has alone, and what only both together tell.

    ./launch.sh train --config=configs/trifeature.py:method=comm
    ./launch.sh train --config=configs/trifeature.py:method=comm,biased=true,size=full

Pairs of images share their shape; their textures and colours are independent. Each image is a stream with an
encoder of its own, trained without labels; linear probes then ask for the shape (redundant), for the texture
of either image (unique), and whether the texture of the first goes with the colour of the second (synergy,
for which `biased=true` trains on pairs where it always does). Argument `method`, as in CoMM (Dufumier et al.
2024, arXiv:2409.07402, section 4.1):

  cross        the two images of a pair find each other (InfoNCE, as in CLIP)
  cross_self   that, and two augmented views of each image find each other (as in SLIP)
  comm         augmented pairs are fused, and fused views find each other and those of one image alone

The probes read the vectors of both encoders side by side, or the fused one for `comm`. Argument `size`:
`full` has the images (224 pixels), pairs (10,000), epochs (100) and widths of the paper, with a plain CNN of
AlexNet's depth in place of AlexNet; `small` (the default) is for two cores.
"""

import dataclasses

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.errors import ConfigError

METHODS = ("cross", "cross_self", "comm")
SIDES = ("first", "second")


@dataclasses.dataclass(frozen=True)
class Size:
    """Side of the images in pixels, pairs, epochs, widths of the CNN, then of fusion and projections."""

    pixels: int
    pairs: int
    probe_pairs: int
    epochs: float
    channels: list[int]
    width: int
    heads: int
    learning_rate: float


SIZES = {
    "full": Size(224, 10_000, 10_000, 100.0, [64, 192, 384, 256, 256], 512, 8, 3e-4),
    "small": Size(64, 4_000, 3_000, 12.0, [16, 32, 64, 128], 128, 4, 1e-3),
}


def get_config(arg: str = "") -> ConfigDict:
    args = config_lib.arguments(arg, method="comm", biased=False, size="small")
    for name, known in (("method", METHODS), ("size", SIZES)):
        if args[name] not in known:
            raise ConfigError(f"argument {name}: got '{args[name]}', expected one of: {', '.join(known)}")
    size = SIZES[args.size]
    plain, augmented = _transforms(size.pixels)
    streams, model, objectives = _method(args.method, size)
    data = {"type": "trifeature", "size": size.pixels}
    probe = {**data, "pairs": size.probe_pairs}
    return ConfigDict(
        {
            "batch_size": 64,
            "total_epochs": size.epochs,
            "data": {
                "train": {
                    **data,
                    "split": "train",
                    "pairs": size.pairs,
                    "agreeing": "all" if args.biased else "any",
                },
                "eval": {
                    "probe": {"dataset": {**probe, "split": "train"}},
                    "test": {"dataset": {**probe, "split": "test"}},
                    "synergy_probe": {"dataset": {**probe, "split": "train", "agreeing": "half"}},
                    "synergy_test": {"dataset": {**probe, "split": "test", "agreeing": "half"}},
                },
                "streams": {
                    name: {
                        "features": [side],
                        "train": augmented if varied else plain,
                        "eval": [{"type": "decode_image", "channels": 3}, _normalise()],
                    }
                    for name, (side, varied) in streams.items()
                },
                "labels": {name: name for name in ("shape", "texture_first", "texture_second", "agreement")},
            },
            "model": model,
            "objectives": objectives,
            "optimizer": {
                "method": {"type": "adamw", "weight_decay": 1e-4},
                "schedule": {"type": "cosine", "peak": size.learning_rate, "warmup_percent": 5.0},
            },
            "log": {"every_steps": 20},
            "evals": _probes(args.method),
        }
    )


def _transforms(pixels: int) -> tuple[list[dict], list[dict]]:
    """Large crops; and SimCLR's augmentations, without changes of hue."""
    decode = {"type": "decode_image", "channels": 3}
    crop = {"type": "random_resized_crop", "size": pixels}
    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "probability": 0.8}
    blur = [0.1 * pixels / 224, 2.0 * pixels / 224]
    return [decode, {**crop, "scale": [0.5, 1.0]}, _normalise()], [
        decode,
        {**crop, "scale": [0.08, 1.0]},
        {"type": "color_jitter", **jitter},
        {"type": "random_grayscale", "probability": 0.2},
        {"type": "random_blur", "sigma": blur, "probability": 0.5},
        {"type": "random_flip"},
        _normalise(),
    ]


def _normalise() -> dict:
    return {"type": "normalise", "mean": [0.5], "std": [0.25]}


def _method(method: str, size: Size) -> tuple[dict, dict, dict]:
    """Streams of the data (name -> image of the pair, whether it is augmented), model and objectives."""
    encoder = {"type": "cnn", "widths": size.channels}
    model = {"streams": {side: {"kind": "image", "encoder": encoder} for side in SIDES}}
    projection = {
        "type": "projection",
        "width": size.width // 2,
        "hidden": [size.width],
        "activation": "relu",
    }
    fused = {"streams": list(SIDES)}
    if method == "comm":
        attention = {"width": size.width, "depth": 1, "heads": size.heads}
        other = {side: f"{side}_other" for side in SIDES}
        model |= {
            "fusion": {"type": "merged_attention", **attention},
            "heads": {"embedding": projection},
            "views": {
                "other": {"streams": other},
                "first_alone": {"drop": ["second"]},
                "second_alone": {"drop": ["first"]},
                "other_first_alone": {"streams": other, "drop": ["second"]},
                "other_second_alone": {"streams": other, "drop": ["first"]},
            },
        }
        loss = {
            "type": "comm",
            "a": "embedding",
            "b": "other/embedding",
            "a_alone": [f"{side}_alone/embedding" for side in SIDES],
            "b_alone": [f"other_{side}_alone/embedding" for side in SIDES],
            **fused,
        }
        streams = {f"{side}{part}": (side, True) for side in SIDES for part in ("", "_other")}
        return streams, model, {"comm": loss}

    linear = {"type": "projection", "width": size.width // 2}
    model["heads"] = {f"{side}_embedding": {**linear, "reads": side} for side in SIDES}
    model["heads"]["scale"] = {"type": "learned_scale"}
    cross = {"type": "infonce", "a": "first_embedding", "b": "second_embedding", "scale": "scale"}
    streams, objectives = {side: (side, False) for side in SIDES}, {"cross": {**cross, **fused}}
    if method == "cross_self":
        for view in ("one", "other"):
            streams |= {f"{side}_{view}": (side, True) for side in SIDES}
        model["heads"] |= {f"{side}_self": {**projection, "reads": side} for side in SIDES}
        model["views"] = {
            view: {"streams": {side: f"{side}_{view}" for side in SIDES}} for view in ("one", "other")
        }
        objectives |= {
            f"{side}_self": {
                "type": "nt_xent",
                "a": f"one/{side}_self",
                "b": f"other/{side}_self",
                "streams": [side],
                "temperature": 0.1,
            }
            for side in SIDES
        }
    return streams, model, objectives


def _probes(method: str) -> dict:
    read = (
        {"features": "fused/pooled"}
        if method == "comm"
        else {
            "features": "first/pooled",
            "also": ["second/pooled"],
        }
    )
    asked = {name: ("probe", "test") for name in ("shape", "texture_first", "texture_second")}
    asked["agreement"] = ("synergy_probe", "synergy_test")
    return {
        label: {"type": "linear_probe", **read, "label": label, "train": train, "data": test}
        for label, (train, test) in asked.items()
    }
