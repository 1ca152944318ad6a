"""SigLIP 2 for images of any proportions, NaFlex (Tschannen et al. 2025, arXiv:2502.14786): both encoders,
or one of them. At fixed resolution its files are SigLIP's."""

from __future__ import annotations

from mmjax.errors import ConfigError
from mmjax.interop.families import siglip, two_towers
from mmjax.interop.family import Family, check_all_biases, check_fields, their_sizes, with_defaults
from mmjax.interop.layouts import dense
from mmjax.interop.processors import normalise_transform, resampler, text_transforms

VISION = {**siglip.VISION, "num_patches": 256}
PROCESSOR = {
    "patch_size": 16,
    "max_num_patches": 256,
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
# What every image encoder has.
_IMAGE_FIELDS = {
    "norm_position": "pre",
    "final_norm": "all",
    "pooling": "map",
    "layer_scale": None,
}


def section(config, keys):
    """Encoders; their pooled vectors are the embeddings, divided by their lengths."""
    del keys
    return siglip.encoders_section(_settings(config), _image_section)


def _settings(config):
    return two_towers.encoder_settings(config, {"text": siglip.TEXT, "image": VISION})


def _image_section(given):
    side = round(given["num_patches"] ** 0.5)
    given.expect("num_patches", side**2)
    return given.encoder("naflex_vit", grid_size=side)


def entries(section):
    """Every tensor."""
    return siglip.encoders_entries(section, dense)


def inputs(config):
    """As many patches as the positions are for, a text of four tokens."""
    given, spec = _settings(config), {}
    if "image" in given:
        width = given["image"]["patch_size"] ** 2 * 3
        spec["image"] = ((given["image"]["num_patches"], width), "float32")
        spec["image_grid"] = ((2,), "int32")
    if "text" in given:
        spec["text"] = ((4,), "int32")
    return spec


def export(section, shapes):
    """config.json: of both encoders, or of the one there is."""
    types = {"text": "text_transformer", "image": "naflex_vit"}
    encoders, configs = two_towers.check_streams("SigLIP 2", section, types), {}
    if "text" in encoders:
        configs["text"] = siglip.text_config("SigLIP 2", encoders["text"])
    if "image" in encoders:
        configs["image"] = _image_config(encoders["image"], shapes)
    return siglip.both_or_one("SigLIP 2", "siglip2", "Siglip2", section["heads"], configs)


def _image_config(image, shapes):
    check_fields("SigLIP 2", image, _IMAGE_FIELDS)
    check_all_biases("SigLIP 2", image)
    numbers = shapes["params/image_encoder/patch/kernel"][0]
    patch = round((numbers // 3) ** 0.5)
    if patch**2 * 3 != numbers:
        raise ConfigError(f"SigLIP 2 has square patches with 3 channels, this model {numbers // 3} pixels")
    return {
        **their_sizes(image),
        "num_channels": 3,
        "patch_size": patch,
        "num_patches": image["grid_size"] ** 2,
    }


def transforms(config, settings):
    """Their image processor and tokenizer."""
    given, chains = _settings(config), {}
    if "image" in given:
        image = with_defaults(settings, PROCESSOR)
        if not image.get("do_resize", True):
            raise ConfigError("weights: do_resize is False, expected True, the only one implemented here")
        patches = {"max_patches": image["max_num_patches"], "patch_size": image["patch_size"]}
        chains["image"] = [
            {"type": "decode_image"},
            {"type": "resize_to_patches", **patches, "resampler": resampler(image)},
            normalise_transform(image),
            {
                "type": "naflex_patches",
                "length": image["max_num_patches"],
                "patch_size": image["patch_size"],
            },
        ]
    if "text" in given:
        chains["text"] = text_transforms(settings, given["text"]["max_position_embeddings"])
    return chains


FAMILY = Family(
    ("siglip2", "siglip2_text_model", "siglip2_vision_model"),
    section,
    entries,
    inputs,
    export,
    transforms,
    two_towers.canonical,
    pad_texts=True,
)
