"""AST (Gong et al. 2021, arXiv:2104.01778), without its classifier."""

from __future__ import annotations

import numpy as np

from mmjax.interop.families import vit
from mmjax.interop.family import (
    BASE_SIZES,
    Family,
    Settings,
    canonical_names,
    one_stream,
    only_encoder,
    qkv_bias,
    their_sizes,
)
from mmjax.interop.layouts import ClassAndPositions, Entry, Layout, blocks, class_and_positions, norm, same

DEFAULTS = {
    **BASE_SIZES,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "patch_size": 16,
    "qkv_bias": True,
    "frequency_stride": 10,
    "time_stride": 10,
    "max_length": 1024,
    "num_mel_bins": 128,
}
PROCESSOR = {
    "sampling_rate": 16000,
    "num_mel_bins": 128,
    "max_length": 1024,
    "do_normalize": True,
    "mean": -4.2677393,
    "std": 4.5689974,
}
# Theirs attends over the zeros that pad every clip.
_FIELDS = {"norm_position": "pre", "final_norm": "all", "layer_scale": None, "attend_padding": True}


class _Patches(Layout):
    """A convolution over [frequency, time], as [D, 1, frequency, time]; here [time, frequency, 1, D]."""

    def read(self, theirs, shapes):
        turned = theirs[0].transpose(3, 2, 1, 0)
        if turned.shape != tuple(shapes[0]):
            raise ValueError(f"got {list(turned.shape)}, expected {list(shapes[0])}")
        return [np.ascontiguousarray(turned)]

    def write(self, ours):
        return [np.ascontiguousarray(ours[0].transpose(3, 2, 1, 0))]


class _Positions(ClassAndPositions):
    """Class token, distillation token and a table by frequency, then time; here by time first."""

    def read(self, theirs, shapes):
        vectors, (moments, bands, width) = shapes
        cls, table = super().read(theirs, [vectors, (bands, moments, width)])
        return [cls, np.ascontiguousarray(table.swapaxes(0, 1))]

    def write(self, ours):
        cls, table = ours
        return super().write([cls, np.ascontiguousarray(table.swapaxes(0, 1))])


def section(config, keys):
    """The encoder."""
    del keys
    given = Settings(config, DEFAULTS)
    encoder = given.encoder(
        "spectrogram_transformer",
        patch_size=given.side("patch_size"),
        time_stride=given["time_stride"],
        frequency_stride=given["frequency_stride"],
        frames=given["max_length"],
        attention_biases=given.attention_biases(),
        attend_padding=True,
    )
    return one_stream("audio", encoder)


def entries(section):
    """Every tensor."""
    part = section["streams"]["audio"]["encoder"]
    projection = "embeddings.patch_embeddings.projection"
    tokens = ("embeddings.cls_token", "embeddings.distillation_token", "embeddings.position_embeddings")
    return [
        Entry((f"{projection}.weight",), ("params/audio_encoder/patch/kernel",), _Patches()),
        *same(f"{projection}.bias", "audio_encoder/patch/bias"),
        *class_and_positions(tokens, "audio_encoder", _Positions(rows=2)),
        *blocks(vit.NAMES, "audio_encoder", part),
        *norm("layernorm", "audio_encoder/norm"),
    ]


def inputs(config):
    """A clip as long as the positions are for."""
    given = Settings(config, DEFAULTS)
    return {"audio": ((given["max_length"], given["num_mel_bins"]), "float32")}


def export(section, shapes):
    """config.json.

    Equally many patches come of several numbers of mel bins; it is 128, that of the published models,
    where that is one of them.
    """
    part = only_encoder("AST", section, "audio", "spectrogram_transformer", _FIELDS)
    bands = shapes["params/audio_encoder/positions/table"][1]
    stride, patch = part["frequency_stride"], part["patch_size"]
    smallest = (bands - 1) * stride + patch
    published = DEFAULTS["num_mel_bins"]
    return {
        "architectures": ["ASTModel"],
        "model_type": "audio-spectrogram-transformer",
        **their_sizes(part),
        "patch_size": patch,
        "time_stride": part["time_stride"],
        "frequency_stride": stride,
        "max_length": part["frames"],
        "num_mel_bins": published if smallest <= published < smallest + stride else smallest,
        "qkv_bias": qkv_bias(part),
    }


def transforms(config, settings):
    """Their feature extractor: Kaldi's filter banks, padded with zeros before they are normalised."""
    del config
    given = Settings(settings, PROCESSOR)
    rate, length = given["sampling_rate"], given["max_length"]
    chain = [
        {"type": "decode_audio", "rate": rate},
        {
            "type": "log_mel",
            "rate": rate,
            "bins": given["num_mel_bins"],
            "f_min": 20.0,
            "scale": "kaldi",
            "floor": 2.0**-23,
            "remove_mean": True,
            "preemphasis": 0.97,
            "periodic": False,
        },
        {"type": "truncate", "length": length},
        {"type": "pad_silence", "length": length},
    ]
    if given["do_normalize"]:
        chain.append({"type": "normalise", "mean": [given["mean"]], "std": [2 * given["std"]]})
    return {"audio": chain}


canonical = canonical_names("audio_spectrogram_transformer.", unused=("classifier.",))
FAMILY = Family(("audio-spectrogram-transformer",), section, entries, inputs, export, transforms, canonical)
