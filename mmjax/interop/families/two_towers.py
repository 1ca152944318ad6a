"""What models of two encoders with a shared space have in common: CLIP, SigLIP and CLAP.

Their config.json holds a config for each encoder; that of one encoder alone is such a config itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.errors import ConfigError
from mmjax.interop.family import Section, Settings
from mmjax.interop.processors import image_transforms, text_transforms

# Our stream -> what its encoder is called in their keys.
_TOWERS = {"text": "text", "image": "vision", "audio": "audio"}


def encoder_settings(
    config: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]], shared: Sequence[str] = ()
) -> dict[str, Settings]:
    """stream -> the settings of its encoder.

    Args:
      config: theirs, of both encoders or of one.
      defaults: stream -> those of its encoder.
      shared: keys of the whole model that count for each encoder.
    """
    for stream, values in defaults.items():
        if config["model_type"].endswith(f"_{_TOWERS[stream]}_model"):
            return {stream: Settings(config, values)}
    shared = {key: config[key] for key in shared if key in config}
    return {
        stream: Settings({**(config.get(f"{_TOWERS[stream]}_config") or {}), **shared}, values)
        for stream, values in defaults.items()
    }


def model_section(encoders: Mapping[str, Section], heads: Section) -> Section:
    """The `model` section of encoders whose streams are called by their kinds."""
    return {
        "streams": {name: {"kind": name, "encoder": encoder} for name, encoder in encoders.items()},
        "heads": heads,
    }


def image_and_text_inputs(given: Mapping[str, Settings]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Of the encoders there are: an image of the size the positions are for, a text of four tokens."""
    spec = {}
    if "image" in given:
        side = given["image"].side("image_size")
        spec["image"] = ((side, side, 3), "float32")
    if "text" in given:
        spec["text"] = ((4,), "int32")
    return spec


def image_and_text_transforms(
    given: Mapping[str, Settings], settings: Mapping[str, Any], processor: Mapping[str, Any]
) -> dict[str, list[dict]]:
    """Their image processor, with the defaults `processor`, and tokenizer, for the encoders there are."""
    chains = {}
    if "image" in given:
        chains["image"] = image_transforms(settings, processor)
    if "text" in given:
        chains["text"] = text_transforms(settings, given["text"]["max_position_embeddings"])
    return chains


def check_streams(what: str, section: Section, types: Mapping[str, str]) -> dict[str, Section]:
    """stream -> encoder; ConfigError unless they are the streams of `types`, or one, of its types."""
    encoders = {name: stream["encoder"] for name, stream in section["streams"].items()}
    if not set(encoders) <= set(types) or section["fusion"]:
        raise ConfigError(f"{what} has the streams {' and '.join(types)}, or one of them, and no fusion")
    for name, encoder in encoders.items():
        if encoder is None or encoder["type"] != types[name]:
            raise ConfigError(f"{what} has the encoder '{types[name]}' for {name}")
    return encoders


def config_of_one(name: str, classes: str, stream: str, config: Section, projected: bool = False) -> Section:
    """config.json of one encoder.

    Args:
      name: their name of the family, with which the model's type begins.
      classes: how the names of its classes begin.
      stream: of the encoder.
      config: what else is said of it.
      projected: whether it has its projection into the shared space.
    """
    tower, suffix = _TOWERS[stream], "WithProjection" if projected else ""
    return {
        **config,
        "architectures": [f"{classes}{tower.title()}Model{suffix}"],
        "model_type": f"{name}_{tower}_model",
    }


def config_of_both(name: str, classes: str, configs: Mapping[str, Section], **more: Any) -> Section:
    """config.json of two encoders, stream -> what is said of it; arguments as in `config_of_one`."""
    return {
        "architectures": [f"{classes}Model"],
        "model_type": name,
        **more,
        **{
            f"{_TOWERS[stream]}_config": {**config, "model_type": f"{name}_{_TOWERS[stream]}_model"}
            for stream, config in configs.items()
        },
    }


def canonical(key: str, config: Mapping[str, Any]) -> str | None:
    """With the prefix of its encoder, which files of one encoder may lack."""
    if key.endswith("position_ids"):
        return None
    for tower in ("text", "vision"):
        prefix = f"{tower}_model."
        alone = config["model_type"].endswith(f"_{tower}_model")
        if alone and not key.startswith((prefix, "text_projection", "visual_projection")):
            return prefix + key
    return key
