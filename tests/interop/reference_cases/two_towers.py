"""CLIP, SigLIP and SigLIP 2: both encoders, or one of them."""

import functools

import numpy as np

from .common import SMALL, Case, images, texts, tokens_and_pooled

_TOKENS = {"bos_token_id": 1, "eos_token_id": 49, "pad_token_id": 1}


def embeddings(out):
    return {"image_embedding": out.image_embeds, "text_embedding": out.text_embeds}


def clip(t, eos=49, **changes):
    text = {
        "vocab_size": 50,
        "max_position_embeddings": 20,
        **_TOKENS,
        **SMALL,
        **changes,
        "eos_token_id": eos,
    }
    vision = {"image_size": 32, "patch_size": 8, **SMALL, **changes}
    config = t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    batch = {**texts(count=2), **images()}
    return Case(t.CLIPModel(config), batch, embeddings)


def clip_vision(t):
    config = t.CLIPVisionConfig(image_size=32, patch_size=8, **SMALL)
    return Case(t.CLIPVisionModel(config), images(), tokens_and_pooled("image", 1))


def clip_vision_projected(t):
    config = t.CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=24, **SMALL)
    model = t.CLIPVisionModelWithProjection(config)
    return Case(model, images(), lambda out: {"image_embedding": _unit(out.image_embeds)})


def clip_text(t):
    config = t.CLIPTextConfig(vocab_size=50, max_position_embeddings=20, **_TOKENS, **SMALL)
    return Case(t.CLIPTextModel(config), texts(), tokens_and_pooled("text"))


def _unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def siglip(t, **changes):
    text = {"vocab_size": 50, "max_position_embeddings": 7, **_TOKENS, **SMALL, **changes}
    vision = {"image_size": 32, "patch_size": 8, **SMALL, **changes}
    config = t.SiglipConfig(text_config=text, vision_config=vision)
    # Their text encoder is used without a mask: padding counts as text.
    batch = {"text": texts(count=2)["text"], **images()}
    return Case(t.SiglipModel(config), batch, embeddings)


def siglip_vision(t, size=32):
    config = t.SiglipVisionConfig(image_size=size, patch_size=8, **SMALL)
    return Case(t.SiglipVisionModel(config), images(size, size), tokens_and_pooled("image"))


def siglip_text(t):
    config = t.SiglipTextConfig(vocab_size=50, max_position_embeddings=7, **_TOKENS, **SMALL)
    return Case(t.SiglipTextModel(config), {"text": texts()["text"]}, tokens_and_pooled("text"))


# No grid of one column: there, PyTorch (2.13, on CPU) interpolates columns alone and gives every row the
# same position; its result for the transposed grid is ours.
def patches(grids=((5, 3), (2, 7), (4, 4)), length=16, size=4):
    """Images of these rows and columns of patches, padded."""
    rng = np.random.default_rng(1)
    mask = np.arange(length) < np.prod(grids, axis=1)[:, None]
    pixels = rng.normal(size=(len(grids), length, size * size * 3)).astype(np.float32)
    return {"image": pixels, "image_mask": mask, "image_grid": np.asarray(grids, np.int32)}


def siglip2_inputs(batch):
    names = {
        "text": ("input_ids", np.int64),
        "image": ("pixel_values", np.float32),
        "image_mask": ("pixel_attention_mask", np.int64),
        "image_grid": ("spatial_shapes", np.int64),
    }
    return {names[name][0]: array.astype(names[name][1]) for name, array in batch.items()}


def siglip2(t, grids=((5, 3), (2, 7)), **changes):
    text = {"vocab_size": 50, "max_position_embeddings": 7, **_TOKENS, **SMALL, **changes}
    vision = {"num_patches": 16, "patch_size": 4, **SMALL, **changes}
    config = t.Siglip2Config(text_config=text, vision_config=vision)
    batch = {"text": texts(count=2)["text"], **patches(grids)}
    return Case(t.Siglip2Model(config), batch, embeddings, inputs=siglip2_inputs)


def siglip2_vision(t, **how):
    config = t.Siglip2VisionConfig(num_patches=16, patch_size=4, **SMALL)
    model = t.Siglip2VisionModel(config)
    return Case(model, patches(**how), tokens_and_pooled("image"), inputs=siglip2_inputs)


def siglip2_text(t):
    config = t.Siglip2TextConfig(vocab_size=50, max_position_embeddings=7, **_TOKENS, **SMALL)
    return Case(t.Siglip2TextModel(config), {"text": texts()["text"]}, tokens_and_pooled("text"))


CASES = {
    "clip": clip,
    "clip_old_eos": functools.partial(clip, eos=2, hidden_act="gelu", num_hidden_layers=3),
    "clip_vision": clip_vision,
    "clip_vision_projected": clip_vision_projected,
    "clip_text": clip_text,
    "siglip": siglip,
    "siglip_gelu": functools.partial(siglip, hidden_act="gelu", num_hidden_layers=1),
    "siglip_vision": siglip_vision,
    "siglip_vision_pixels_left_over": functools.partial(siglip_vision, size=38),
    "siglip_text": siglip_text,
    "siglip2": siglip2,
    "siglip2_gelu": functools.partial(
        siglip2, hidden_act="gelu", num_hidden_layers=1, grids=((1, 16), (4, 4))
    ),
    "siglip2_vision": siglip2_vision,
    "siglip2_vision_many": functools.partial(
        siglip2_vision, grids=((9, 4), (1, 1), (2, 20), (6, 6), (20, 2), (3, 2)), length=40
    ),
    "siglip2_text": siglip2_text,
}
