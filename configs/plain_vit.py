"""Better plain ViT: a small ViT that classifies images, with a simple recipe (arXiv:2205.01580).

    ./launch.sh train --config=configs/plain_vit.py
    ./launch.sh train --config=configs/plain_vit.py:size=S/16,data=imagenet2012,epochs=90

By default a small model learns the groups of drawings (openmoji) on any machine. `size=S/16` is the paper's
model and recipe (section 3): fixed sinusoidal positions, the mean of the patches instead of a class token,
batches of 1,024, RandAugment (2 layers, magnitude 10), MixUp (0.2), no dropout and no label smoothing.
Its data is ImageNet-1k through TFDS, or a manifest with columns `image`, `label` and `split`, of `classes`
classes. ImageNet has no further validation split here: the last one percent of its training images is one
(the paper's), and its validation images are the test.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax import presets
from mmjax.errors import ConfigError

_MANIFESTS = (".jsonl", ".csv", ".tsv", ".parquet")


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(text, size="tiny", data="", epochs=0, batch=0, classes=1000)
    if args.size not in ("tiny", "S/16"):
        raise ConfigError(f"config argument size: got '{args.size}', expected tiny or S/16")
    return ConfigDict(full(args) if args.size == "S/16" else tiny(args))


def tiny(args) -> dict:
    """Drawings of 32 pixels."""
    if args.data not in ("", "openmoji"):
        raise ConfigError(f"config argument data: got '{args.data}', expected openmoji with size=tiny")
    chain = presets.images(32, presets.HALF, [0.6, 1.0])
    datasets = {split: {"type": "openmoji", "split": split, "base_only": True} for split in ("train", "test")}
    encoder = {"variant": "custom", "width": 64, "depth": 3, "heads": 4, "patch_size": 8}
    return {
        "batch_size": args.batch or 64,
        "total_epochs": args.epochs or 10,
        "data": {
            "train": datasets["train"],
            "eval": {"test": {"dataset": datasets["test"]}},
            "streams": {"image": {"features": ["image"], **chain}},
            "labels": {"class_id": "group"},
        },
        **_model(encoder),
        "optimizer": _optimizer(peak=1e-3, warmup={"warmup_percent": 10.0}),
        "evals": {"classification": _accuracy("test")},
    }


def full(args) -> dict:
    """ViT-S/16 at 224 pixels."""
    decode, normalise = {"type": "decode_image"}, {"type": "normalise", "mean": [0.5] * 3, "std": [0.5] * 3}
    train = [
        decode,
        {"type": "random_resized_crop", "size": 224, "scale": [0.05, 1.0]},
        {"type": "random_flip"},
        {"type": "rand_augment", "num_layers": 2, "magnitude": 10},
        normalise,
    ]
    evaluated = [decode, {"type": "resize_short_side", "size": 256}, {"type": "center_crop", "size": 224}]
    encoder = {"variant": "S", "patch_size": 16}
    label, parts = _data(args)
    return {
        "batch_size": args.batch or 1024,
        "total_epochs": args.epochs or 90,
        "data": {
            "train": parts["train"],
            "eval": {name: {"dataset": parts[name]} for name in parts if name != "train"},
            "streams": {"image": {"features": ["image"], "train": train, "eval": [*evaluated, normalise]}},
            "labels": {"class_id": label},
            "batch_transforms": [{"type": "mixup", "labels": {"class_id": args.classes}, "alpha": 0.2}],
        },
        **_model(encoder),
        "optimizer": _optimizer(peak=1e-3, warmup={"warmup_steps": 10_000}),
        "evals": {
            name: _accuracy(name) | ({} if name == "test" else {"prefix": name, "every_epochs": 5.0})
            for name in parts
            if name != "train"
        },
        "checkpoint": {"every_epochs": 1.0},
        "dtype": "bfloat16",
    }


def _data(args) -> tuple[str, dict]:
    """The feature that is the label, and the data sets 'train', 'test' and where there is one 'minival'."""
    if args.data == "imagenet2012":
        splits = {"train": "train[:99%]", "minival": "train[99%:]", "test": "validation"}
        return "label", {n: {"type": "tfds", "name": "imagenet2012", "split": s} for n, s in splits.items()}
    if args.data.endswith(_MANIFESTS):
        rows = {"type": "manifest", "path": args.data, "labels": ["label"]}
        return "label", {name: {**rows, "split": name} for name in ("train", "test")}
    raise ConfigError(
        f"config argument data: got '{args.data}', expected imagenet2012, or a manifest ending in "
        f"{', '.join(_MANIFESTS)}"
    )


def _model(encoder: dict) -> dict:
    vit = {"type": "vit", "position": "sincos2d", "pooling": "mean", **encoder}
    return {
        "model": {
            "streams": {"image": {"kind": "image", "encoder": vit}},
            "heads": {"class": {"type": "classifier", "reads": "image", "label": "class_id"}},
        },
        "objectives": {"class": {"type": "cross_entropy", "logits": "class", "label": "class_id"}},
    }


def _optimizer(peak: float, warmup: dict) -> dict:
    return {
        "method": {"type": "adamw", "weight_decay": 1e-4 / peak},
        "schedule": {"type": "cosine", "peak": peak, **warmup},
        "clip_norm": 1.0,
    }


def _accuracy(data: str) -> dict:
    return {"type": "classification", "data": data, "head": "class", "label": "class_id"}
