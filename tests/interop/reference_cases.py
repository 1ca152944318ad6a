"""Tiny random models of transformers, and what of theirs equals what of ours. A new one is a line in CASES.

Each case is a function of the module `transformers` that gives a `Case`; weights are drawn anew, so
that no norm is left at one and no bias at zero.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model to compare with.

    Attributes:
      model: theirs.
      batch: ours; streams under their names.
      outputs: their output -> our name -> array. Tokens are compared where the mask is True.
      arguments: further ones for their model.
      inputs: our batch -> their arguments, where it is another than `reference.their_inputs`.
      write: writes their model into a new directory, where that is not `save_pretrained`.
      atol: largest difference allowed, in float32.
    """

    model: Any
    batch: Mapping[str, np.ndarray]
    outputs: Callable[[Any], Mapping[str, Any]]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inputs: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] | None = None
    write: Callable[[Any, pathlib.Path], None] | None = None
    atol: float = 1e-5


def texts(length=7, end=49, count=3):
    """Ids below 50 in which `end` comes once per row, and a mask: rows of all lengths."""
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 49, (count, length)).astype(np.int32)
    lengths = np.maximum(length - 2 * np.arange(count), 2)
    ids[np.arange(count), lengths - 1] = end
    mask = np.arange(length) < lengths[:, None]
    return {"text": np.where(mask, ids, 1), "text_mask": mask}


def images(height=32, width=32):
    rng = np.random.default_rng(1)
    return {"image": rng.normal(size=(2, height, width, 3)).astype(np.float32)}


def tokens_and_pooled(stream, prefix=0):
    """Their tokens, without the first `prefix`, and their pooled vector."""
    return lambda out: {
        f"{stream}/tokens": out.last_hidden_state[:, prefix:],
        f"{stream}/pooled": out.pooler_output,
    }


def grid_and_pooled(out):
    """A grid [B, D, rows, columns] row by row, and the pooled vector."""
    return {
        "image/tokens": out.last_hidden_state.flatten(2).transpose(1, 2),
        "image/pooled": out.pooler_output.flatten(1),
    }


def embeddings(out):
    return {"image_embedding": out.image_embeds, "text_embedding": out.text_embeds}


def bert(t, **changes):
    config = t.BertConfig(vocab_size=50, max_position_embeddings=20, **(SMALL | changes))
    return Case(t.BertModel(config), texts(), tokens_and_pooled("text"))


def bert_without_pooler(t):
    config = t.BertConfig(vocab_size=50, max_position_embeddings=20, **SMALL)
    model = t.BertForMaskedLM(config)
    return Case(
        model, texts(), lambda out: {"text/tokens": out.hidden_states[-1]}, {"output_hidden_states": True}
    )


def roberta(t, **changes):
    config = t.RobertaConfig(vocab_size=50, max_position_embeddings=22, **(SMALL | changes))
    return Case(t.RobertaModel(config), texts(), tokens_and_pooled("text"))


def vit(t, **changes):
    config = t.ViTConfig(image_size=32, patch_size=8, **(SMALL | changes))
    return Case(t.ViTModel(config), images(), tokens_and_pooled("image", 1))


def vit_other_size(t):
    config = t.ViTConfig(image_size=32, patch_size=8, **SMALL)
    arguments = {"interpolate_pos_encoding": True}
    return Case(t.ViTModel(config), images(40, 24), tokens_and_pooled("image", 1), arguments)


def vit_mae(t):
    config = t.ViTMAEConfig(image_size=32, patch_size=8, mask_ratio=0.0, **SMALL)
    return Case(t.ViTMAEModel(config), images(), lambda out: {"image/pooled": out.last_hidden_state[:, 0]})


def dinov2(t, size=(28, 28), **changes):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_ratio": 2}
    config = t.Dinov2Config(image_size=28, patch_size=14, **(sizes | changes))
    return Case(t.Dinov2Model(config), images(*size), tokens_and_pooled("image", 1))


def dinov2_registers(t, size=(28, 28), image_size=28, **changes):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_register_tokens": 3}
    config = t.Dinov2WithRegistersConfig(image_size=image_size, patch_size=14, **(sizes | changes))
    return Case(t.Dinov2WithRegistersModel(config), images(*size), tokens_and_pooled("image", 4))


def resnet(t, size=(64, 64), **changes):
    sizes = {"embedding_size": 16, "hidden_sizes": [32, 48, 64], "depths": [1, 2, 1]}
    return Case(t.ResNetModel(t.ResNetConfig(**(sizes | changes))), images(*size), grid_and_pooled)


def resnet_classifier(t):
    config = t.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1])
    return Case(
        t.ResNetForImageClassification(config),
        images(),
        lambda out: {"image/tokens": out.hidden_states[-1].flatten(2).transpose(1, 2)},
        {"output_hidden_states": True},
    )


def convnext(t, size=(32, 32), **changes):
    sizes = {"hidden_sizes": [16, 24, 32], "depths": [1, 2, 1]} | changes
    config = t.ConvNextConfig(num_stages=len(sizes["depths"]), **sizes)
    return Case(t.ConvNextModel(config), images(*size), grid_and_pooled)


_CLAP_AUDIO = {
    "patch_embeds_hidden_size": 16,
    "depths": [2, 2],
    "num_attention_heads": [2, 4],
    "spec_size": 64,
    "window_size": 4,
    "num_mel_bins": 32,
    "hidden_size": 32,
}


def _clap_input(batch):
    return {"input_features": batch["audio"][:, None]}


def clap(t, **changes):
    text = {"vocab_size": 50, "max_position_embeddings": 22, **SMALL}
    config = t.ClapConfig(text_config=text, audio_config=_CLAP_AUDIO, projection_dim=24, **changes)
    rng = np.random.default_rng(4)
    batch = {**texts(), "audio": rng.normal(size=(3, 128, 32)).astype(np.float32)}
    return Case(
        t.ClapModel(config),
        batch,
        lambda out: {
            "audio_embedding": out.audio_embeds,
            "text_embedding": out.text_embeds,
            "audio_scale": (out.logits_per_audio / (out.audio_embeds @ out.text_embeds.T)).mean(),
            "text_scale": (out.logits_per_text / (out.text_embeds @ out.audio_embeds.T)).mean(),
        },
        inputs=lambda given: {
            **_clap_input(given),
            "input_ids": given["text"].astype(np.int64),
            "attention_mask": given["text_mask"].astype(np.int64),
        },
    )


def clap_audio(t, **changes):
    config = t.ClapAudioConfig(**(_CLAP_AUDIO | changes))
    rng = np.random.default_rng(4)
    # The image holds this many frames.
    frames = min(1001, config.spec_size * (config.spec_size // config.num_mel_bins))
    batch = {"audio": 8 * rng.normal(size=(3, frames, config.num_mel_bins)).astype(np.float32) - 20}
    return Case(
        t.ClapAudioModel(config),
        batch,
        lambda out: {
            "audio/tokens": out.last_hidden_state.permute(0, 3, 2, 1).flatten(1, 2),
            "audio/pooled": out.pooler_output,
        },
        inputs=_clap_input,
    )


def clap_text(t):
    config = t.ClapTextConfig(vocab_size=50, max_position_embeddings=22, **SMALL)
    return Case(t.ClapTextModel(config), texts(), tokens_and_pooled("text"))


def wav2vec2(t, lengths=None, **changes):
    """Where `lengths` are given, of a model that takes a mask."""
    sizes = {
        "conv_dim": [16, 16, 24],
        "conv_kernel": [10, 3, 2],
        "conv_stride": [5, 2, 2],
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "vocab_size": 20,
    }
    config = t.Wav2Vec2Config(**(SMALL | sizes | changes))
    rng = np.random.default_rng(3)
    batch = {"audio": rng.normal(size=(3, 401)).astype(np.float32)}
    if lengths:
        batch["audio_mask"] = np.arange(401) < np.array(lengths)[:, None]
    return Case(
        t.Wav2Vec2Model(config),
        batch,
        lambda out: {"audio/tokens": out.last_hidden_state},
        inputs=lambda given: {
            "input_values": given["audio"],
            **({"attention_mask": given["audio_mask"].astype(np.int64)} if lengths else {}),
        },
    )


def wav2vec2_ctc(t):
    case = wav2vec2(t)
    return dataclasses.replace(
        case,
        model=t.Wav2Vec2ForCTC(case.model.config),
        outputs=lambda out: {"audio/tokens": out.hidden_states[-1]},
        arguments={"output_hidden_states": True},
    )


_STABLE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}

_TOKENS = {"bos_token_id": 1, "eos_token_id": 49, "pad_token_id": 1}


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


def sounds(frames, bins):
    rng = np.random.default_rng(2)
    return {"audio": rng.normal(size=(3, frames, bins)).astype(np.float32)}


def videos(frames, height, width):
    rng = np.random.default_rng(3)
    return {"video": rng.normal(size=(2, frames, height, width, 3)).astype(np.float32)}


def ast(t, frames=20, bins=10, patch=4, strides=(2, 3), **changes):
    config = t.ASTConfig(
        max_length=frames,
        num_mel_bins=bins,
        patch_size=patch,
        frequency_stride=strides[0],
        time_stride=strides[1],
        **(SMALL | changes),
    )
    bands, moments = (bins - patch) // strides[0] + 1, (frames - patch) // strides[1] + 1

    def outputs(out):
        tokens = out.last_hidden_state[:, 2:].reshape(3, bands, moments, -1).transpose(1, 2)
        return {"audio/tokens": tokens.flatten(1, 2), "audio/pooled": out.pooler_output}

    batch = sounds(frames, bins)
    # Padding: frames of one number at the end of a clip, which theirs attends to.
    batch["audio"][1, frames // 2 :] = 0.467
    return Case(t.ASTModel(config), batch, outputs, inputs=lambda x: {"input_values": x["audio"]})


def whisper(t, frames=20, bins=8, **changes):
    sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48}
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "vocab_size": 50}
    tokens = {"bos_token_id": 1, "eos_token_id": 49, "pad_token_id": 1, "decoder_start_token_id": 2}
    length = {"num_mel_bins": bins, "max_source_positions": frames // 2}
    config = t.WhisperConfig(**decoder, **tokens, **length, **(sizes | changes))
    return Case(
        t.WhisperForConditionalGeneration(config),
        sounds(frames, bins),
        lambda out: {
            "audio/tokens": out.encoder_last_hidden_state,
            "audio/pooled": out.encoder_last_hidden_state.mean(dim=1),
        },
        inputs=lambda x: {
            "input_features": np.ascontiguousarray(x["audio"].swapaxes(1, 2)),
            "decoder_input_ids": np.ones((3, 2), np.int64),
        },
    )


def whisper_classifier(t, **changes):
    """Their model with an encoder alone, which is what is written."""
    config = whisper(t, **changes).model.config
    return Case(
        t.WhisperForAudioClassification(config),
        sounds(20, 8),
        lambda out: {"audio/tokens": out.hidden_states[-1]},
        {"output_hidden_states": True},
        inputs=lambda x: {"input_features": np.ascontiguousarray(x["audio"].swapaxes(1, 2))},
    )


def videomae(t, frames=4, **changes):
    """Of 224 pixels, the size that is written; dark, since a patch sums over a thousand numbers."""
    config = t.VideoMAEConfig(image_size=224, patch_size=14, num_frames=frames, **(SMALL | changes))
    return Case(
        t.VideoMAEModel(config),
        {"video": 0.1 * videos(frames, 224, 224)["video"]},
        lambda out: {
            "video/tokens": out.last_hidden_state,
            "video/pooled": out.last_hidden_state.mean(dim=1),
        },
    )


def videomae_classifier(t):
    """Its mean is normalised for the classifier, which is no part of the encoder."""
    config = t.VideoMAEConfig(image_size=16, patch_size=8, num_frames=4, **SMALL)
    return Case(
        t.VideoMAEForVideoClassification(config),
        videos(4, 16, 16),
        lambda out: {"video/tokens": out.hidden_states[-1]},
        {"output_hidden_states": True},
    )


def vivit(t, size=(16, 16), tubelet=(2, 8, 8), frames=4, **changes):
    config = t.VivitConfig(
        image_size=list(size), tubelet_size=list(tubelet), num_frames=frames, **(SMALL | changes)
    )
    return Case(t.VivitModel(config), videos(frames, *size), tokens_and_pooled("video", 1))


def vivit_classifier(t):
    config = t.VivitConfig(image_size=16, tubelet_size=[2, 8, 8], num_frames=4, **SMALL)
    model = t.VivitForVideoClassification(config)
    return Case(
        model,
        videos(4, 16, 16),
        lambda out: {"video/tokens": model.vivit.layernorm(out.hidden_states[-1])[:, 1:].detach()},
        {"output_hidden_states": True},
    )


def timesformer(t, side=16, frames=3, **changes):
    config = t.TimesformerConfig(image_size=side, patch_size=8, num_frames=frames, **(SMALL | changes))

    def outputs(out):
        tokens = out.last_hidden_state[:, 1:].reshape(2, (side // 8) ** 2, frames, -1).transpose(1, 2)
        return {"video/tokens": tokens.flatten(1, 2), "video/pooled": out.last_hidden_state[:, 0]}

    return Case(t.TimesformerModel(config), videos(frames, side, side), outputs)


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
    "bert": bert,
    "bert_relu_deeper": functools.partial(bert, hidden_act="relu", num_hidden_layers=3, layer_norm_eps=1e-5),
    "bert_masked_lm": bert_without_pooler,
    "roberta": roberta,
    "roberta_gelu_tanh": functools.partial(roberta, hidden_act="gelu_new", num_attention_heads=2),
    "vit": vit,
    "vit_no_bias": functools.partial(vit, qkv_bias=False, num_hidden_layers=3, hidden_act="silu"),
    "vit_other_size": vit_other_size,
    "vit_mae": vit_mae,
    "dinov2": dinov2,
    "dinov2_other_size": functools.partial(dinov2, size=(42, 56), layerscale_value=0.1),
    "dinov2_registers": dinov2_registers,
    "dinov2_registers_smaller": functools.partial(dinov2_registers, size=(42, 28), image_size=70),
    "resnet": resnet,
    "resnet_basic": functools.partial(resnet, layer_type="basic", hidden_act="gelu", size=(47, 65)),
    "resnet_as_in_the_paper": functools.partial(
        resnet, downsample_in_bottleneck=True, downsample_in_first_stage=True, hidden_sizes=[16, 32, 32]
    ),
    "resnet_classifier": resnet_classifier,
    "convnext": convnext,
    "convnext_other_size": functools.partial(convnext, size=(50, 37), patch_size=2, hidden_act="gelu_new"),
    "convnext_no_layer_scale": functools.partial(
        convnext, layer_scale_init_value=0.0, layer_norm_eps=1e-6, depths=[2, 1], hidden_sizes=[16, 16]
    ),
    "clap": clap,
    "clap_gelu_projection": functools.partial(clap, projection_hidden_act="gelu"),
    "clap_audio": clap_audio,
    "clap_audio_stretched": functools.partial(
        clap_audio,
        patch_embeds_hidden_size=8,
        spec_size=256,
        num_mel_bins=64,
        depths=[2, 2, 2, 1],
        num_attention_heads=[1, 2, 2, 4],
        hidden_size=64,
        window_size=8,
    ),
    "clap_audio_other_patches": functools.partial(
        clap_audio, patch_size=6, enable_patch_layer_norm=False, qkv_bias=False, mlp_ratio=2.5
    ),
    "clap_text": clap_text,
    "wav2vec2": wav2vec2,
    "wav2vec2_stable": functools.partial(wav2vec2, lengths=[401, 300, 64], **_STABLE),
    "wav2vec2_layer_norms": functools.partial(
        wav2vec2,
        lengths=[401, 41, 222],
        feat_extract_norm="layer",
        feat_extract_activation="relu",
        hidden_act="gelu_new",
        num_conv_pos_embeddings=7,
        layer_norm_eps=1e-3,
    ),
    "wav2vec2_no_masking": functools.partial(wav2vec2, apply_spec_augment=False, conv_bias=True),
    "wav2vec2_channels_masked": functools.partial(wav2vec2, mask_time_prob=0.0, mask_feature_prob=0.1),
    "wav2vec2_ctc": wav2vec2_ctc,
    "clip": clip,
    "clip_old_eos": functools.partial(clip, eos=2, hidden_act="gelu", num_hidden_layers=3),
    "open_clip": open_clip,
    "open_clip_quick_gelu": functools.partial(open_clip, quick_gelu=True),
    "open_clip_text_module": functools.partial(open_clip, module=True, custom_text=True),
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
    "ast": ast,
    "ast_published_bins": functools.partial(
        ast, frames=36, bins=128, patch=16, strides=(10, 10), hidden_act="relu", num_hidden_layers=1
    ),
    "ast_no_bias": functools.partial(ast, bins=8, qkv_bias=False, hidden_act="gelu_new", num_hidden_layers=3),
    "whisper": whisper,
    "whisper_relu": functools.partial(whisper, frames=50, activation_function="relu", encoder_layers=3),
    "whisper_classifier": whisper_classifier,
    "videomae": videomae,
    "videomae_normed": functools.partial(
        videomae, frames=8, tubelet_size=4, use_mean_pooling=False, hidden_act="gelu_new"
    ),
    "videomae_no_bias": functools.partial(videomae, qv_bias=False, num_hidden_layers=3),
    "videomae_classifier": videomae_classifier,
    "vivit": vivit,
    "vivit_oblong": functools.partial(
        vivit, size=(16, 24), tubelet=(3, 8, 8), frames=6, qkv_bias=False, hidden_act="gelu"
    ),
    "vivit_classifier": vivit_classifier,
    "timesformer": timesformer,
    "timesformer_no_bias": functools.partial(
        timesformer, side=24, frames=5, qkv_bias=False, hidden_act="relu", num_hidden_layers=3
    ),
}
