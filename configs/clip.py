"""CLIP: two encoders and a contrastive loss over the batch (Radford et al. 2021, arXiv:2103.00020).

    ./launch.sh train --config=configs/clip.py
    ./launch.sh train --config=configs/clip.py:img=B/32,data=pairs.jsonl,batch=32768,epochs=32,imagenet=true

By default a small model learns drawings and their names (openmoji) on any machine. `img=B/32`, `B/16` or
`L/14` is the paper's model with its settings (tables 18 to 20; the batch is the paper's too where it is
asked for), on `data=coco`, `laion400m` or a manifest of one's own. Its text goes through CLIP's own
tokenizer, which comes with the published weights that `init` names; `tune` starts both encoders from them.
`imagenet` evaluates on ImageNet zero-shot, too. `configs/zero_shot.py` judges the published weights.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax import presets
from mmjax.errors import ConfigError

# (image encoder, patch size, image size, width of the text encoder, width of the embedding, peak rate)
SIZES = {
    "tiny": ("custom", 8, 64, 128, 128, 1e-3),
    "B/32": ("B", 32, 224, 512, 512, 5e-4),
    "B/16": ("B", 16, 224, 512, 512, 5e-4),
    "L/14": ("L", 14, 224, 768, 768, 4e-4),
}
PUBLISHED = {
    "B/32": "clip-vit-base-patch32",
    "B/16": "clip-vit-base-patch16",
    "L/14": "clip-vit-large-patch14",
}
BLOCKS = {"activation": "quick_gelu", "eps": 1e-5}


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(
        text, img="tiny", data="openmoji", batch=256, epochs=10, init="", tune=False, imagenet=False
    )
    if args.img not in SIZES:
        raise ConfigError(f"config argument img: got '{args.img}', expected one of: {', '.join(SIZES)}")
    variant, patch, size, text_width, width, peak = SIZES[args.img]
    image = {"type": "vit", "variant": variant, "patch_size": patch, **BLOCKS}
    image |= {"pre_norm": True, "patch_bias": False, "final_norm": "pooled"}
    caption = {"type": "text_transformer", "variant": "custom", "width": text_width, "causal": True, **BLOCKS}
    if args.img == "tiny":
        image |= {"width": 128, "depth": 4, "heads": 4}
        caption |= {"depth": 2, "heads": 4, "max_length": 32, "pooling": "last"}
        tokens, tokenizer = presets.tokens(32, start="bos", end="eos"), None
        crop = [0.8, 1.0]
    else:
        weights = args.init or f"hf:openai/{PUBLISHED[args.img]}"
        # Its tokenizer's end of text, 49407, is where the text is read.
        caption |= {
            "depth": 12,
            "heads": text_width // 64,
            "max_length": 77,
            "pooling": "eos",
            "eos_id": 49407,
        }
        tokens, tokenizer = presets.tokens(77, template=True), {"type": "file", "path": weights}
        crop = [0.9, 1.0]
    images = presets.images(size, presets.CLIP, crop, whole=args.img == "tiny")
    data = presets.pairs(args.data, image=images, text=tokens, tokenizer=tokenizer)
    init = weights if args.tune and args.img != "tiny" else ""
    config = {
        "batch_size": args.batch,
        "total_epochs": args.epochs,
        "data": data,
        "model": {
            "streams": {
                "image": {"kind": "image", "encoder": image, "init": init},
                "text": {"kind": "text", "encoder": caption, "init": init},
            },
            "heads": {**presets.embeddings(width), "scale": {"type": "learned_scale"}},
        },
        "objectives": {"contrastive": presets.contrast("infonce", data)},
        "optimizer": {
            "method": {"type": "adamw", "b2": 0.98, "eps": 1e-6, "weight_decay": 0.2},
            "schedule": {"type": "cosine", "peak": peak, "warmup_percent": 5.0},
        },
        "evals": presets.contrastive_evals(data),
    }
    if args.imagenet:
        presets.add_imagenet(config)
    if args.img != "tiny":
        config |= {"dtype": "bfloat16", "remat": True}
    return ConfigDict(config)
