"""The preprocessing of a run as the files of transformers' image processors and tokenizers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.tokenizers import Tokenizer

_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
_ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")

Chain = Sequence[Mapping[str, Any]]


def processor_files(chain: Chain, tokenizers: Mapping[str, Tokenizer]) -> tuple[dict[str, bytes], list[str]]:
    """The files for the transforms of one stream.

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
    return {}, [_said(t) for t in chain]


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
            left_out.append(_said(transform))
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
    left_out = [_said(t) for t in chain if t["type"] not in ("tokenize", "pad")]
    return {"tokenizer.json": content.encode(), "tokenizer_config.json": _json(settings)}, left_out


def _said(transform):
    return transform["type"]


def _json(value) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
