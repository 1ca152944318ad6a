"""The settings of transformers' image processors and tokenizers as our transforms, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.tokenizers import Tokenizer
from mmjax.errors import ConfigError
from mmjax.interop.family import with_defaults

# Colours over ImageNet, with which most image encoders were trained.
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# Pillow's numbers of its resampling filters.
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
_ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")

Chain = Sequence[Mapping[str, Any]]


def image_transforms(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[dict]:
    """Our transforms for the settings of an image processor.

    They give the numbers of transformers' processors that resize with Pillow. Those that resize with
    torchvision round within the filter elsewhere, so that pixels differ by one of 255 steps.

    Args:
      settings: of preprocessor_config.json.
      defaults: of the processor's class, for what is not there; `default_to_square` says whether a
        size that is one number, as in files of old, is of both sides or of the shorter one.

    Raises:
      ConfigError: naming a setting that is not implemented.
    """
    given = with_defaults(settings, defaults)
    chain: list[dict] = [{"type": "decode_image"}]
    if given.get("do_resize", True):
        chain.append(_resize(given["size"], resampler(given), given.get("default_to_square", False)))
    if given.get("do_center_crop"):
        crop = given["crop_size"]
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        size = {"size": crop["height"], "width": crop["width"]}
        chain.append({"type": "center_crop", **size, "rounding": "down", "pad": True})
    if given.get("do_pad"):
        raise ConfigError("weights: do_pad is True, expected False, the only one implemented for images")
    return [*chain, normalise_transform(given)]


def normalise_transform(given: Mapping[str, Any]) -> dict:
    """Our transform for `rescale_factor`, `image_mean` and `image_std`, and whether they are used.

    Ours divides pixels by 255, so mean and standard deviation are in those units: (f x - m) / s is
    (x / 255 - m / 255f) / (s / 255f).
    """
    factor = given.get("rescale_factor", 1 / 255) if given.get("do_rescale", True) else 1.0
    plain = not given.get("do_normalize", True)
    mean, std = (0.0, 1.0) if plain else (given["image_mean"], given["image_std"])
    unit = 1.0 if abs(255 * factor - 1) < 1e-9 else 1 / (255 * factor)

    def channels(value):
        return [float(x) * unit for x in (value if isinstance(value, Sequence) else [value] * 3)]

    return {"type": "normalise", "mean": channels(mean), "std": channels(std)}


def _resize(size, resampler, square):
    if isinstance(size, int):
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    if "height" in size:
        return {"type": "resize", "size": size["height"], "width": size["width"], "resampler": resampler}
    if "shortest_edge" in size and "longest_edge" not in size:
        return {"type": "resize_short_side", "size": size["shortest_edge"], "resampler": resampler}
    raise ConfigError(
        f"weights: the image size {dict(size)} is not implemented; expected height and width, or "
        "shortest_edge"
    )


def resampler(given: Mapping[str, Any]) -> str:
    """Our name of the filter under `resample`; ConfigError where there is none."""
    number = given.get("resample", 3)
    for name, known in _FILTERS.items():
        if number == known:
            return name
    raise ConfigError(f"weights: resample is {number}, expected one of {sorted(_FILTERS.values())}")


def text_transforms(settings: Mapping[str, Any], max_length: int, **more: Any) -> list[dict]:
    """Our transforms for the settings of a tokenizer: its own template of special tokens, then padding.

    Args:
      settings: of preprocessor_config.json, with tokenizer_config.json and special_tokens_map.json
        under 'tokenizer'.
      max_length: what the model can read; the tokenizer's own limit counts where it is smaller.
      more: further fields of `tokenize`.
    """
    given = settings.get("tokenizer", {})
    length = int(min(given.get("model_max_length") or max_length, max_length))
    cut = "start" if given.get("truncation_side") == "left" else "end"
    return [
        {"type": "tokenize", "max_length": length, "template": True, "cut": cut, **more},
        {"type": "pad", "length": length, "side": given.get("padding_side") or "right"},
    ]


def processor_files(chain: Chain, tokenizers: Mapping[str, Tokenizer]) -> tuple[dict[str, bytes], list[str]]:
    """The files of an image processor or tokenizer for the transforms of one stream.

    Args:
      chain: `data.streams.<name>.eval` of a resolved config.
      tokenizers: by the names that `tokenize` uses.

    Returns:
      (name -> content, what of the chain is not in them, in a few words each).
    """
    tokenize = next((t for t in chain if t["type"] == "tokenize"), None)
    if tokenize is not None:
        return _tokenizer_files(chain, tokenize, tokenizers[tokenize["tokenizer"]])
    if chain and chain[0]["type"] == "decode_image" and chain[0]["channels"] == 3:
        return _image_files(chain)
    return {}, [t["type"] for t in chain]


def _image_files(chain):
    settings: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",  # the one that does all of these
        "do_convert_rgb": True,
        "do_resize": False,
        "do_center_crop": False,
        "do_rescale": False,
        "do_normalize": False,
        "rescale_factor": 1 / 255,
    }
    left_out = []
    for transform in chain[1:]:
        kind = transform["type"]
        both = {"height": transform.get("size"), "width": transform.get("width") or transform.get("size")}
        if kind in ("resize", "resize_short_side"):
            size = both if kind == "resize" else {"shortest_edge": transform["size"]}
            settings |= {"do_resize": True, "size": size, "resample": _FILTERS[transform["resampler"]]}
        elif kind == "center_crop":
            settings |= {"do_center_crop": True, "crop_size": both}
            if transform["rounding"] != "down":
                left_out.append("center_crop.rounding 'even' (theirs is 'down')")
        elif kind == "normalise":
            mean, std = (list(transform[key]) * (3 // len(transform[key])) for key in ("mean", "std"))
            settings |= {"do_rescale": True, "do_normalize": True, "image_mean": mean, "image_std": std}
        else:
            left_out.append(kind)
    return {"preprocessor_config.json": _json(settings)}, left_out


def _tokenizer_files(chain, tokenize, tokenizer):
    def token(role):
        found = getattr(tokenizer, f"{role}_id")
        return None if found is None else tokenizer.token(found)

    pad = next((t for t in chain if t["type"] == "pad"), {"side": "right"})
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenize["max_length"],
        "padding_side": pad["side"],
        "truncation_side": {"end": "right", "start": "left"}[tokenize["cut"]],
        # '[PAD]' in a text is text, as it was in training.
        "split_special_tokens": True,
        **{f"{role}_token": token(role) for role in _ROLES if token(role) is not None},
    }
    if tokenize["template"]:
        content = tokenizer.to_json()
    else:
        names = [None if tokenize[end] == "none" else token(tokenize[end]) for end in ("start", "end")]
        content = tokenizer.to_json(*names)
    left_out = [t["type"] for t in chain if t["type"] not in ("tokenize", "pad")]
    return {"tokenizer.json": content.encode(), "tokenizer_config.json": _json(settings)}, left_out


def _json(value) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
