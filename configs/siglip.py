"""SigLIP: two encoders and a loss that judges each pair by itself (Zhai et al. 2023, arXiv:2303.15343).

    ./launch.sh train --config=configs/siglip.py
    ./launch.sh train --config=configs/siglip.py:img=B/16,data=pairs.jsonl,batch=32768,steps=100000

By default a small model learns drawings and their names (openmoji) on any machine. `img=B/16`, `L/16` or
`So400m/14` is the paper's model and optimizer (section 4), on `data=coco` or a manifest of one's own;
`init=hf:google/siglip-base-patch16-224` starts both encoders from published weights and takes their
tokenizer. `imagenet` evaluates on ImageNet zero-shot, too. `configs/zero_shot.py` judges published weights.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax import presets
from mmjax.errors import ConfigError

LENGTH = 64  # every text is padded to it, and padding counts as text
BLOCKS = {"activation": "gelu_tanh"}


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(
        text, img="tiny", data="openmoji", batch=256, epochs=10, steps=0, init="", imagenet=False
    )
    tiny = args.img == "tiny"
    variant, patch, size, length = _size(args.img)
    image = {"type": "vit", "variant": variant, "patch_size": patch, "pooling": "map", **BLOCKS}
    caption = {
        "type": "text_transformer",
        "variant": variant,
        "max_length": length,
        "attend_padding": True,
        "pooling": "last",
        "pooler": "linear",
        **BLOCKS,
    }
    if tiny:
        image |= {"width": 128, "depth": 4, "heads": 4}
        caption |= {"width": 128, "depth": 2, "heads": 4}
    # Published weights have seen texts in lower case only.
    published = {"template": True, "lower": True}
    tokens = presets.tokens(length, **published) if args.init else presets.tokens(length, end="eos")
    data = presets.pairs(
        args.data,
        image=presets.images(size, presets.HALF, [0.8, 1.0] if tiny else [0.4, 1.0]),
        text=tokens,
        tokenizer={"type": "file", "path": args.init} if args.init else None,
    )
    config = {
        "batch_size": args.batch,
        "data": data,
        "model": {
            "streams": {
                "image": {"kind": "image", "encoder": image, "init": args.init},
                "text": {"kind": "text", "encoder": caption, "init": args.init},
            },
            "heads": {
                **presets.embeddings(0),
                "scale": {"type": "learned_scale", "initial": 10.0, "maximum": None},
                "bias": {"type": "learned_bias", "initial": -10.0},
            },
        },
        "objectives": {"contrastive": presets.contrast("sigmoid", data, bias="bias")},
        "optimizer": {
            # b2 0.95 keeps large batches stable (section 4.7).
            "method": {"type": "adamw", "b2": 0.95, "weight_decay": 1e-4},
            "schedule": {"type": "cosine", "peak": 1e-3, "warmup_percent": 10.0},
            "clip_norm": 1.0,
        },
        "evals": presets.contrastive_evals(data),
    }
    config |= {"total_steps": args.steps} if args.steps else {"total_epochs": args.epochs}
    if args.imagenet:
        presets.add_imagenet(config)
    if not tiny:
        config |= {"dtype": "bfloat16", "remat": True}
    return ConfigDict(config)


def _size(name: str) -> tuple[str, int, int, int]:
    """(variant, patch size, image size, length of the text)."""
    if name == "tiny":
        return "custom", 8, 64, 32
    known = {"B/16": 224, "L/16": 256, "So400m/14": 224}
    if name not in known:
        raise ConfigError(f"config argument img: got '{name}', expected one of: tiny, {', '.join(known)}")
    variant, patch = name.split("/")
    return variant, int(patch), known[name], LENGTH
