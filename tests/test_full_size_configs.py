"""The full-size variants that configs take by argument: they resolve, and are the sizes they are called."""

import json
import pathlib

import jax
import pytest

from mmjax import config as config_lib
from mmjax.errors import ConfigError
from mmjax.interop import FAMILIES
from mmjax.interop.pretrained import normalise_section
from mmjax.model import assemble, init_model

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
IMAGE, TEXT = ((224, 224, 3), "float32"), ((16,), "int32")
CLIP_TEXT = ((77,), "int32")

# (config and argument, vocabulary, what it reads, millions of parameters of the published model)
FULL = [
    ("clip.py:img=B/32,data=coco", 49408, {"image": IMAGE, "text": CLIP_TEXT}, 151.3),
    ("clip.py:img=B/16,data=coco", 49408, {"image": IMAGE, "text": CLIP_TEXT}, 149.6),
    ("clip.py:img=L/14,data=coco", 49408, {"image": IMAGE, "text": CLIP_TEXT}, 427.6),
    ("zero_shot.py:model=clip-B/32", 49408, {"image": IMAGE, "text": CLIP_TEXT}, 151.3),
    ("zero_shot.py:model=siglip2-B/16", 256000, {"image": IMAGE, "text": ((64,), "int32")}, 375.2),
    ("siglip.py:img=B/16,data=coco", 32000, {"image": IMAGE, "text": ((64,), "int32")}, 203.2),
    (
        "lit.py:locked=image,img=hf:google/vit-base-patch16-224-in21k,data=coco",
        32000,
        {"image": IMAGE, "text": TEXT},
        None,
    ),
    ("mbt.py:size=full,data=clips.jsonl", 0, {"image": IMAGE, "audio": ((800, 128), "float32")}, None),
    ("plain_vit.py:size=S/16,data=imagenet2012", 0, {"image": IMAGE}, None),
    (
        "imagebind.py:size=full,data=rows.jsonl",
        49408,
        {"image": IMAGE, "text": CLIP_TEXT, "audio": ((204, 128), "float32")},
        None,
    ),
    (
        "resnet50_bert_concat.py:size=full,data=posts.jsonl,label=topic",
        30522,
        {"image": IMAGE, "text": ((128,), "int32")},
        None,
    ),
]


@pytest.mark.parametrize(("reference", "vocabulary", "spec", "millions"), FULL, ids=lambda x: str(x)[:30])
def test_full_size(reference, vocabulary, spec, millions):
    config = config_lib.to_dict(config_lib.resolve(str(CONFIGS / reference)))
    section = json.loads(json.dumps(config["model"]))
    for stream in section["streams"].values():
        if "vocab_size" in stream["encoder"]:
            stream["encoder"]["vocab_size"] = vocabulary
    for head in section["heads"].values():
        if head.get("num_classes") == 0:
            head["num_classes"] = 10
    model = assemble(normalise_section(section))
    shapes = jax.eval_shape(lambda key: init_model(model, spec, key), jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) / 1e6
    if millions is not None:
        assert count == pytest.approx(millions, abs=0.1)


VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
END = {"eos_token_id": 2}
TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
# What config.json of the published models says, where it is not the default of transformers.
PUBLISHED = {
    "clip-B/32": ("clip", {"text_config": END, "vision_config": {"patch_size": 32, **VISION}}),
    "clip-B/16": ("clip", {"text_config": END, "vision_config": {"patch_size": 16, **VISION}}),
    "clip-L/14": (
        "clip",
        {
            "projection_dim": 768,
            "text_config": END | TEXT_L,
            "vision_config": {"patch_size": 14, **LARGE},
        },
    ),
    "siglip2-B/16": ("siglip", {"text_config": {"vocab_size": 256000}, "vision_config": {}}),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_zero_shot_models_are_the_published_ones(model):
    family, given = PUBLISHED[model]
    keys = {"visual_projection.weight", "text_projection.weight"}
    theirs = normalise_section(FAMILIES[family].section({"model_type": family, **given}, keys))
    config = config_lib.to_dict(config_lib.resolve(f"{CONFIGS}/zero_shot.py:model={model}"))
    ours = normalise_section(config["model"])
    for name, stream in theirs["streams"].items():
        vocabulary = {"vocab_size": stream["encoder"]["vocab_size"]} if name == "text" else {}
        assert ours["streams"][name]["encoder"] | vocabulary == stream["encoder"]
    assert {n: (h["type"], h.get("width")) for n, h in ours["heads"].items()} == {
        n: (h["type"], h.get("width")) for n, h in theirs["heads"].items()
    }


def test_evaluation_as_the_papers_have_it():
    clip, siglip = (
        config_lib.to_dict(config_lib.resolve(f"{CONFIGS}/zero_shot.py:model={model}"))
        for model in ("clip-B/32", "siglip2-B/16")
    )
    chains = [[t["type"] for t in c["data"]["streams"]["image"]["eval"]] for c in (clip, siglip)]
    assert chains[0] == ["decode_image", "resize_short_side", "center_crop", "normalise"]
    assert chains[1] == ["decode_image", "resize", "normalise"]
    for config in (clip, siglip):
        captions = config["data"]["eval"]["test"]
        assert captions["dataset"]["most"] == 5 and captions["dataset"]["dataset"]["split"] == "test"
        assert captions["labels"] == {"image_id": "record"}
        assert config["evals"]["retrieval"]["a_item"] == "image_id"
        assert config["evals"]["retrieval"]["data"] == "test"
        assert config["evals"]["imagenet"]["benchmark"] == "imagenet1k"
    texts = [t["type"] for t in siglip["data"]["eval"]["test"]["streams"]["text"]]
    assert texts == ["clean_text", "tokenize", "pad"]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("clip.py:img=B/64", "argument img: got 'B/64', expected one of: tiny, B/32"),
        ("clip.py:data=laion", "argument data: got 'laion', expected openmoji, coco, laion400m, or a"),
        ("zero_shot.py:model=clip", "argument model: got 'clip', expected one of: clip-B/32"),
        ("zero_shot.py:data=laion400m", "argument data: got 'laion400m', expected coco or a manifest"),
        ("siglip.py:img=XL", "argument img: got 'XL', expected one of: tiny, B/16"),
        ("lit.py:locked=both", "argument locked: got 'both', expected text or image"),
        ("mbt.py:size=full", "argument data: is missing; size=full needs a manifest of clips"),
        ("mbt.py:streams=video", "argument streams: got 'video', expected both, image or audio"),
        ("plain_vit.py:size=B/16", "argument size: got 'B/16', expected tiny or S/16"),
        ("plain_vit.py:size=S/16", "argument data: got '', expected imagenet2012, or a manifest"),
        ("plain_vit.py:data=cifar10", "argument data: got 'cifar10', expected openmoji with size=tiny"),
        ("imagebind.py:size=big", "argument size: got 'big', expected tiny or full"),
        ("resnet50_bert_concat.py:data=laion400m", "got 'laion400m', which has nothing to evaluate on"),
        ("resnet50_bert_concat.py:size=big", "argument size: got 'big', expected tiny or full"),
    ],
)
def test_wrong_arguments(reference, message):
    with pytest.raises(ConfigError, match=message):
        config_lib.resolve(str(CONFIGS / reference))
