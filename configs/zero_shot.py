"""Published image-text models, judged without training: zero-shot on ImageNet, retrieval on COCO.

    ./launch.sh train --config=configs/zero_shot.py:model=clip-B/32
    ./launch.sh train --config=configs/zero_shot.py:model=siglip2-B/16,data=pairs.jsonl,imagenet=false

The weights come from the Hugging Face hub, or from a directory that `weights` names. The run makes no step
(`total_steps=0`); its metrics are those of the weights, and `eval`, `search`, `embed` and the report read it
as any other run. `batch` examples are encoded at a time. `data` is COCO captions through TFDS, the 5,000
images of Karpathy's test split with five captions each, or a manifest with columns `image`, `text` and
`split`, of which the split 'test' is read.
"""

import pathlib

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.errors import ConfigError

# name -> (weights, the config that has the model)
MODELS = {
    "clip-B/32": ("hf:openai/clip-vit-base-patch32", "clip.py:img=B/32"),
    "clip-B/16": ("hf:openai/clip-vit-base-patch16", "clip.py:img=B/16"),
    "clip-L/14": ("hf:openai/clip-vit-large-patch14", "clip.py:img=L/14"),
    "siglip2-B/16": ("hf:google/siglip2-base-patch16-224", "siglip.py:img=B/16"),
}


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(text, model="clip-B/32", weights="", data="coco", batch=256, imagenet=True)
    if args.model not in MODELS:
        raise ConfigError(f"config argument model: got '{args.model}', expected one of: {', '.join(MODELS)}")
    weights, reference = MODELS[args.model]
    weights = args.weights or weights
    more = f"data={args.data},batch={args.batch},init={weights},imagenet={str(args.imagenet).lower()}"
    config = config_lib.load(f"{pathlib.Path(__file__).parent / reference},{more}")
    del config["total_epochs"]
    config["total_steps"] = 0
    config["init"] = {"weights": weights}
    for stream in config["model"]["streams"].values():
        stream["init"] = ""
    data = config["data"]
    if args.data == "coco":
        data["eval"]["test"] = data["eval"].pop("validation")
        config["evals"]["retrieval"]["data"] = "test"
        data["train"] = data["eval"]["test"]["dataset"]["dataset"]
        data["train"]["split"] = "test"
    elif "test" in data["eval"]:
        data["train"] = data["eval"]["test"]["dataset"]
    else:
        raise ConfigError(f"config argument data: got '{args.data}', expected coco or a manifest")
    return ConfigDict(config)
