"""CLAP: both encoders, or one of them."""

import functools

import numpy as np

from .common import SMALL, Case, texts, tokens_and_pooled

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


CASES = {
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
}
