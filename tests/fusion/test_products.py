"""Fusions that multiply: tensor fusion, its low-rank form, and factorised bilinear pooling."""

import by_hand
import fusion_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.fusion.bilinear import Bilinear
from mmjax.fusion.common import stream_tokens
from mmjax.fusion.low_rank import LowRank
from mmjax.fusion.tensor import Tensor
from mmjax.types import Features


def one(value, present=True):
    """A stream of one example with one token of width 1."""
    return Features(jnp.full((1, 1, 1), value), jnp.full((1, 1), present), jnp.full((1, 1), value))


def run(fusion, given):
    """(disturbed parameters, fused features)."""
    params = by_hand.disturb(jax.jit(fusion.init)(jax.random.key(0), given)["params"])
    return params, jax.jit(fusion.apply)({"params": params}, given)


def test_tensor_by_hand():
    params = {
        "a_projection": {"kernel": jnp.array([[2.0]]), "bias": jnp.array([1.0])},
        "b_projection": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([0.0])},
        "kernel": jnp.array([[1.0], [10.0], [100.0], [1000.0]]),  # of z_a z_b, z_a, z_b, 1
        "bias": jnp.array([0.5]),
    }

    def fuse(a, b):
        return Tensor(width=1, stream_width=1).apply({"params": params}, {"a": a, "b": b})

    both = fuse(one(1.0), one(2.0))  # z_a = 3, z_b = 6
    assert both.pooled.tolist() == [[18 + 30 + 600 + 1000 + 0.5]]
    assert both.tokens.tolist() == [[[30 + 1000.5], [600 + 1000.5]]]
    without_a = fuse(one(1.0, False), one(2.0))
    assert without_a.pooled.tolist() == [[600 + 1000.5]]


def test_tensor_is_linear_in_the_outer_product_with_ones():
    given = cases.features()
    p, fused = run(Tensor(width=3, stream_width=2), given)
    product = np.ones(1)
    row = 1  # without audio
    for name, stream in given.items():
        z = by_hand.dense(p[f"{name}_projection"], stream.pooled[row]) if name != "audio" else np.zeros(2)
        product = np.multiply.outer(product, np.append(z, 1.0))
    expected = product.reshape(-1) @ p["kernel"] + p["bias"]
    np.testing.assert_allclose(fused.pooled[row], expected, rtol=1e-4, atol=1e-5)


def test_a_tensor_that_explodes_is_refused():
    given = {name: one(1.0) for name in "abcd"}
    message = r"outer product of 4 streams has 33\^4 = 1,185,921 numbers per example, over max_size 100,000"
    with pytest.raises(ConfigError, match=message):
        Tensor().init(jax.random.key(0), given)
    jax.eval_shape(Tensor(max_size=81, stream_width=2).init, jax.random.key(0), given)


def test_low_rank_is_tensor_fusion_with_a_kernel_of_that_rank():
    given, rank = cases.features(), 3
    p, fused = run(LowRank(width=4, rank=rank), given)
    for row in (1, 5):  # without audio, and everything
        kernels, vectors = [], []
        for name, stream in given.items():
            factors = p[f"{name}_factors"]
            kernels.append(np.concatenate([factors["kernel"], factors["bias"][None]]))  # [D + 1, R, width]
            x = np.asarray(stream.pooled[row]) if stream.present[row] else np.zeros(stream.pooled.shape[1])
            vectors.append(np.append(x, 1.0))
        kernel = np.einsum("iro,jro,kro->ijko", *kernels) / rank
        expected = np.einsum("i,j,k,ijko->o", *vectors, kernel) + p["bias"]
        np.testing.assert_allclose(fused.pooled[row], expected, rtol=1e-4, atol=1e-5)


def test_bilinear_by_hand():
    given = cases.features(("image", "text"))
    p, fused = run(Bilinear(width=4, factors=3), given)
    for row, streams in ((0, ("image", "text")), (2, ("text",)), (3, ("image",))):
        product = np.ones(12)
        for name in streams:
            product = product * (given[name].pooled[row] @ p[f"{name}_projection"]["kernel"])
        z = np.array([product[0:3].sum(), product[3:6].sum(), product[6:9].sum(), product[9:12].sum()])
        z = np.sign(z) * np.sqrt(np.abs(z))
        np.testing.assert_allclose(fused.pooled[row], z / np.linalg.norm(z), rtol=1e-4, atol=1e-5)


def test_bilinear_has_finite_gradients_at_zero():
    fusion, given = Bilinear(width=2, factors=2), {"a": one(0.0), "b": one(0.0)}
    variables = fusion.init(jax.random.key(0), given)
    gradient = jax.grad(lambda v: fusion.apply(v, given).pooled.sum())(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", ["bilinear", "low_rank", "tensor"])
def test_a_token_becomes_what_the_fusion_makes_of_it_alone(name):
    given = cases.features()
    absent = {n: f.replace(mask=jnp.zeros_like(f.mask)) for n, f in given.items()}
    token = given["text"].tokens[:, :1]
    alone = Features(token, jnp.ones((8, 1), bool), token[:, 0])
    expected = jax.jit(cases.small(name).apply)(cases.variables(name), absent | {"text": alone}).pooled
    tokens = stream_tokens(given | {"fused": cases.apply(name, given)}, "text")[:, 0]
    rows = np.asarray(given["text"].present)
    np.testing.assert_allclose(tokens[rows], expected[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bilinear", "low_rank", "tensor"])
def test_dropout_acts_in_training_only(name):
    given, rngs = cases.features(), {"dropout": jax.random.key(3)}
    apply = jax.jit(cases.small(name, dropout=0.5).apply, static_argnames="train")
    quiet, noisy = (
        apply(cases.variables(name), given, train=train, rngs=rngs).pooled for train in (False, True)
    )
    np.testing.assert_allclose(quiet, cases.apply(name, given).pooled, rtol=1e-5, atol=1e-6)
    assert jnp.abs(noisy - quiet).max() > 0.01


@pytest.mark.parametrize(
    ("fusion", "key"),
    [(Tensor(stream_width=0), "stream_width"), (LowRank(rank=0), "rank"), (Bilinear(factors=-1), "factors")],
)
def test_sizes_below_one_are_refused(fusion, key):
    with pytest.raises(ConfigError, match=rf"fusion.{key}: got -?\d, expected a whole number from 1 on"):
        fusion.init(jax.random.key(0), cases.features())
