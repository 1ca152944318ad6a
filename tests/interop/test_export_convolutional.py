"""What of our convolutional encoders the layouts of transformers have a word for."""

import jax
import jax.numpy as jnp
import pytest

from mmjax.errors import ConfigError
from mmjax.interop import FAMILIES
from mmjax.interop.pretrained import describe_model, normalise_section
from mmjax.model import assemble, init_model
from mmjax.parallel.placement import named_leaves

SHAPES = {"image": (64, 64, 3), "waveform": (16000,), "audio": (4, 64), "text": (4,)}
CLAP_TEXT = {
    "type": "text_transformer",
    "variant": "custom",
    "width": 8,
    "depth": 1,
    "heads": 2,
    "vocab_size": 11,
    "norm_position": "post",
    "segments": 1,
    "pooling": "cls",
    "pooler": "tanh",
}


def export(family, streams, heads=None):
    """config.json of a model; `streams` is stream -> (kind, encoder)."""
    section = {name: {"kind": kind, "encoder": encoder} for name, (kind, encoder) in streams.items()}
    model = assemble(normalise_section({"streams": section, "heads": heads or {}}))
    spec = {
        name: (SHAPES[kind], jnp.int32 if kind == "text" else jnp.float32)
        for name, (kind, _) in streams.items()
    }
    variables = jax.eval_shape(lambda key: init_model(model, spec, key), jax.random.key(0))
    shapes = {path: leaf.shape for path, leaf in named_leaves(variables)}
    return FAMILIES[family].export(describe_model(model), shapes)


def test_variants_are_spelled_out():
    resnet = export("resnet", {"image": ("image", {"type": "resnet", "variant": "18"})})
    assert (resnet["layer_type"], resnet["depths"]) == ("basic", [2, 2, 2, 2])
    assert resnet["hidden_sizes"] == [64, 128, 256, 512]
    convnext = export("convnext", {"image": ("image", {"type": "convnext", "variant": "S"})})
    assert (convnext["depths"], convnext["num_stages"]) == ([3, 3, 27, 3], 4)
    wav2vec2 = export("wav2vec2", {"audio": ("waveform", {"type": "wav2vec2", "depth": 1})})
    assert (wav2vec2["hidden_size"], wav2vec2["num_hidden_layers"]) == (768, 1)
    clap = export("clap", {"audio": ("audio", {"type": "clap_audio", "depths": [1, 1, 1, 1]})})
    assert (clap["architectures"], clap["hidden_size"]) == (["ClapAudioModel"], 768)


@pytest.mark.parametrize(
    ("family", "streams", "message"),
    [
        (
            "resnet",
            {"image": ("image", {"type": "resnet", "variant": "18", "norm": "group"})},
            "ResNet has norm 'batch', this model 'group'",
        ),
        (
            "resnet",
            {"image": ("image", {"type": "resnet", "variant": "18", "inner_activation": "silu"})},
            "ResNet has inner_activation 'relu', this model 'silu'",
        ),
        (
            "wav2vec2",
            {"audio": ("waveform", {"type": "wav2vec2", "depth": 1, "layer_scale": 0.1})},
            "wav2vec 2.0 has layer_scale None, this model 0.1",
        ),
        (
            "clap",
            {"audio": ("audio", {"type": "clap_audio", "depths": [1, 1, 1, 1], "frames": 500})},
            "CLAP has clips of 1001 frames, this model of 500",
        ),
        (
            "clap",
            {
                "audio": ("audio", {"type": "clap_audio", "depths": [1, 1, 1, 1]}),
                "text": ("text", CLAP_TEXT),
            },
            "CLAP has heads text_embedding and audio_embedding",
        ),
    ],
)
def test_models_that_theirs_has_no_word_for(family, streams, message):
    with pytest.raises(ConfigError, match=message):
        export(family, streams)
