"""Image and text into one label: ResNet-50 and BERT, their vectors concatenated.

    ./launch.sh train --config=configs/resnet50_bert_concat.py
    ./launch.sh train --config=configs/resnet50_bert_concat.py:size=full,data=posts.jsonl,label=topic

The strong plain baseline of multimodal classification papers. By default small encoders of the same
kinds tell the Unicode group of an emoji from drawing and name, on any machine. `size=full` fine-tunes the
published `microsoft/resnet-50` and `google-bert/bert-base-uncased`, the encoders ten times slower than
what stands on them, on a manifest with columns `image`, `text`, `split` and the label.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax import presets
from mmjax.errors import ConfigError

RESNET, BERT = "hf:microsoft/resnet-50", "hf:google-bert/bert-base-uncased"


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(text, size="tiny", data="openmoji", label="group", batch=64, epochs=6)
    if args.size not in ("tiny", "full"):
        raise ConfigError(f"config argument size: got '{args.size}', expected tiny or full")
    full = args.size == "full"
    bert = {"type": "text_transformer", "variant": "B" if full else "custom", "norm_position": "post"}
    bert |= {"eps": 1e-12, "segments": 2, "pooling": "cls", "pooler": "tanh", "dropout": 0.1}
    if full:
        resnet, length = {"type": "resnet", "variant": "50"}, 128
    else:
        resnet = {"type": "resnet", "variant": "custom", "block": "basic", "depths": [1, 1, 1]}
        resnet |= {"widths": [32, 64, 128], "stem_width": 32}
        bert, length = bert | {"width": 64, "depth": 2, "heads": 4}, 24
    bert["max_length"] = length
    data = presets.pairs(
        args.data,
        image=presets.images(224 if full else 64, presets.IMAGENET, [0.7, 1.0]),
        text=presets.tokens(length, template=True)
        if full
        else presets.tokens(length, start="cls", end="sep"),
        tokenizer={"type": "file", "path": BERT} if full else None,
    )
    data["labels"] = {"label_id": args.label}
    if data["train"]["type"] == "manifest":
        for dataset in (data["train"], *(part["dataset"] for part in data["eval"].values())):
            dataset["labels"] = [args.label]
    if not data["eval"]:
        raise ConfigError(f"config argument data: got '{args.data}', which has nothing to evaluate on")
    (split,) = data["eval"]
    return ConfigDict(
        {
            "batch_size": args.batch,
            "total_epochs": args.epochs,
            "data": data,
            "model": {
                "streams": {
                    "image": {"kind": "image", "encoder": resnet, "init": RESNET if full else ""},
                    "text": {"kind": "text", "encoder": bert, "init": BERT if full else ""},
                },
                "fusion": {"type": "concat", "width": 512 if full else 128, "dropout": 0.1},
                "heads": {"label": {"type": "classifier", "label": "label_id"}},
            },
            "objectives": {"label": {"type": "cross_entropy", "logits": "label", "label": "label_id"}},
            "optimizer": {
                "method": {"type": "adamw", "weight_decay": 0.01},
                "schedule": {"type": "cosine", "peak": 3e-4 if full else 1e-3, "warmup_percent": 10.0},
                "clip_norm": 1.0,
                "multipliers": [{"pattern": ".*_encoder/.*", "factor": 0.1}] if full else [],
            },
            "evals": {
                "label": {
                    "type": "classification",
                    "data": split,
                    "head": "label",
                    "label": "label_id",
                    "every_percent": 50.0,
                }
            },
            **({"dtype": "bfloat16"} if full else {}),
        }
    )
