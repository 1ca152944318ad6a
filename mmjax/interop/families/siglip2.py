"""SigLIP 2 for images of any proportions, NaFlex (Tschannen et al. 2025, arXiv:2502.14786): both encoders,
or one of them. At fixed resolution its files are SigLIP's."""

from __future__ import annotations

from mmjax.errors import ConfigError
from mmjax.interop.families import clip, siglip
from mmjax.interop.family import Family, check_fields, their_sizes
from mmjax.interop.layouts import dense, same
from mmjax.interop.preprocess import normalise_transform, resampler, text_transforms

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
    given = clip.parts(config, siglip.TEXT, VISION)
    streams = {}
    if "text" in given:
        streams["text"] = siglip.text_section(given["text"])
    if "image" in given:
        image = given["image"]
        image.expect("num_channels", 3)
        image.expect("vision_use_head", True)
        side = round(image["num_patches"] ** 0.5)
        image.expect("num_patches", side**2)
        streams["image"] = image.encoder("naflex_vit", grid_size=side)
    return clip.model_section(streams, siglip.similarity_heads() if len(given) == 2 else {})


def entries(section):
    """Every tensor."""
    streams, found = section["streams"], []
    if "image" in streams:
        encoder, positions = streams["image"]["encoder"], "vision_model.embeddings.position_embedding.weight"
        shape = (-1, encoder["width"])
        found += dense("vision_model.embeddings.patch_embedding", "image_encoder/patch")
        found += same(positions, "image_encoder/positions/table", shape)
        found += siglip.image_entries(encoder)
    if "text" in streams:
        found += siglip.text_entries(streams["text"]["encoder"])
    return found + siglip.scalar_entries(section)


def inputs(config):
    """As many patches as the positions are for, a text of four tokens."""
    given, spec = clip.parts(config, siglip.TEXT, VISION), {}
    if "image" in given:
        width = given["image"]["patch_size"] ** 2 * 3
        spec["image"] = ((given["image"]["num_patches"], width), "float32")
        spec["image_grid"] = ((2,), "int32")
    if "text" in given:
        spec["text"] = ((4,), "int32")
    return spec


def export(section, shapes):
    """config.json: of both encoders, or of the one there is."""
    encoders, configs = clip.check_streams("SigLIP 2", section, "text_transformer", "naflex_vit"), {}
    if "text" in encoders:
        configs["text"] = siglip.text_config("SigLIP 2", encoders["text"])
    if "image" in encoders:
        image = encoders["image"]
        check_fields("SigLIP 2", image, _IMAGE_FIELDS)
        pixels = shapes["params/image_encoder/patch/kernel"][0] // 3
        patch = round(pixels**0.5)
        if patch**2 * 3 != shapes["params/image_encoder/patch/kernel"][0]:
            raise ConfigError(f"SigLIP 2 has square patches with 3 channels, this model {pixels} pixels")
        configs["image"] = {
            **their_sizes(image),
            "num_channels": 3,
            "patch_size": patch,
            "num_patches": image["grid_size"] ** 2,
        }
    return siglip.both_or_one("SigLIP 2", "siglip2", section, configs)


def transforms(config, settings):
    """Their image processor and tokenizer."""
    given, chains = clip.parts(config, siglip.TEXT, VISION), {}
    if "image" in given:
        image = {**PROCESSOR, **{key: value for key, value in settings.items() if value is not None}}
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
    clip.canonical,
    pad_texts=True,
)
