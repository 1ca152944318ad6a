"""Pieces that several configs share: where image-text pairs come from, and how they are evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.errors import ConfigError

# (mean, std) of pixels: what published weights were trained with.
HALF = ([0.5] * 3, [0.5] * 3)
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

_MANIFESTS = (".jsonl", ".csv", ".tsv", ".parquet")


def pairs(
    source: str,
    *,
    image: Mapping[str, list[dict]],
    text: Mapping[str, list[dict]],
    tokenizer: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The `data` section of image-text pairs.

    Args:
      source: 'openmoji', drawings with English names and keywords, for any machine; 'coco', COCO captions
        (Chen et al. 2015, arXiv:1504.00325) through TFDS, with the 5,000 images of the validation split of
        Karpathy and Fei-Fei (2015, arXiv:1412.2306), each with its first five captions, for evaluation;
        'laion400m', images of the web and their texts (Schuhmann et al. 2021, arXiv:2111.02114) through TFDS,
        to train on alone; or a manifest's path, with columns `image`, `text` and `split`.
      image: transforms for 'train' and 'eval', see `images`.
      text: transforms of one text, for 'train' and 'eval', see `tokens`.
      tokenizer: a tokenizer's spec; None trains a WordPiece of at most 12,000 tokens on the captions.

    Raises:
      ConfigError: for any other source.
    """
    evaluated: dict[str, Any] = {}
    if source == "openmoji":
        splits = ("train+validation", "test")  # nothing is chosen by the validation split
        train, test = ({"type": "openmoji", "split": s, "base_only": True} for s in splits)
        features, labels = ["name", "keywords"], {"pixel_id": "pixel_id", "subgroup_id": "subgroup"}
        joined = {"train": {"type": "join_texts", "keep": 0.5}, "eval": {"type": "join_texts"}}
        evaluated["test"] = {"dataset": test}
    elif source == "coco":
        train, test = ({"type": "tfds", "name": "coco_captions", "split": s} for s in ("train", "val"))
        features, labels = ["captions.text"], {}
        joined = {"train": {"type": "choose"}, "eval": {"type": "first"}}
        evaluated["validation"] = {
            "dataset": {"type": "explode", "dataset": test, "feature": "captions.text", "most": 5},
            "streams": {"text": list(text["eval"])},
            "labels": {"image_id": "record"},
        }
    elif source == "laion400m":
        train = {"type": "tfds", "name": "laion400m/images"}
        features, labels, joined = ["caption"], {}, {"train": None, "eval": None}
    elif source.endswith(_MANIFESTS):
        train, test = ({"type": "manifest", "path": source, "split": s} for s in ("train", "test"))
        features, labels, joined = ["text"], {}, {"train": None, "eval": None}
        evaluated["test"] = {"dataset": test}
    else:
        raise ConfigError(
            f"config argument data: got '{source}', expected openmoji, coco, laion400m, or a manifest "
            f"ending in {', '.join(_MANIFESTS)}"
        )
    chains = {part: ([joined[part]] if joined[part] else []) + list(text[part]) for part in joined}
    default = {"type": "wordpiece", "features": features, "vocab_size": 12000, "min_frequency": 1}
    return {
        "train": train,
        "eval": evaluated,
        "streams": {
            "image": {"features": ["image"], **image},
            "text": {"features": features, **chains},
        },
        "labels": labels,
        "tokenizers": {"default": dict(tokenizer or default)},
    }


def images(
    size: int, pixels: tuple[list[float], list[float]], scale: Sequence[float], *, whole: bool = True
) -> dict[str, list[dict]]:
    """Transforms of images.

    Args:
      size: pixels of a side.
      pixels: (mean, std) they are normalised with.
      scale: smallest and largest part of the area that a random crop keeps in training.
      whole: whether evaluation sees the whole image, whatever becomes of its proportions, or the square in
        its middle.
    """
    decode, normalise = {"type": "decode_image"}, {"type": "normalise", "mean": pixels[0], "std": pixels[1]}
    crop = {"type": "random_resized_crop", "size": size, "scale": list(scale)}
    fit = [{"type": "resize", "size": size}]
    if not whole:
        fit = [{"type": "resize_short_side", "size": size}, {"type": "center_crop", "size": size}]
    return {"train": [decode, crop, normalise], "eval": [decode, *fit, normalise]}


def tokens(length: int, *, lower: bool = False, **tokenize: Any) -> dict[str, list[dict]]:
    """Transforms of one text: `length` token ids, padded.

    Args:
      length: tokens, special ones counted.
      lower: whether the text is put into lower case first.
      tokenize: further fields of that transform.
    """
    chain = [{"type": "tokenize", "max_length": length, **tokenize}, {"type": "pad", "length": length}]
    if lower:
        chain = [{"type": "clean_text", "lower": True}, *chain]
    return {"train": chain, "eval": chain}


def contrastive_evals(data: Mapping[str, Any]) -> dict[str, Any]:
    """Retrieval between 'image_embedding' and 'text_embedding', and what the data's labels allow besides.

    Args:
      data: from `pairs`; where that has nothing to evaluate on, there are no evaluators.
    """
    if not data["eval"]:
        return {}
    ((split, evaluated),) = data["eval"].items()
    positives = ["pixel_id"] if "pixel_id" in data["labels"] else []
    evals = {
        "retrieval": {
            "type": "retrieval",
            "data": split,
            "a": "image_embedding",
            "b": "text_embedding",
            "a_name": "image",
            "b_name": "text",
            "streams": ["image", "text"],
            "positives": positives,
            "every_percent": 25.0,
        }
    }
    if "labels" in evaluated:  # several captions of an image
        evals["retrieval"]["a_item"] = "image_id"
    if not positives:
        (evals["retrieval"]["b_text"],) = data["streams"]["text"]["features"]
    if positives:  # the control that learns nothing
        features = data["streams"]["text"]["features"]
        control = {"type": "bag_of_words_retrieval", "data": split, "positives": positives}
        evals["bag_of_words"] = {**control, "text_features": features}
        evals["zero_shot"] = {
            "type": "zero_shot",
            "data": split,
            "label": "subgroup_id",
            "embedding": "image_embedding",
            "text_embedding": "text_embedding",
        }
    return evals


def add_imagenet(config: dict[str, Any]) -> None:
    """Adds zero-shot accuracy on ImageNet's validation images to a config of an image and a text encoder.

    The images come through TFDS, the 1,000 names and 80 templates are those of CLIP (Radford et al. 2021,
    arXiv:2103.00020).
    """
    config["data"]["eval"]["imagenet"] = {
        "dataset": {"type": "tfds", "name": "imagenet2012", "split": "validation"},
        "drop": ["text"],
        "labels": {"imagenet_class": "label"},
    }
    config["evals"]["imagenet"] = {
        "type": "zero_shot",
        "data": "imagenet",
        "streams": ["image"],
        "label": "imagenet_class",
        "embedding": "image_embedding",
        "text_embedding": "text_embedding",
        "benchmark": "imagenet1k",
        "every_percent": 25.0,
    }


def embeddings(width: int) -> dict[str, dict]:
    """Projections of both streams into the space where they are compared; width 0 takes them as they are."""
    return {
        f"{stream}_embedding": {"type": "projection", "reads": stream, "width": width}
        for stream in ("image", "text")
    }


def contrast(kind: str, data: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """The objective 'infonce' or 'sigmoid' between the two embeddings, with the head 'scale'."""
    return {
        "type": kind,
        "a": "image_embedding",
        "b": "text_embedding",
        "streams": ["image", "text"],
        "scale": "scale",
        "positives": "pixel_id" if "pixel_id" in data["labels"] else "",
        **fields,
    }
