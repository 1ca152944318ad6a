"""Encoders of spectrograms and waveforms."""

import dataclasses
import functools

import numpy as np

from .common import SMALL, Case


def sounds(frames, bins):
    rng = np.random.default_rng(2)
    return {"audio": rng.normal(size=(3, frames, bins)).astype(np.float32)}


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


CASES = {
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
    "ast": ast,
    "ast_published_bins": functools.partial(
        ast, frames=36, bins=128, patch=16, strides=(10, 10), hidden_act="relu", num_hidden_layers=1
    ),
    "ast_no_bias": functools.partial(ast, bins=8, qkv_bias=False, hidden_act="gelu_new", num_hidden_layers=3),
    "whisper": whisper,
    "whisper_relu": functools.partial(whisper, frames=50, activation_function="relu", encoder_layers=3),
    "whisper_classifier": whisper_classifier,
}
