"""The encoders that every test of this folder runs on: a new one is one line in `CASES`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import components

SMALL = {"variant": "custom", "width": 16, "depth": 1, "heads": 2, "mlp_width": 24}
_SMALL_CNN = {"type": "cnn", "widths": [8], "norm": "batch"}
_VIT = {"type": "vit", **SMALL, "patch_size": 4}
_WAV2VEC2 = {
    "type": "wav2vec2",
    **SMALL,
    "conv_widths": [6, 8],
    "conv_kernels": [2, 2],
    "conv_strides": [2, 2],
    "position_kernel": 4,
    "position_groups": 2,
}

# name -> (kind of its input, component)
CASES = {
    "vit": ("image", {**_VIT, "registers": 2}),
    "vit_map": (
        "image",
        {**_VIT, "pooling": "map", "position": "sincos2d", "pre_norm": True, "layer_scale": 0.1},
    ),
    "vit_clip": (
        "image",
        {**_VIT, "pre_norm": True, "patch_bias": False, "final_norm": "pooled", "activation": "quick_gelu"},
    ),
    "naflex_vit": ("vectors", {"type": "naflex_vit", **SMALL, "grid_size": 3}),
    "naflex_vit_mean": ("vectors", {"type": "naflex_vit", **SMALL, "grid_size": 2, "pooling": "mean"}),
    "vit_pooler": ("image", {**_VIT, "pooler": True, "attention_biases": ["out"]}),
    "cnn": ("image", {"type": "cnn", "widths": [8, 16]}),
    "cnn_grid": ("image", {"type": "cnn", "widths": [8, 16], "pooling": "grid"}),
    "cnn_coordinates": ("image", {"type": "cnn", "widths": [8], "coordinates": True, "pooling": "grid"}),
    "cnn_residual": ("image", {"type": "cnn", "widths": [8, 16], "residual": True, "norm": "batch"}),
    "image_descriptors": (
        "image",
        {"type": "image_descriptors", "width": 8, "layout": 4, "bins": 2, "cell": 4, "orientations": 3},
    ),
    "resnet": (  # of one block, since each batch normalisation makes rounding errors larger
        "image",
        {
            "type": "resnet",
            "variant": "custom",
            "block": "basic",
            "depths": [1],
            "widths": [8],
            "stem_width": 8,
            "norm": "batch",
        },
    ),
    "resnet_bottleneck": (
        "image",
        {
            "type": "resnet",
            "variant": "custom",
            "block": "bottleneck",
            "depths": [2],
            "widths": [8],
            "stem_width": 4,
            "activation": "silu",
            "norm": "group",
            "groups": 2,
        },
    ),
    "convnext": (
        "image",
        {
            "type": "convnext",
            "variant": "custom",
            "depths": [1, 1],
            "widths": [8, 12],
            "patch_size": 2,
            "layer_scale": 0.1,
        },
    ),
    "text_transformer": ("ids", {"type": "text_transformer", **SMALL, "vocab_size": 11}),
    "text_transformer_causal": (
        "ids",
        {
            "type": "text_transformer",
            **SMALL,
            "vocab_size": 11,
            "causal": True,
            "pooling": "eos",
            "eos_id": 7,
        },
    ),
    "text_transformer_bert": (
        "ids",
        {
            "type": "text_transformer",
            **SMALL,
            "vocab_size": 11,
            "norm_position": "post",
            "segments": 1,
            "pooling": "cls",
            "pooler": "tanh",
        },
    ),
    "text_transformer_rotary": (
        "ids",
        {"type": "text_transformer", **SMALL, "vocab_size": 11, "position": "rotary"},
    ),
    "text_transformer_relative": (
        "ids",
        {"type": "text_transformer", **SMALL, "vocab_size": 11, "position": "relative"},
    ),
    "embedding_bag": ("ids", {"type": "embedding_bag", "width": 8, "vocab_size": 11, "initial": 0.1}),
    "rnn_ids": ("ids", {"type": "rnn", "width": 8, "layers": 2, "bidirectional": True, "vocab_size": 11}),
    "rnn_biases": ("vectors", {"type": "rnn", "width": 8, "cell": "gru", "second_biases": True}),
    "rnn_vectors": ("vectors", {"type": "rnn", "width": 8, "cell": "gru", "pooling": "mean"}),
    "audio_transformer": ("vectors", {"type": "audio_transformer", **SMALL, "frames_per_token": 2}),
    "audio_cnn": ("vectors", {"type": "audio_cnn", "widths": [8, 16], "norm": "batch"}),
    "audio_cnn_kernels": (
        "vectors",
        {"type": "audio_cnn", "widths": [8, 16], "kernels": [5, 3], "norm": "none"},
    ),
    "mlp": ("vectors", {"type": "mlp", "widths": [8, 8], "length": 6, "residual": True}),
    "flatten": ("vectors", {"type": "flatten", "length": 6}),
    "vectors": ("vectors", {"type": "vectors"}),
    "spectrogram_transformer": (
        "mel",
        {
            "type": "spectrogram_transformer",
            **SMALL,
            "patch_size": 2,
            "time_stride": 1,
            "frequency_stride": 2,
            "frames": 6,
        },
    ),
    "whisper": ("mel", {"type": "whisper", **SMALL}),
    "whisper_learned": ("mel", {"type": "whisper", **SMALL, "position": "learned", "max_length": 3}),
    "clap_audio": (
        "mel",
        {
            "type": "clap_audio",
            "variant": "custom",
            "width": 8,
            "depths": [2, 1],
            "heads": [2, 4],
            "spec_size": 8,
            "frames": 6,
            "patch_size": 4,
            "patch_stride": 2,
            "window": 2,
        },
    ),
    "wav2vec2": ("waveform", _WAV2VEC2),
    "wav2vec2_stable": (
        "waveform",
        {**_WAV2VEC2, "conv_norm": "layer", "conv_bias": True, "norm_position": "pre", "position_kernel": 3},
    ),
    "frame_wise": (
        "video",
        {"type": "frame_wise", "image": _SMALL_CNN, "temporal": "transformer", "depth": 1},
    ),
    "video_transformer": (
        "video",
        {
            "type": "video_transformer",
            **SMALL,
            "patch_size": 4,
            "attention_biases": ["query", "value", "out"],
            "final_norm": "pooled",
        },
    ),
    "video_transformer_vivit": (
        "video",
        {
            "type": "video_transformer",
            **SMALL,
            "patch_size": 4,
            "position": "learned",
            "frames": 3,
            "pooling": "cls",
            "pooler": True,
        },
    ),
    "timesformer": ("video", {"type": "timesformer", **SMALL, "patch_size": 4, "frames": 3}),
    "sequence_reader": (
        "image",
        {
            "type": "sequence_reader",
            "image": {"type": "cnn", "widths": [8]},
            "reader": {"type": "rnn", "width": 8},
        },
    ),
}
BATCH = 8
_SHAPES = {
    "image": (8, 8, 3),
    "ids": (6,),
    "vectors": (6, 5),
    "mel": (6, 4),
    "waveform": (24,),
    "video": (3, 8, 8, 3),
}
_WAVEFORM_STEP = 4  # lengths of waveforms are multiples of it, since the encoders make frames of 4 samples


def build(spec, **extra):
    """The encoder of a component as a config writes it."""
    return components.build(
        "encoders", components.normalise(spec, components.component("encoders"), "e"), **extra
    )


def inputs(kind, seed=0):
    """(x, mask): rows of all lengths, the last one without anything real."""
    rng = np.random.default_rng(seed)
    shape = (BATCH, *_SHAPES[kind])
    x = rng.integers(1, 11, shape, np.int32) if kind == "ids" else rng.normal(size=shape).astype(np.float32)
    if kind == "image":
        mask = np.arange(BATCH)[:, None] < BATCH - 1
    else:
        step = _WAVEFORM_STEP if kind == "waveform" else 1
        steps = shape[1] // step
        lengths = step * np.array([steps] * (BATCH - steps) + list(range(steps - 1, -1, -1)))
        mask = np.arange(shape[1]) < lengths[:, None]
    return jnp.asarray(x), jnp.asarray(mask)


class Built:
    """An encoder with parameters, and its compiled functions."""

    def __init__(self, name):
        self.kind, self.spec = CASES[name]
        self.encoder = build(self.spec)
        self.x, self.mask = inputs(self.kind)
        made = jax.jit(self.encoder.init)(jax.random.key(0), self.x, self.mask)
        self.variables = {"params": {}, **made}  # an encoder may have none
        self.apply = jax.jit(self.encoder.apply)
        self.step = jax.jit(functools.partial(train_step, self.encoder))


built = functools.cache(Built)


def train_step(encoder, variables, x, mask):
    """(loss, (gradients, further variables)) of a loss that reads tokens and pooled, in training."""

    def loss(params):
        features, moved = encoder.apply(
            {**variables, "params": params}, x, mask, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.sin(features.tokens)) + jnp.sum(jnp.cos(features.pooled)), moved

    (value, moved), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    return value, gradients, moved


def paths(tree):
    """{'a/b/c': leaf}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}
