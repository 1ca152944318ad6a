"""CLIP in the files of open_clip."""

import dataclasses
import functools
import json

import numpy as np
import safetensors.numpy

from .two_towers import clip


def open_clip(t, *, module=False, **changes):
    case = clip(t, hidden_act="quick_gelu" if changes.get("quick_gelu") else "gelu")
    sizes = {"layers": 2, "width": 32, "mlp_ratio": 1.5}
    config = {
        "embed_dim": 24,
        "vision_cfg": {**sizes, "head_width": 8, "image_size": 32, "patch_size": 8},
        "text_cfg": {**sizes, "heads": 4, "context_length": 20, "vocab_size": 50},
        **changes,
    }
    prefix = "text." if module else ""

    def write(model, directory):
        tensors = {
            (key if key.startswith(("visual.", "logit")) else prefix + key): value
            for key, value in open_clip_tensors(model.state_dict(), config).items()
        }
        safetensors.numpy.save_file(tensors, directory / "open_clip_model.safetensors")
        (directory / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))

    return dataclasses.replace(case, write=write)


def open_clip_tensors(theirs, config):
    """The tensors of a CLIP of transformers by the names, and in the shapes, of open_clip."""
    theirs = {key: np.ascontiguousarray(value.numpy()) for key, value in theirs.items()}
    found = {
        "logit_scale": theirs["logit_scale"],
        "visual.proj": theirs["visual_projection.weight"].T,
        "text_projection": theirs["text_projection.weight"].T,
        "visual.class_embedding": theirs["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": theirs["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": theirs["vision_model.embeddings.patch_embedding.weight"],
        "token_embedding.weight": theirs["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": theirs["text_model.embeddings.position_embedding.weight"],
    }
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    names |= {"self_attn.out_proj": "attn.out_proj"}
    for leaf in ("weight", "bias"):
        found[f"visual.ln_pre.{leaf}"] = theirs[f"vision_model.pre_layrnorm.{leaf}"]
        found[f"visual.ln_post.{leaf}"] = theirs[f"vision_model.post_layernorm.{leaf}"]
        found[f"ln_final.{leaf}"] = theirs[f"text_model.final_layer_norm.{leaf}"]
        for tower, prefix in (("vision", "visual."), ("text", "")):
            for i in range(config[f"{tower}_cfg"]["layers"]):
                layer = f"{tower}_model.encoder.layers.{i}"
                block = f"{prefix}transformer.resblocks.{i}"
                parts = [theirs[f"{layer}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
                found[f"{block}.attn.in_proj_{leaf}"] = np.concatenate(parts)
                for name, other in names.items():
                    found[f"{block}.{other}.{leaf}"] = theirs[f"{layer}.{name}.{leaf}"]
    return {key: np.ascontiguousarray(value) for key, value in found.items()}


CASES = {
    "open_clip": open_clip,
    "open_clip_quick_gelu": functools.partial(open_clip, quick_gelu=True),
    "open_clip_text_module": functools.partial(open_clip, module=True, custom_text=True),
}
