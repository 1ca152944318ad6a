"""Fusions between the blocks of the encoders: bottlenecks and gated cross-attention."""

import by_hand
import flax.linen as nn
import fusion_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.cnn import CNN
from mmjax.encoders.text_transformer import TextTransformer
from mmjax.encoders.vit import ViT
from mmjax.errors import ConfigError
from mmjax.fusion.bottleneck import Bottleneck
from mmjax.fusion.common import stream_tokens
from mmjax.fusion.gated_cross_attention import GatedCrossAttention
from mmjax.fusion.stack import Stack
from mmjax.model import Model


def run(name, encoder=None, **settings):
    """(parameters, features, fused) with disturbed parameters."""
    given, fusion = cases.features(), cases.small(name, encoder=encoder, **settings)
    params = by_hand.disturb(jax.jit(fusion.init)(jax.random.key(0), given)["params"])
    return params, given, jax.jit(fusion.apply)({"params": params}, given)


def embedded(p, given):
    """What enters the blocks of each stream's encoder."""
    return {
        name: by_hand.dense(p[f"{name}_encoder"]["projection"], np.where(f.mask[:, :, None], f.tokens, 0))
        for name, f in given.items()
    }


def mean(x, mask):
    return (x * mask[:, :, None]).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)[:, None]


def assert_rows_close(actual, expected, mask):
    np.testing.assert_allclose(np.where(mask, actual, 0), np.where(mask, expected, 0), rtol=1e-4, atol=2e-5)


def test_bottlenecks_by_hand():
    p, given, fused = run("bottleneck", {"depth": 3}, fusion_layer=1)
    x, present = embedded(p, given), np.stack([f.present for f in given.values()])
    shared = np.broadcast_to(p["fusion"]["bottlenecks"]["vectors"], (8, 2, 8))
    for name, f in given.items():
        x[name] = by_hand.block(p[f"{name}_encoder"]["blocks_0"], x[name], np.asarray(f.mask))
    for i in (1, 2):
        written = []
        for name, f in given.items():
            both = np.concatenate([x[name], shared], axis=1)
            seen = np.concatenate([f.mask, np.ones((8, 2), bool)], axis=1)
            both = by_hand.block(p[f"{name}_encoder"][f"blocks_{i}"], both, seen)
            x[name] = both[:, :-2]
            written.append(both[:, -2:])
        total = np.einsum("mb,mbld->bld", present, np.stack(written))
        shared = total / np.maximum(present.sum(axis=0), 1)[:, None, None]
    pooled = 0
    for name, f in given.items():
        tokens = by_hand.norm(p[f"{name}_encoder"]["norm"], x[name])
        found = stream_tokens(given | {"fused": fused}, name)
        assert_rows_close(found, tokens, f.mask[:, :, None])
        pooled = pooled + mean(tokens, f.mask) * f.present[:, None]
    pooled = pooled / np.maximum(present.sum(axis=0), 1)[:, None]
    assert_rows_close(fused.pooled, pooled, fused.present[:, None])


def test_streams_see_each_other_through_bottlenecks_alone():
    fusion = cases.small("bottleneck", encoder={"depth": 3}, fusion_layer=1)
    given, other = cases.features(missing=False), cases.features(missing=False, seed=5)
    variables = jax.jit(fusion.init)(jax.random.key(0), given)
    apply = jax.jit(lambda v, x: fusion.apply(v, x, method="entries")["text"].pooled)
    changed = given | {name: other[name] for name in ("audio", "image")}
    assert np.abs(apply(variables, given) - apply(variables, changed)).max(axis=1).min() > 1e-4
    silent = jax.tree.map(jnp.asarray, variables)
    for name in cases.ALL:  # where no block writes anything, nothing gets through
        for i in range(3):
            block = silent["params"][f"{name}_encoder"][f"blocks_{i}"]
            for branch in (block["attention"]["out"], block["mlp"]["down"]):
                branch |= jax.tree.map(jnp.zeros_like, branch)
    np.testing.assert_array_equal(apply(silent, given), apply(silent, changed))


def test_gated_layers_by_hand():
    p, given, fused = run("gated_cross_attention", query="image", queries=0, every=2)
    x = embedded(p, given)
    for name, f in given.items():
        encoder, mask = p[f"{name}_encoder"], np.asarray(f.mask)
        if name != "image":
            for i in range(2):
                x[name] = by_hand.block(encoder[f"blocks_{i}"], x[name], mask)
            x[name] = np.where(mask[:, :, None], by_hand.norm(encoder["norm"], x[name]), 0)
    fusion, image = p["fusion"], x["image"]
    assert {key for key in fusion if key.startswith("layers")} == {"layers_0"}  # before every second block
    embed = fusion["embed"]
    looked_at = {
        name: by_hand.dense(embed[f"{name}_projection"], x[name]) + embed[f"{name}_type"]
        for name in ("audio", "text")
    }
    context = by_hand.norm(fusion["context_norm"], np.concatenate(list(looked_at.values()), axis=1))
    seen = np.concatenate([given[name].mask for name in looked_at], axis=1)
    layer = fusion["layers_0"]
    layer["cross_attention"]["out"]["bias"] = 0
    normed = by_hand.norm(layer["attention_norm"], image)
    gates = np.tanh(layer["attention_gate"]), np.tanh(layer["mlp_gate"])
    image = image + gates[0] * by_hand.attention(layer["cross_attention"], normed, context, seen)
    image = image + gates[1] * by_hand.mlp(layer["mlp"], by_hand.norm(layer["mlp_norm"], image))
    for i in range(2):
        image = by_hand.block(p["image_encoder"][f"blocks_{i}"], image, np.asarray(given["image"].mask))
    image = by_hand.norm(p["image_encoder"]["norm"], image)
    entries, mask = given | {"fused": fused}, given["image"].mask
    assert_rows_close(stream_tokens(entries, "image"), image, mask[:, :, None])
    for name, tokens in looked_at.items():
        assert_rows_close(stream_tokens(entries, name), tokens, given[name].mask[:, :, None])
    pooled = np.where(given["image"].present[:, None], mean(image, mask), mean(context, seen))
    assert_rows_close(fused.pooled, pooled, fused.present[:, None])


def _model(fusion, **text):
    size = {"variant": "custom", "width": 8, "depth": 2, "heads": 2}
    encoders = {
        "image": ViT(**size, patch_size=4, name="image_encoder"),
        "text": TextTransformer(**size, vocab_size=11, name="text_encoder", **text),
    }
    fusion = None if fusion is None else fusion.clone(name="fusion")
    return Model({"image": "image", "text": "text"}, encoders, fusion, {})


BATCH = {
    "image": jax.random.normal(jax.random.key(0), (4, 8, 8, 3)),
    "image_present": jnp.array([True, True, False, False]),
    "text": jnp.arange(20).reshape(4, 5) % 11,
    "text_mask": jnp.ones((4, 5), bool).at[0, 3:].set(False),
    "text_present": jnp.array([True, False, True, False]),
}


def test_closed_gates_leave_a_causal_encoder_as_it_is():
    fusion = GatedCrossAttention("text", heads=2, queries=3, resampler_depth=1)
    model = _model(fusion, causal=True)
    outputs, variables = jax.jit(model.init_with_output)(jax.random.key(1), BATCH)
    alone = {"params": {k: v for k, v in variables["params"].items() if k != "fusion"}}
    plain = jax.jit(_model(None, causal=True).apply)(alone, BATCH)
    for name, value in plain.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        outputs["fused/pooled"][::2],
        plain["text/pooled"][::2] * jnp.array([[1.0], [1.0]]),
        rtol=1e-5,
        atol=1e-6,
    )
    assert np.abs(outputs["fused/pooled"][1]).max() > 0 and not outputs["fused/pooled"][3].any()


def test_bottlenecks_between_an_image_and_a_text_transformer():
    model = _model(Bottleneck(bottlenecks=2, fusion_layer=0), position="relative")
    outputs, variables = jax.jit(model.init_with_output)(jax.random.key(1), BATCH)
    assert outputs["fused/tokens"].shape == (4, 4 + 5, 8)
    both = (outputs["image/pooled"] + outputs["text/pooled"])[0] / 2
    np.testing.assert_allclose(outputs["fused/pooled"][0], both, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs["fused/pooled"][1], outputs["image/pooled"][1], rtol=1e-5, atol=1e-6)
    assert not outputs["text/pooled"][1].any() and not outputs["fused/pooled"][3].any()
    assert set(variables["params"]["fusion"]) == {"bottlenecks"}


class TwoEncoders(nn.Module):
    """A fusion inside the encoders `a` and `b`."""

    fusion: nn.Module
    a: nn.Module
    b: nn.Module

    def __call__(self, x):
        mask = jnp.ones(x.shape[:2], bool)
        stacks = {n: Stack(e, x, mask, mask[:, 0], False) for n, e in (("a", self.a), ("b", self.b))}
        return self.fusion(stacks)


class FixedTokens(cases.Tokens):
    """Says of its blocks what TimeSformer says."""

    fixed_tokens = True


def test_encoders_that_do_not_fit_are_refused():
    small, x = cases.Tokens(**cases.ENCODER), jnp.ones((2, 3, 4))
    wide = cases.Tokens(**cases.ENCODER | {"width": 16})
    with pytest.raises(ConfigError, match="encoders of one depth and width, got a 2 x 8, b 2 x 16; give"):
        TwoEncoders(Bottleneck(fusion_layer=0), small, wide).init(jax.random.key(0), x)
    causal = cases.Tokens(**cases.ENCODER, causal=True)
    with pytest.raises(ConfigError, match="model.streams.b.encoder.causal: is on, but tokens must see"):
        TwoEncoders(Bottleneck(fusion_layer=0), small, causal).init(jax.random.key(0), x)
    fixed = FixedTokens(**cases.ENCODER)
    with pytest.raises(ConfigError, match="model.streams.b.encoder: its blocks take no tokens but its own"):
        TwoEncoders(Bottleneck(fusion_layer=0), small, fixed).init(jax.random.key(0), x)
    with pytest.raises(ConfigError, match="works between the blocks of b, which has none; use an encoder"):
        TwoEncoders(Bottleneck(fusion_layer=0), small, CNN([4])).init(jax.random.key(0), x)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "bottleneck",
            {"fusion_layer": 1},
            "fusion_layer: got 1, expected 0 to 0: bottlenecks are written in",
        ),
        ("bottleneck", {"fusion_layer": -1}, "fusion_layer: got -1, expected 0 to 0"),
        ("bottleneck", {"bottlenecks": 0}, "bottlenecks: got 0, expected a whole number from 1 on"),
        ("gated_cross_attention", {"every": 0}, "every: got 0, expected a whole number from 1 on"),
        ("gated_cross_attention", {"query": "txt"}, r"query: got 'txt' \(did you mean 'text'\?\)"),
    ],
)
def test_bad_settings_are_refused(name, settings, message):
    with pytest.raises(ConfigError, match=f"model.fusion.{message}"):
        cases.small(name, **settings).init(jax.random.key(0), cases.features())
