"""The encoder of masked autoencoders (He et al. 2021, arXiv:2111.06377), applied to whole images."""

from __future__ import annotations

from mmjax.interop.families import vit
from mmjax.interop.family import Family, Settings, one_stream, only_encoder, qkv_bias
from mmjax.interop.processors import IMAGENET, image_transforms

PROCESSOR = {
    **vit.PROCESSOR,
    "resample": 3,
    **IMAGENET,
}


def section(config, keys):
    """The encoder; the class token is pooled. The decoder is not read."""
    del keys
    given = Settings(config, vit.DEFAULTS)
    given.expect("num_channels", 3)
    return one_stream("image", vit.encoder(given))


def export(section, shapes):
    """config.json; `mask_ratio` 0, so that transformers too encodes whole images."""
    part = only_encoder("ViT-MAE", section, "image", "vit", vit.FIELDS | {"pooler": False})
    return {
        "architectures": ["ViTMAEModel"],
        "model_type": "vit_mae",
        "mask_ratio": 0.0,
        **vit.sizes(part, shapes),
        "qkv_bias": qkv_bias(part),
    }


def transforms(config, settings):
    """Their image processor, which is ViT's where its file leaves something out."""
    del config
    return {"image": image_transforms(settings, vit.PROCESSOR if settings else PROCESSOR)}


FAMILY = Family(("vit_mae",), section, vit.entries, vit.inputs, export, transforms, vit.canonical)
