"""Co-attention: one layer worked out with numpy, its maps, rematerialisation, symmetry."""

import fusion_cases as cases
import jax
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.fusion.co_attention import CoAttention

WIDTH, HEADS = 8, 2


@pytest.fixture(scope="module")
def sown():
    """The collection 'intermediates' of one layer over three streams."""
    fusion, given = cases.small("co_attention"), cases.features()
    apply = jax.jit(lambda v, x: fusion.apply(v, x, mutable=["intermediates"])[1])
    return apply({"params": cases.variables("co_attention")["params"]}, given)["intermediates"]


def test_maps_say_which_stream_looks_at_which(sown):
    lengths = {name: cases.SIZES[name][0] for name in cases.ALL}
    maps = {key: value["attention"][0] for key, value in sown["layers_0"].items() if "_to_" in key}
    assert set(maps) == {f"{a}_to_{b}" for a in cases.ALL for b in cases.ALL if a != b}
    for key, weights in maps.items():
        looker, source = key.split("_to_")
        assert weights.shape == (8, HEADS, lengths[looker], lengths[source])
        visible = cases.features()[source].mask
        np.testing.assert_allclose(weights.sum(axis=-1)[:, 0, 0], visible.any(axis=1), rtol=1e-5)
        assert not np.where(visible[:, None, None, :], 0, weights).any()


def _norm(x):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-6)


def _attention(p, x, context, visible):
    def heads(name, value):
        return np.einsum("bld,dhk->bhlk", value, p[name]["kernel"])

    query, key, value = heads("query", x), heads("key", context), heads("value", context)
    scores = np.einsum("bhqk,bhsk->bhqs", query, key) / np.sqrt(WIDTH // HEADS)
    weights = np.exp(scores) * visible[:, None, None, :]
    weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-30)
    return np.einsum("bhqs,bhsk,hkd->bqd", weights, value, p["out"]["kernel"]) + p["out"]["bias"]


def test_each_stream_adds_the_mean_of_what_it_sees_in_the_others():
    given = cases.features()
    params = jax.tree.map(np.asarray, cases.variables("co_attention")["params"])
    layer = params["layers_0"]
    for name in cases.ALL:  # silence what is not co-attention, and make its bias visible
        for branch in (layer[f"{name}_mlp"]["down"], layer[f"{name}_block"]["mlp"]["down"]):
            branch |= jax.tree.map(np.zeros_like, branch)
        layer[f"{name}_block"]["attention"]["out"]["kernel"] = np.zeros((HEADS, WIDTH // HEADS, WIDTH))
        for other in set(cases.ALL) - {name}:
            layer[f"{name}_to_{other}"]["out"]["bias"] = np.full(WIDTH, 0.3)
    fused = jax.jit(cases.small("co_attention").apply)({"params": params}, given)

    masks = {name: np.asarray(f.mask) for name, f in given.items()}
    x = {
        name: np.where(masks[name][:, :, None], f.tokens, 0) @ params[f"{name}_projection"]["kernel"]
        for name, f in given.items()
    }
    after, means = [], []
    for name in cases.ALL:
        seen, count = 0.0, 0
        for other in sorted(set(cases.ALL) - {name}):
            found = _attention(layer[f"{name}_to_{other}"], _norm(x[name]), _norm(x[other]), masks[other])
            there = masks[other].any(axis=1)[:, None, None]
            seen, count = seen + found * there, count + there
        tokens = _norm(x[name] + seen / np.maximum(count, 1)) * masks[name][:, :, None]
        after.append(tokens)
        means.append(tokens.sum(axis=1) / np.maximum(masks[name].sum(axis=1), 1)[:, None])
    present = np.stack([masks[name].any(axis=1) for name in cases.ALL])
    pooled = np.sum(means, axis=0) / np.maximum(present.sum(axis=0), 1)[:, None]
    np.testing.assert_allclose(fused.tokens, np.concatenate(after, axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fused.pooled, pooled, rtol=1e-4, atol=1e-5)


def test_rematerialisation_changes_nothing():
    streams = ("image", "text")
    given, variables = cases.features(streams), cases.variables("co_attention", streams)
    factors = jax.random.normal(jax.random.key(9), (8, WIDTH))

    def gradient(remat):
        fusion = cases.small("co_attention", remat=remat)
        loss = jax.grad(lambda v: (fusion.apply(v, given).pooled * factors).sum())
        assert ("remat" in str(jax.make_jaxpr(loss)(variables))) == remat
        return jax.jit(loss)(variables)

    recomputed, kept = gradient(True), gradient(False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), recomputed, kept)


def test_heads_must_divide_the_width():
    given = cases.features(("image", "text"))
    with pytest.raises(ConfigError, match="heads: got 3, expected a divisor of the width 8"):
        jax.eval_shape(CoAttention(width=8, heads=3).init, jax.random.key(0), given)


def test_dropout_acts_in_training_only():
    fusion, given = cases.small("co_attention", dropout=0.5), cases.features(("text",))
    apply = jax.jit(fusion.apply, static_argnames="train")
    variables, rngs = cases.variables("co_attention", ("text",)), {"dropout": jax.random.key(3)}
    quiet, noisy = (apply(variables, given, train=train, rngs=rngs).pooled for train in (False, True))
    np.testing.assert_allclose(quiet, cases.apply("co_attention", given).pooled, rtol=1e-5, atol=1e-6)
    assert np.abs(noisy - quiet)[given["text"].present].max(axis=1).min() > 0.01
