"""The encoder of Whisper (Radford et al. 2022, arXiv:2212.04356); decoders of text are left out."""

from __future__ import annotations

import numpy as np

from mmjax.errors import ConfigError
from mmjax.interop.family import (
    Family,
    Settings,
    one_stream,
    only_encoder,
    their_activation,
)
from mmjax.interop.layouts import BlockNames, blocks, conv, norm, same

DEFAULTS = {
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "activation_function": "gelu",
    "num_mel_bins": 80,
    "max_source_positions": 1500,
}
PROCESSOR = {
    "feature_size": 80,
    "sampling_rate": 16000,
    "hop_length": 160,
    "chunk_length": 30,
    "n_fft": 400,
}
NAMES = BlockNames(
    prefix="encoder.layers.{i}.",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.out_proj",
    attention_norm="self_attn_layer_norm",
    mlp_norm="final_layer_norm",
    up="fc1",
    down="fc2",
)
_BIASES = ["query", "value", "out"]
_FIELDS = {
    "norm_position": "pre",
    "final_norm": "all",
    "layer_scale": None,
    "eps": 1e-5,
    "position": "learned",
    "attend_padding": True,
}
# Of the model that consists of an encoder and a classifier.
_CLASSIFIER_WIDTH, _CLASSES = 256, 2


def section(config, keys):
    """The encoder; every clip is padded to the same length, and it attends to all of it."""
    del keys
    given = Settings(config, DEFAULTS)
    encoder = {
        "type": "whisper",
        "variant": "custom",
        "width": given["d_model"],
        "depth": given["encoder_layers"],
        "heads": given["encoder_attention_heads"],
        "mlp_width": given["encoder_ffn_dim"],
        "activation": given.activation("activation_function"),
        "eps": 1e-5,
        "attention_biases": _BIASES,
        "position": "learned",
        "max_length": given["max_source_positions"],
        "attend_padding": True,
    }
    return one_stream("audio", encoder)


def entries(section):
    """Every tensor."""
    part = section["streams"]["audio"]["encoder"]
    return [
        *conv("encoder.conv1", "audio_encoder/conv1"),
        *conv("encoder.conv2", "audio_encoder/conv2"),
        *same("encoder.embed_positions.weight", "audio_encoder/positions/table"),
        *blocks(NAMES, "audio_encoder", part),
        *norm("encoder.layer_norm", "audio_encoder/norm"),
    ]


def inputs(config):
    """Two frames per position."""
    given = Settings(config, DEFAULTS)
    return {"audio": ((2 * given["max_source_positions"], given["num_mel_bins"]), "float32")}


def export(section, shapes):
    """config.json of their model with an encoder alone, which has a classifier."""
    part = only_encoder("Whisper", section, "audio", "whisper", _FIELDS)
    if set(part["attention_biases"]) != set(_BIASES):
        raise ConfigError(
            f"attention_biases {sorted(part['attention_biases'])}: expected query, value and out"
        )
    return {
        "architectures": ["WhisperForAudioClassification"],
        "model_type": "whisper",
        "d_model": part["width"],
        "encoder_layers": part["depth"],
        "num_hidden_layers": part["depth"],
        "encoder_attention_heads": part["heads"],
        "encoder_ffn_dim": part["mlp_width"],
        "activation_function": their_activation(part["activation"]),
        "num_mel_bins": shapes["params/audio_encoder/conv1/kernel"][1],
        "max_source_positions": part["max_length"],
        "classifier_proj_size": _CLASSIFIER_WIDTH,
    }


def constants(section):
    """A classifier of zeros, without which it would not load strictly."""
    width = section["streams"]["audio"]["encoder"]["width"]
    return {
        "projector.weight": np.zeros((_CLASSIFIER_WIDTH, width), np.float32),
        "projector.bias": np.zeros(_CLASSIFIER_WIDTH, np.float32),
        "classifier.weight": np.zeros((_CLASSES, _CLASSIFIER_WIDTH), np.float32),
        "classifier.bias": np.zeros(_CLASSES, np.float32),
    }


def canonical(key, config):
    """Without the prefix of models with a decoder, and without the decoder."""
    del config
    key = key.removeprefix("model.")
    return key if key.startswith("encoder.") else None


def transforms(config, settings):
    """Their feature extractor: 30 s of sound, what is shorter followed by silence.

    In decibels, 10 times their log10: a range of 80 below the loudest, then (x + 40) / 40.
    """
    del config
    given = Settings(settings, PROCESSOR)
    rate, hop, n_fft = given["sampling_rate"], given["hop_length"], given["n_fft"]
    samples = given["chunk_length"] * rate
    return {
        "audio": [
            {"type": "decode_audio", "rate": rate},
            {"type": "truncate", "length": samples},
            {"type": "pad_silence", "length": samples},
            {
                "type": "log_mel",
                "rate": rate,
                "window": n_fft,
                "hop": hop,
                "n_fft": n_fft,
                "bins": given["feature_size"],
                "f_max": 8000.0,
                "scale": "slaney",
                "floor": 1e-10,
                "center": True,
                "unit": "decibel",
            },
            # Without the frame that is centred on the end.
            {"type": "truncate", "length": samples // hop},
            {"type": "dynamic_range", "range": 80.0},
            {"type": "normalise", "mean": [-40.0], "std": [40.0]},
        ]
    }


FAMILY = Family(("whisper",), section, entries, inputs, export, transforms, canonical, constants)
