"""LiT: contrastive tuning against a locked encoder (Zhai et al. 2021, arXiv:2111.07991).

    ./launch.sh train --config=configs/lit.py

By default the text encoder is locked: MiniLM, a published sentence encoder of six layers, as it is,
and a linear map of what drawings look like learns to place them where it places their names (openmoji;
some five minutes on two cores). With

    ... --config.lora.rank=8 --config.lora.patterns='["text_encoder/.*/(query|value)/kernel"]'

low-rank factors beside its kernels learn too (docs/finetuning.md). The other way round is the paper's:

    ... --config=configs/lit.py:locked=image,img=hf:google/vit-base-patch16-224-in21k,data=coco

locks a published image encoder, and a text encoder is trained from scratch with the paper's settings
(appendix I), on `data=coco` or a manifest of one's own. The setting of the paper's table is
`batch=16384,steps=60000,data=MANIFEST`. `imagenet` evaluates on ImageNet zero-shot, too.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax import presets
from mmjax.errors import ConfigError

MINILM = "package:all-MiniLM-L6-v2"
MINILM_ENCODER = {
    "type": "text_transformer",
    "variant": "custom",
    "width": 384,
    "depth": 6,
    "heads": 12,
    "mlp_width": 1536,
    "norm_position": "post",
    "eps": 1e-12,
    "segments": 2,
    "pooling": "mean",
}
VIT_B16 = {"type": "vit", "variant": "B", "patch_size": 16, "eps": 1e-12}


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(
        text, locked="text", img="", data="openmoji", batch=64, epochs=16, steps=0, imagenet=False
    )
    if args.locked == "text":
        config = locked_text(args)
    elif args.locked == "image":
        config = locked_image(args)
    else:
        raise ConfigError(f"config argument locked: got '{args.locked}', expected text or image")
    if args.steps:
        config["total_steps"] = args.steps
    else:
        config["total_epochs"] = args.epochs
    if args.imagenet:
        presets.add_imagenet(config)
    config["batch_size"] = args.batch
    config["optimizer"]["frozen"] = [f"{args.locked}_encoder/.*"]
    return ConfigDict(config)


def locked_text(args) -> dict:
    """Classical descriptors of drawings against MiniLM."""
    length = 24
    data = presets.pairs(
        args.data,
        image=presets.images(64, presets.HALF, [0.8, 1.0]),
        text=presets.tokens(length, template=True),
        tokenizer={"type": "file", "path": MINILM},
    )
    image = {"type": "image_descriptors", "width": 256, "dropout": 0.2}
    return {
        "data": data,
        "model": {
            "streams": {
                "image": {"kind": "image", "encoder": image},
                "text": {
                    "kind": "text",
                    "encoder": {**MINILM_ENCODER, "max_length": length},
                    "init": MINILM,
                },
            },
            "heads": {**presets.embeddings(256), "scale": {"type": "learned_scale"}},
        },
        "objectives": {"contrastive": presets.contrast("infonce", data)},
        "optimizer": {
            "method": {"type": "adamw", "b2": 0.98, "weight_decay": 0.1},
            "schedule": {"type": "cosine", "peak": 2e-3, "warmup_percent": 10.0},
            "clip_norm": 1.0,
            "ema": 0.98,
        },
        "evals": presets.contrastive_evals(data),
    }


def locked_image(args) -> dict:
    """A text encoder from scratch against a published ViT-B/16."""
    data = presets.pairs(
        args.data,
        image=presets.images(224, presets.HALF, [0.4, 1.0]),
        text=presets.tokens(16),
        tokenizer=None,
    )
    image = {"kind": "image", "encoder": VIT_B16, "init": args.img}
    text = {"type": "text_transformer", "variant": "B", "max_length": 16, "pooling": "cls"}
    return {
        "data": data,
        "model": {
            "streams": {"image": image, "text": {"kind": "text", "encoder": text}},
            "heads": {**presets.embeddings(768), "scale": {"type": "learned_scale", "initial": 10.0}},
        },
        "objectives": {"contrastive": presets.contrast("infonce", data)},
        "optimizer": {
            "method": {"type": "adafactor", "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": {"type": "cosine", "peak": 1e-3, "warmup_percent": 15.0},
            "clip_norm": 1.0,
        },
        "evals": presets.contrastive_evals(data),
        "dtype": "bfloat16",
    }
