"""CLAP (Wu et al. 2022, arXiv:2211.06687) without feature fusion: both encoders, or one of them.

Theirs has a temperature for each direction, logit_scale_a and logit_scale_t: here the heads
'audio_scale' and 'text_scale'.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmjax.errors import ConfigError
from mmjax.interop.families import bert, roberta, two_towers
from mmjax.interop.family import Family, Section, Settings, canonical_names, check_fields, their_activation
from mmjax.interop.layouts import batch_counters, batch_norm, conv, dense, norm, same
from mmjax.layers.swin import relative_positions

TEXT = {**roberta.DEFAULTS, "projection_dim": 512, "projection_hidden_act": "relu"}
AUDIO = {
    "num_mel_bins": 64,
    "spec_size": 256,
    "window_size": 8,
    "patch_size": 4,
    "patch_stride": [4, 4],
    "patch_embeds_hidden_size": 96,
    "patch_embed_input_channels": 1,
    "enable_patch_layer_norm": True,
    "flatten_patch_embeds": True,
    "enable_fusion": False,
    "depths": [2, 2, 6, 2],
    "num_attention_heads": [4, 8, 16, 32],
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 512,
    "projection_hidden_act": "relu",
}
# Of the published models without fusion.
EXTRACTOR = {
    "sampling_rate": 48000,
    "hop_length": 480,
    "max_length_s": 10,
    "fft_window_size": 1024,
    "frequency_min": 50,
    "frequency_max": 14000,
    "truncation": "rand_trunc",
    "padding": "repeatpad",
}
# 10 s in steps of 10 ms; config.json does not say it, but all published models have it.
_FRAMES = 1001
_PREFIXES = {"text": "text_model.", "audio": "audio_model."}


def _settings(config) -> dict[str, Settings]:
    shared = ("projection_dim", "projection_hidden_act")
    return two_towers.encoder_settings(config, {"text": TEXT, "audio": AUDIO}, shared)


def section(config, keys):
    """Encoders, and the projections into the shared space where the checkpoint has them."""
    given = _settings(config)
    encoders, heads = {}, {}
    for stream, part in given.items():
        encoders[stream] = _text(part, keys) if stream == "text" else _audio(part)
        if f"{stream}_projection.linear1.weight" in keys:
            width = part["projection_dim"]
            heads[f"{stream}_embedding"] = {
                "type": "projection",
                "reads": stream,
                "width": width,
                "hidden": [width],
                "activation": part.activation("projection_hidden_act"),
                "use_bias": True,
            }
    if len(given) == 2:
        initial = config.get("logit_scale_init_value", 1 / 0.07)
        heads |= {f"{stream}_scale": {"type": "learned_scale", "initial": initial} for stream in _PREFIXES}
    return two_towers.model_section(encoders, heads)


def _text(given, keys):
    names = {key.removeprefix(_PREFIXES["text"]) for key in keys}
    return roberta.section(given, names)["streams"]["text"]["encoder"]


def _audio(given):
    given.expect("enable_fusion", False)
    given.expect("flatten_patch_embeds", True)
    given.expect("patch_embed_input_channels", 1)
    bins, spec = given["num_mel_bins"], given["spec_size"]
    return {
        "type": "clap_audio",
        "variant": "custom",
        "width": given["patch_embeds_hidden_size"],
        "depths": list(given["depths"]),
        "heads": list(given["num_attention_heads"]),
        "spec_size": spec,
        "frames": min(_FRAMES, spec * (spec // bins)),
        "patch_size": given.side("patch_size"),
        "patch_stride": given.side("patch_stride"),
        "patch_norm": given["enable_patch_layer_norm"],
        "window": given["window_size"],
        "mlp_ratio": float(given["mlp_ratio"]),
        "activation": given.activation(),
        "qkv_bias": given["qkv_bias"],
        "eps": given["layer_norm_eps"],
    }


def entries(section):
    """Every tensor."""
    streams, heads, found = section["streams"], section["heads"], []
    if "text" in streams:
        prefix = _prefix(section, "text")
        found += [
            dataclasses.replace(entry, keys=tuple(prefix + key for key in entry.keys))
            for entry in roberta.entries(_alone(section, "text"))
        ]
    if "audio" in streams:
        found += _audio_entries(streams["audio"]["encoder"], _prefix(section, "audio"))
    for stream in streams:
        if f"{stream}_embedding" in heads:
            theirs, ours = f"{stream}_projection", f"{stream}_embedding_head"
            found += dense(f"{theirs}.linear1", f"{ours}/hidden/layers_0")
            found += dense(f"{theirs}.linear2", f"{ours}/embedding")
        if f"{stream}_scale" in heads:
            found += same(f"logit_scale_{stream[0]}", f"{stream}_scale_head/log_scale", ())
    return found


def _prefix(section, stream):
    """What stands before the names of an encoder; nothing where it is the whole model."""
    return _PREFIXES[stream] if section["heads"] or len(section["streams"]) > 1 else ""


def _alone(section, stream) -> Section:
    return {"streams": {stream: section["streams"][stream]}, "heads": {}}


def _audio_entries(part, prefix):
    prefix, path = f"{prefix}audio_encoder.", "audio_encoder"
    found = batch_norm(f"{prefix}batch_norm", f"{path}/bin_norm")
    found += conv(f"{prefix}patch_embed.proj", f"{path}/patch")
    if part["patch_norm"]:
        found += norm(f"{prefix}patch_embed.norm", f"{path}/patch_norm")
    for stage, depth in enumerate(part["depths"]):
        if stage:
            theirs, ours = f"{prefix}layers.{stage - 1}.downsample", f"{path}/stage_{stage}_merge"
            found += norm(f"{theirs}.norm", f"{ours}/norm")
            found += dense(f"{theirs}.reduction", f"{ours}/reduce", bias=False)
        for i in range(depth):
            found += _block(f"{prefix}layers.{stage}.blocks.{i}", f"{path}/stage_{stage}_block_{i}", part)
    return found + norm(f"{prefix}norm", f"{path}/norm")


def _block(theirs, ours, part):
    found = norm(f"{theirs}.layernorm_before", f"{ours}/attention_norm")
    for name in ("query", "key", "value"):
        found += dense(f"{theirs}.attention.self.{name}", f"{ours}/attention/{name}", bias=part["qkv_bias"])
    found += dense(f"{theirs}.attention.output.dense", f"{ours}/attention/out", inputs=2)
    found += same(f"{theirs}.attention.self.relative_position_bias_table", f"{ours}/position_bias")
    found += norm(f"{theirs}.layernorm_after", f"{ours}/mlp_norm")
    found += dense(f"{theirs}.intermediate.dense", f"{ours}/mlp/up")
    return found + dense(f"{theirs}.output.dense", f"{ours}/mlp/down")


def inputs(config):
    """A few frames, a text of four tokens."""
    given, spec = _settings(config), {}
    if "audio" in given:
        spec["audio"] = ((4, given["audio"]["num_mel_bins"]), "float32")
    if "text" in given:
        spec["text"] = ((4,), "int32")
    return spec


def export(section, shapes):
    """config.json: of both encoders, or of the one there is."""
    types = {"text": "text_transformer", "audio": "clap_audio"}
    encoders = two_towers.check_streams("CLAP", section, types)
    heads, configs = dict(section["heads"]), {}
    if "text" in encoders:
        configs["text"] = roberta.export(_alone(section, "text"), shapes)
        del configs["text"]["architectures"]  # of RoBERTa
    if "audio" in encoders:
        configs["audio"] = _audio_config(encoders["audio"], shapes)
    projections = {stream: _projection(heads.pop(f"{stream}_embedding", None), stream) for stream in configs}
    for stream, config in configs.items():
        config |= projections[stream]
    if len(configs) == 1:
        if heads:
            raise ConfigError(f"CLAP with one encoder has no head '{next(iter(heads))}'")
        return two_towers.config_of_one("clap", "Clap", *configs.popitem(), projected=bool(section["heads"]))
    scales = [heads.pop(f"{stream}_scale", None) for stream in configs]
    if heads or None in scales or not projections["text"] or projections["text"] != projections["audio"]:
        raise ConfigError(
            "CLAP has heads text_embedding and audio_embedding (of one width), text_scale and audio_scale"
        )
    more = {**projections["text"], "logit_scale_init_value": scales[0]["initial"]}
    return two_towers.config_of_both("clap", "Clap", configs, **more)


def _audio_config(part, shapes):
    bins = shapes["params/audio_encoder/bin_norm/scale"][0]
    if part["frames"] != min(_FRAMES, part["spec_size"] * (part["spec_size"] // bins)):
        raise ConfigError(f"CLAP has clips of {_FRAMES} frames, this model of {part['frames']}")
    return {
        "num_mel_bins": bins,
        "spec_size": part["spec_size"],
        "window_size": part["window"],
        "patch_size": part["patch_size"],
        "patch_stride": [part["patch_stride"]] * 2,
        "patch_embeds_hidden_size": part["width"],
        "enable_patch_layer_norm": part["patch_norm"],
        "enable_fusion": False,
        "depths": list(part["depths"]),
        "num_hidden_layers": len(part["depths"]),
        "num_attention_heads": list(part["heads"]),
        "hidden_size": part["width"] * 2 ** (len(part["depths"]) - 1),
        "mlp_ratio": part["mlp_ratio"],
        "qkv_bias": part["qkv_bias"],
        "hidden_act": their_activation(part["activation"]),
        "layer_norm_eps": part["eps"],
    }


def _projection(head, stream):
    """What config.json says of a projection: hidden layer and embedding are equally wide."""
    if head is None:
        return {}
    expected = {"type": "projection", "reads": stream, "use_bias": True, "normalise": True}
    head = {**head, "hidden": list(head.get("hidden", []))}
    check_fields("CLAP", head, expected | {"hidden": [head["width"]]})
    return {
        "projection_dim": head["width"],
        "projection_hidden_act": their_activation(head["activation"]),
    }


def constants(section):
    """Counters and tables of numbers that theirs keeps beside the weights."""
    found = batch_counters(entries(section))
    if "text" in section["streams"]:
        text = _alone(section, "text")
        length = roberta.export(text, {})["max_position_embeddings"]
        tables = {"position_ids": np.arange(length)[None], "token_type_ids": np.zeros((1, length), np.int64)}
        tables = {f"embeddings.{name}": table for name, table in tables.items()} | bert.constants(text)
        found |= {_prefix(section, "text") + name: table for name, table in tables.items()}
    if "audio" in section["streams"]:
        part = section["streams"]["audio"]["encoder"]
        for stage, depth in enumerate(part["depths"]):
            for i in range(depth):
                block = f"{_prefix(section, 'audio')}audio_encoder.layers.{stage}.blocks.{i}"
                found[f"{block}.attention.self.relative_position_index"] = relative_positions(part["window"])
    return found


def transforms(config, settings):
    """Their feature extractor and tokenizer.

    A sound longer than a clip is cut to its middle; theirs takes a random stretch.
    """
    given, chains = _settings(config), {}
    if "audio" in given:
        chains["audio"] = _sound(Settings(settings, EXTRACTOR), given["audio"])
    if "text" in given:
        chains |= roberta.transforms(given["text"], settings)
    return chains


def _sound(given, encoder):
    # The other way, 'fusion', gives four spectrograms for models with `enable_fusion`.
    given.expect("truncation", "rand_trunc")
    given.expect("padding", "repeatpad", "repeat", "pad")
    bins = encoder["num_mel_bins"]
    given.expect("feature_size", bins)
    rate, window = given["sampling_rate"], given["fft_window_size"]
    length = given["max_length_s"] * rate
    whole = {"repeatpad": "repeat_to", "repeat": "repeat_to", "pad": "pad_silence"}[given["padding"]]
    partial = {"partial": True} if given["padding"] == "repeat" else {}
    return [
        {"type": "decode_audio", "rate": rate},
        {"type": "center_crop_frames", "length": length},
        {"type": whole, "length": length, **partial},
        {
            "type": "log_mel",
            "rate": rate,
            "window": window,
            "hop": given["hop_length"],
            "n_fft": window,
            "bins": bins,
            "f_min": float(given["frequency_min"]),
            "f_max": float(given["frequency_max"]),
            "scale": "slaney",
            "center": True,
            "unit": "decibel",
        },
    ]


# Without what its loader computes itself.
canonical = canonical_names(
    unused_ends=("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")
)
FAMILY = Family(
    ("clap", "clap_text_model", "clap_audio_model"),
    section,
    entries,
    inputs,
    export,
    transforms,
    canonical,
    constants,
)
