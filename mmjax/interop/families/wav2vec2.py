"""wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477)."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmjax.encoders.wav2vec2 import receptive_field
from mmjax.interop.family import (
    BASE_SIZES,
    Family,
    Settings,
    check_all_biases,
    one_stream,
    only_encoder,
    their_activation,
    their_sizes,
)
from mmjax.interop.layouts import BlockNames, Entry, Layout, blocks, conv, dense, norm, same

DEFAULTS = {
    **BASE_SIZES,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": False,
    "apply_spec_augment": True,
    "mask_time_prob": 0.05,
    "mask_time_length": 10,
    "mask_feature_prob": 0.0,
    "mask_feature_length": 10,
}
NAMES = BlockNames(
    prefix="encoder.layers.{i}.",
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    out="attention.out_proj",
    attention_norm="layer_norm",
    mlp_norm="final_layer_norm",
    up="feed_forward.intermediate_dense",
    down="feed_forward.output_dense",
)
_FIELDS = {"layer_scale": None, "final_norm": "all"}
_POSITIONS = "encoder.pos_conv_embed.conv"
# To which a stream of a config is padded, where nothing else is said.
_SECONDS = 30
_MASK = "masked_spec_embed"
# What other models than the encoder put beside it.
_HEADS = ("lm_head.", "quantizer.", "project_hid.", "project_q.", "projector.", "classifier.", "adapter.")


@dataclasses.dataclass(frozen=True)
class _WeightNorm(Layout):
    """A kernel [out, in, k] as its lengths [1, 1, k] and its directions; ours is their product.

    Written back, the directions are the kernel and the lengths its own, which is read as the same.
    """

    def read(self, theirs, shapes):
        lengths, directions = theirs
        kernel = directions * (lengths / _lengths(directions))
        return [np.ascontiguousarray(kernel.transpose(2, 1, 0)).reshape(shapes[0])]

    def write(self, ours):
        kernel = np.ascontiguousarray(ours[0].transpose(2, 1, 0))
        return [_lengths(kernel), kernel]


def _lengths(kernel):
    return np.sqrt(np.square(kernel, dtype=np.float64).sum(axis=(0, 1), keepdims=True)).astype(np.float32)


def section(config, keys):
    """The encoder over waveforms; its masks of training where the checkpoint has what they need."""
    given = Settings(config, DEFAULTS)
    given.expect("add_adapter", False)
    given.expect("adapter_attn_dim", None)
    masks = {
        "mask_time_length": given["mask_time_length"],
        "mask_feature_length": given["mask_feature_length"],
    }
    if given["apply_spec_augment"]:
        masks["mask_time_prob"] = given["mask_time_prob"] if _MASK in keys else 0.0
        masks["mask_feature_prob"] = given["mask_feature_prob"]
    encoder = given.encoder(
        "wav2vec2",
        norm_position="pre" if given["do_stable_layer_norm"] else "post",
        conv_widths=list(given["conv_dim"]),
        conv_kernels=list(given["conv_kernel"]),
        conv_strides=list(given["conv_stride"]),
        conv_norm=given["feat_extract_norm"],
        conv_bias=given["conv_bias"],
        conv_activation=given.activation("feat_extract_activation"),
        position_kernel=given["num_conv_pos_embeddings"],
        position_groups=given["num_conv_pos_embedding_groups"],
        **masks,
    )
    return one_stream("audio", encoder, "waveform")


def entries(section):
    """Every tensor."""
    part, path = section["streams"]["audio"]["encoder"], "audio_encoder"
    found = []
    for i in range(len(part["conv_widths"])):
        theirs, ours = f"feature_extractor.conv_layers.{i}", f"{path}/convolutions_{i}"
        found += conv(f"{theirs}.conv", f"{ours}/conv", bias=part["conv_bias"])
        if part["conv_norm"] == "layer" or i == 0:
            found += norm(f"{theirs}.layer_norm", f"{ours}/norm")
    found += norm("feature_projection.layer_norm", f"{path}/feature_norm")
    found += dense("feature_projection.projection", f"{path}/projection")
    if part["mask_time_prob"]:
        found += same(_MASK, f"{path}/mask_vector")
    kernel = tuple(f"{_POSITIONS}.parametrizations.weight.original{i}" for i in range(2))
    found.append(Entry(kernel, (f"params/{path}/positions/kernel",), _WeightNorm()))
    found += same(f"{_POSITIONS}.bias", f"{path}/positions/bias")
    found += norm("encoder.layer_norm", f"{path}/{_outer_norm(part)}")
    return found + blocks(NAMES, path, part)


def _outer_norm(part):
    return "norm" if part["norm_position"] == "pre" else "embedding_norm"


def inputs(config):
    """A waveform of one frame."""
    given = Settings(config, DEFAULTS)
    return {"audio": ((receptive_field(given["conv_kernel"], given["conv_stride"]),), "float32")}


def export(section, shapes):
    """config.json."""
    del shapes
    part = only_encoder("wav2vec 2.0", section, "audio", "wav2vec2", _FIELDS)
    check_all_biases("wav2vec 2.0", part)
    return {
        "architectures": ["Wav2Vec2Model"],
        "model_type": "wav2vec2",
        **their_sizes(part),
        "feat_extract_norm": part["conv_norm"],
        "feat_extract_activation": their_activation(part["conv_activation"]),
        "conv_dim": list(part["conv_widths"]),
        "conv_kernel": list(part["conv_kernels"]),
        "conv_stride": list(part["conv_strides"]),
        "conv_bias": part["conv_bias"],
        "num_conv_pos_embeddings": part["position_kernel"],
        "num_conv_pos_embedding_groups": part["position_groups"],
        "do_stable_layer_norm": part["norm_position"] == "pre",
        **{key: part[key] for key in DEFAULTS if key.startswith("mask_")},
    }


def constants(section):
    """The vector of the masks, which theirs has too where only channels are masked."""
    part = section["streams"]["audio"]["encoder"]
    if part["mask_time_prob"] or not part["mask_feature_prob"]:
        return {}
    return {_MASK: np.zeros(part["width"], np.float32)}


def canonical(key, config):
    """Without the prefix of models with heads, and by today's names of weight normalisation."""
    given = Settings(config, DEFAULTS)
    key = key.removeprefix("wav2vec2.")
    unused = key == _MASK and not (given["apply_spec_augment"] and given["mask_time_prob"])
    if unused or key.startswith(_HEADS):
        return None
    for i, old in enumerate("gv"):
        key = key.replace(f"{_POSITIONS}.weight_{old}", f"{_POSITIONS}.parametrizations.weight.original{i}")
    return key


def transforms(config, settings):
    """Their feature extractor: mean 0 and variance 1 of each waveform, then padding."""
    del config
    rate = settings.get("sampling_rate", 16000)
    chain = [{"type": "decode_audio", "rate": rate}]
    if settings.get("do_normalize", True):
        chain.append({"type": "standardise_frames", "epsilon": 1e-7})
    return {"audio": [*chain, {"type": "pad", "length": _SECONDS * rate}]}


FAMILY = Family(
    ("wav2vec2",),
    section,
    entries,
    inputs,
    export,
    transforms,
    canonical,
    constants,
    pad_to_longest=("audio",),
)
