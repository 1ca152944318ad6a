"""Fusions by attention, each worked out with numpy from the paper's formula, and their settings.

Co-attention has a file of its own.
"""

import by_hand
import fusion_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.text_transformer import TextTransformer
from mmjax.encoders.vit import ViT
from mmjax.errors import ConfigError
from mmjax.fusion.common import stream_tokens
from mmjax.layers.stacking import stack_blocks
from mmjax.model import Model

WITH_DEPTH = ["cross_attention", "merged_attention", "perceiver_resampler", "q_former"]


def run(name, depth=1, **settings):
    """(parameters, features, fused) with disturbed parameters."""
    given, fusion = cases.features(), cases.small(name, depth=depth, **settings)
    params = by_hand.disturb(jax.jit(fusion.init)(jax.random.key(0), given)["params"])
    return params, given, jax.jit(fusion.apply)({"params": params}, given)


def learned(p, batch=8):
    return np.broadcast_to(p["vectors"], (batch, *p["vectors"].shape))


def ones(count, batch=8):
    return np.ones((batch, count), bool)


def join(parts, names):
    return np.concatenate([parts[name] for name in names], axis=1)


def assert_rows_close(actual, expected, mask, **tolerances):
    np.testing.assert_allclose(np.where(mask, actual, 0), np.where(mask, expected, 0), **tolerances)


def test_merged_attention_is_one_transformer_over_all_tokens():
    p, given, fused = run("merged_attention")
    tokens, masks = by_hand.typed(p["embed"], given), {name: f.mask for name, f in given.items()}
    x = np.concatenate([learned(p["class_token"]), join(tokens, cases.ALL)], axis=1)
    mask = np.concatenate([ones(1), join(masks, cases.ALL)], axis=1)
    x = by_hand.norm(p["transformer"]["norm"], by_hand.block(p["transformer"]["blocks_0"], x, mask))
    assert_rows_close(fused.tokens, x, fused.mask[:, :, None], rtol=1e-4, atol=1e-5)
    assert_rows_close(fused.pooled, x[:, 0], fused.present[:, None], rtol=1e-4, atol=1e-5)


def test_over_encoders_of_depth_0_it_is_vilt():
    size = {"variant": "custom", "width": 8, "depth": 0, "heads": 2, "final_norm": "none"}
    encoders = {
        "image": ViT(**size, patch_size=4, pooling="mean", name="image_encoder"),
        "text": TextTransformer(**size, vocab_size=11, name="text_encoder"),
    }
    fusion = cases.small("merged_attention", depth=2).clone(name="fusion")
    model = Model({"image": "image", "text": "text"}, encoders, fusion, {})
    batch = {"image": jnp.ones((2, 8, 8, 3)), "text": jnp.ones((2, 5), jnp.int32)}
    outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), batch)
    assert outputs["fused/tokens"].shape == (2, 1 + 4 + 5, 8)
    params = variables["params"]
    assert set(params["image_encoder"]) == {"patch", "positions"}  # patches and words are only embedded
    assert set(params["text_encoder"]) == {"embedding", "positions"}


def test_cross_attention_lets_the_query_stream_look_at_the_others():
    p, given, fused = run("cross_attention", query="image")
    tokens, masks = by_hand.typed(p["embed"], given), {name: f.mask for name, f in given.items()}
    tokens |= {name: by_hand.norm(p["context_norm"], tokens[name]) for name in ("audio", "text")}
    x = np.concatenate([learned(p["class_token"]), tokens["image"]], axis=1)
    mask = np.concatenate([ones(1), masks["image"]], axis=1)
    context, seen = join(tokens, ("audio", "text")), join(masks, ("audio", "text"))
    x = by_hand.block(p["transformer"]["blocks_0"], x, mask, context, seen)
    x = by_hand.norm(p["transformer"]["norm"], x)
    assert_rows_close(fused.pooled, x[:, 0], fused.present[:, None], rtol=1e-4, atol=1e-5)
    entries = given | {"fused": fused}
    for name, expected in {**tokens, "image": x[:, 1:]}.items():
        assert_rows_close(
            stream_tokens(entries, name), expected, masks[name][:, :, None], rtol=1e-4, atol=1e-5
        )


def test_the_context_of_cross_attention_does_not_look_back():
    given = cases.features(missing=False)
    other = given | {"text": cases.features(missing=False, seed=5)["text"]}  # the query stream
    fused, changed = cases.apply("cross_attention", given), cases.apply("cross_attention", other)
    for name in ("audio", "image"):
        before, after = (stream_tokens(given | {"fused": f}, name) for f in (fused, changed))
        np.testing.assert_array_equal(before, after)
    assert np.abs(fused.pooled - changed.pooled).max(axis=1).min() > 1e-3


def test_the_resamplers_queries_look_at_all_tokens_and_at_each_other():
    p, given, fused = run("perceiver_resampler")
    tokens, masks = by_hand.typed(p["embed"], given), {name: f.mask for name, f in given.items()}
    layer, queries = p["layers_0"], learned(p["learned_queries"])
    normed = by_hand.norm(layer["query_norm"], queries)
    context = by_hand.norm(layer["context_norm"], join(tokens, cases.ALL))
    context = np.concatenate([context, normed], axis=1)
    seen = np.concatenate([join(masks, cases.ALL), ones(2)], axis=1)
    queries = queries + by_hand.attention(layer["attention"], normed, context, seen)
    queries = queries + by_hand.mlp(layer["mlp"], by_hand.norm(layer["mlp_norm"], queries))
    queries = by_hand.norm(p["norm"], queries)
    present = fused.present[:, None]
    assert_rows_close(fused.tokens[:, :2], queries, present[:, :, None], rtol=1e-4, atol=1e-5)
    assert_rows_close(fused.pooled, queries.mean(axis=1), present, rtol=1e-4, atol=1e-5)


def test_q_former_by_hand():
    p, given, fused = run("q_former", depth=2, cross_every=2)
    tokens, masks = by_hand.typed(p["embed"], given), {name: f.mask for name, f in given.items()}
    context = by_hand.norm(p["context_norm"], join(tokens, ("audio", "image")))
    seen = join(masks, ("audio", "image"))
    both = np.concatenate([learned(p["learned_queries"]), tokens["text"]], axis=1)
    visible = np.concatenate([ones(2), masks["text"]], axis=1)
    for i in range(2):
        block = p[f"blocks_{i}"]
        assert ("cross_attention" in block) == (i == 0)
        normed = by_hand.norm(block["attention_norm"], both)
        both = both + by_hand.attention(block["attention"], normed, normed, visible)
        queries, words = both[:, :2], both[:, 2:]
        if i == 0:
            normed = by_hand.norm(block["cross_norm"], queries)
            queries = queries + by_hand.attention(block["cross_attention"], normed, context, seen)
        normed = by_hand.norm(block["query_mlp_norm"], queries)
        queries = queries + by_hand.mlp(block["query_mlp"], normed)
        words = words + by_hand.mlp(block["text_mlp"], by_hand.norm(block["text_mlp_norm"], words))
        both = np.concatenate([queries, words], axis=1)
    queries = by_hand.norm(p["norm"], queries)
    present = fused.present[:, None]
    assert_rows_close(fused.pooled, queries.mean(axis=1), present, rtol=1e-4, atol=1e-5)
    words = by_hand.norm(p["text_norm"], words)
    found = stream_tokens(given | {"fused": fused}, "text")
    assert_rows_close(found, words, masks["text"][:, :, None], rtol=1e-4, atol=1e-5)


def test_q_former_without_a_text_stream_looks_at_all():
    given, fusion = cases.features(), cases.small("q_former", text=None)
    params = jax.eval_shape(fusion.init, jax.random.key(0), given)["params"]
    assert "text_mlp" not in params["blocks_0"] and "cross_attention" in params["blocks_0"]


@pytest.mark.parametrize("name", ["merged_attention", "perceiver_resampler", "q_former"])
def test_rematerialisation_changes_nothing(name):
    given, variables = cases.features(), cases.variables(name)
    factors = jax.random.normal(jax.random.key(9), (8, 8))

    def gradient(remat):
        fusion = cases.small(name, remat=remat)
        loss = jax.grad(lambda v: (fusion.apply(v, given).pooled * factors).sum())
        assert ("remat" in str(jax.make_jaxpr(loss)(variables))) == remat
        return jax.jit(loss)(variables)

    recomputed, kept = gradient(True), gradient(False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), recomputed, kept)


@pytest.mark.parametrize("name", WITH_DEPTH)
def test_dropout_acts_in_training_only(name):
    given, rngs = cases.features(), {"dropout": jax.random.key(3)}
    apply = jax.jit(cases.small(name, dropout=0.5).apply, static_argnames="train")
    quiet, noisy = (
        apply(cases.variables(name), given, train=train, rngs=rngs).pooled for train in (False, True)
    )
    np.testing.assert_allclose(quiet, cases.apply(name, given).pooled, rtol=1e-5, atol=1e-6)
    assert jnp.abs(noisy - quiet).max() > 0.01


@pytest.mark.parametrize("name", WITH_DEPTH)
def test_bad_sizes_are_refused(name):
    given = cases.features()
    with pytest.raises(ConfigError, match="fusion.depth: got 0, expected a whole number from 1 on"):
        cases.small(name, depth=0).init(jax.random.key(0), given)
    with pytest.raises(ConfigError, match="heads: got 3, expected a divisor of the width 8"):
        jax.eval_shape(cases.small(name, heads=3).init, jax.random.key(0), given)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cross_attention", {"query": "txt"}, r"query: got 'txt' \(did you mean 'text'\?\), expected one of"),
        ("q_former", {"text": "words"}, "text: got 'words', expected one of the streams: audio, image, text"),
        ("q_former", {"cross_every": 0}, "cross_every: got 0, expected a whole number from 1 on"),
        ("q_former", {"queries": 0}, "queries: got 0"),
        ("perceiver_resampler", {"queries": 0}, "queries: got 0"),
    ],
)
def test_bad_settings_are_refused(name, settings, message):
    with pytest.raises(ConfigError, match=f"model.fusion.{message}"):
        cases.small(name, **settings).init(jax.random.key(0), cases.features())


@pytest.mark.parametrize("name", ["merged_attention", "cross_attention"])
def test_scanned_layers_fuse_the_same(name):
    given = cases.features()
    settings = {"depth": 2} | ({"query": "text"} if name == "cross_attention" else {})
    unrolled, scanned = (cases.small(name, scan=scan, **settings) for scan in (False, True))
    variables = jax.jit(unrolled.init)(jax.random.key(1), given)
    stacked = {"params": stack_blocks(variables["params"])}
    assert "blocks" in stacked["params"]["transformer"]
    expected, got = (jax.jit(m.apply)(v, given) for m, v in ((unrolled, variables), (scanned, stacked)))
    np.testing.assert_allclose(got.pooled, expected.pooled, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.tokens, expected.tokens, rtol=1e-4, atol=1e-5)
