import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.layers import attention
from mmjax.layers.attention import MultiHeadAttention, attention_weights, dot_product_attention, token_mask


def heads(seed, length, batch=2, count=2, width=8, dtype=jnp.float32):
    values = np.random.default_rng(seed).normal(size=(batch, length, count, width))
    return jnp.asarray(values, dtype)


# Compiled whole: one call costs less than compiling each of its operations.
attend = jax.jit(dot_product_attention, static_argnames="causal")
weigh = jax.jit(attention_weights, static_argnames="causal")


def test_by_hand():
    # One query 1, keys 0 and ln 3: weights 1/4 and 3/4 of the values 1 and 5.
    query = jnp.ones((1, 1, 1, 1))
    key = jnp.array([0.0, np.log(3.0)]).reshape(1, 2, 1, 1)
    value = jnp.array([1.0, 5.0]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(weigh(query, key)[0, 0, 0], [0.25, 0.75], rtol=1e-6)
    np.testing.assert_allclose(attend(query, key, value), 4.0 * query, rtol=1e-6)


def test_scores_are_divided_by_the_root_of_the_head_width():
    # query . key = 4 ln 3 / 2 with K = 4, so the score is ln 3.
    query, key = (
        jnp.ones((1, 1, 1, 4)),
        jnp.stack([jnp.zeros((1, 1, 4)), jnp.full((1, 1, 4), np.log(3) / 2)], 1),
    )
    np.testing.assert_allclose(weigh(query, key)[0, 0, 0], [0.25, 0.75], rtol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_jax(causal, masked):
    query, key, value = heads(0, 5), heads(1, 5), heads(2, 5)
    mask = token_mask(jnp.arange(5) < jnp.array([[5], [3]])) if masked else None
    expected = jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=causal)
    got = attend(query, key, value, mask, causal=causal)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_weights_are_those_of_the_average(causal):
    query, key, value = heads(0, 4), heads(1, 4), heads(2, 4)
    mask = token_mask(jnp.array([[0, 1, 1, 0], [0, 0, 0, 0]], bool))
    weights = weigh(query, key, mask, causal=causal)
    average = jnp.einsum("bhqs,bshk->bqhk", weights, value)
    np.testing.assert_allclose(average, attend(query, key, value, mask, causal=causal), rtol=1e-5, atol=1e-6)
    sees_any = [[0.0, 1, 1, 1], [0.0] * 4] if causal else [[1.0] * 4, [0.0] * 4]
    np.testing.assert_allclose(weights.sum(-1)[:, 0], sees_any, atol=1e-6)


def test_padding_changes_nothing():
    query, key, value = heads(0, 3), heads(1, 4), heads(2, 4)
    mask = token_mask(jnp.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool))
    real = jnp.swapaxes(mask, 1, 3)
    other = attend(query, jnp.where(real, key, 1e3), jnp.where(real, value, -1e3), mask)
    np.testing.assert_array_equal(attend(query, key, value, mask), other)


def test_rows_without_keys_are_zero_and_pass_no_gradient():
    query, key, value = heads(0, 3), heads(1, 4), heads(2, 4)
    mask = token_mask(jnp.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool))

    @jax.jit
    @jax.grad
    def gradients(arguments):
        return jnp.sum(jnp.square(attend(*arguments, mask) + 1.0))

    attended = attend(query, key, value, mask)
    np.testing.assert_array_equal(attended[1], 0.0)
    for gradient in gradients((query, key, value)):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient[0]).max() > 0
        np.testing.assert_array_equal(gradient[1], 0.0)


def test_causal_hides_the_future():
    query, key, value = heads(0, 4), heads(1, 4), heads(2, 4)
    before = attend(query, key, value, causal=True)
    after = attend(query, key.at[:, 2:].add(1.0), value.at[:, 2:].add(1.0), causal=True)
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert np.abs(before - after)[:, 2:].min(axis=(0, 2)).max() > 0


def test_causal_needs_as_many_keys_as_queries():
    with pytest.raises(ValueError, match="3 queries and 4 keys"):
        attend(heads(0, 3), heads(1, 4), heads(2, 4), causal=True)


def test_softmax_is_float32_in_bfloat16():
    query, key = heads(0, 64, dtype=jnp.bfloat16), heads(1, 64, dtype=jnp.bfloat16)
    weights = weigh(query, key)
    assert weights.dtype == jnp.float32
    exact = weigh(query.astype(jnp.float32), key.astype(jnp.float32))
    np.testing.assert_allclose(weights, exact, rtol=1e-5)
    assert attend(query, key, key).dtype == jnp.bfloat16


def test_forward_mode():
    query = heads(0, 3)
    tangent = jax.jvp(lambda q: attend(q, q, q, causal=True), (query,), (query,))[1]
    assert np.isfinite(tangent).all()


@pytest.mark.parametrize("lengths", [(4, 6), (5, 7), (3, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_what_cudnn_is_given(monkeypatch, lengths, causal):
    """Even lengths and a whole mask; what comes back is that of the plain path."""
    if causal and lengths[0] != lengths[1]:
        lengths = (lengths[0], lengths[0])
    query, key, value = heads(0, lengths[0]), heads(1, lengths[1]), heads(2, lengths[1])
    mask = token_mask(jnp.stack([jnp.arange(lengths[1]) < 2, jnp.zeros(lengths[1], bool)]))
    expected = attend(query, key, value, mask, causal=causal)
    plain = jax.nn.dot_product_attention
    calls = []

    def cudnn(query, key, value, *, bias, mask, is_causal, implementation):
        assert implementation == "cudnn" and bias is None
        assert query.shape[1] % 2 == key.shape[1] % 2 == 0
        assert mask.shape[2:] == (query.shape[1], key.shape[1])
        calls.append(mask)
        return plain(query, key, value, mask=mask, is_causal=is_causal)

    monkeypatch.setattr(attention, "_fits_cudnn", lambda query: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", cudnn)
    got = dot_product_attention(query, key, value, mask, causal=causal)
    assert len(calls) == 1
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
@pytest.mark.parametrize("length", [64, 77])
@pytest.mark.parametrize("causal", [False, True])
def test_cudnn_equals_the_plain_path(length, causal):
    query, key, value = (heads(i, length, width=64, dtype=jnp.bfloat16) for i in range(3))
    mask = token_mask(jnp.arange(length) < jnp.array([[length - 9], [0]]))

    def value_and_gradient(attend):
        def total(arguments):
            return jnp.square(attend(*arguments).astype(jnp.float32)).sum()

        return jax.jit(jax.value_and_grad(total))((query, key, value))

    assert attention._fits_cudnn(query)
    fused = value_and_gradient(lambda q, k, v: dot_product_attention(q, k, v, mask, causal=causal))

    def plain(q, k, v):
        weights = attention_weights(q, k, mask, causal=causal)
        return jnp.einsum("bhqs,bshk->bqhk", weights.astype(v.dtype), v)

    # bfloat16 has 8 bits: sums of its products differ by some 1%.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=2e-2, atol=2e-2
        ),
        fused,
        value_and_gradient(plain),
    )


def test_parameters_are_named_by_role_and_shaped_by_head():
    module = MultiHeadAttention(width=12, heads=3, head_width=5, biased=("query", "value"))
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((2, 4, 7)))
    assert jax.tree.map(jnp.shape, variables["params"]) == {
        "query": {"kernel": (7, 3, 5), "bias": (3, 5)},
        "key": {"kernel": (7, 3, 5)},
        "value": {"kernel": (7, 3, 5), "bias": (3, 5)},
        "out": {"kernel": (3, 5, 12)},
    }


def test_cross_attention_reads_a_context_of_another_width():
    module = MultiHeadAttention(width=8, heads=2)
    x, context = jnp.ones((2, 3, 8)), heads(1, 5, count=1, width=6)[:, :, 0]
    mask = token_mask(jnp.arange(5) < jnp.array([[5], [2]]))
    variables = jax.jit(module.init)(jax.random.key(0), x, context, mask)
    full = module.apply(variables, x, context, mask)
    assert full.shape == (2, 3, 8)
    short = module.apply(variables, x[1:], context[1:, :2])
    np.testing.assert_allclose(full[1:], short, rtol=1e-5, atol=1e-6)


def test_weights_are_sown_only_when_asked_for():
    module, x = MultiHeadAttention(width=8, heads=2), jnp.ones((2, 3, 8))
    variables = jax.jit(module.init)(jax.random.key(0), x)
    assert set(variables) == {"params"}
    _, sown = module.apply(variables, x, mutable=["intermediates"])
    (weights,) = sown["intermediates"]["attention"]
    assert weights.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(weights, 1 / 3, rtol=1e-5)


def test_step_by_step_with_kept_keys_equals_causal_attention():
    module = MultiHeadAttention(width=8, heads=2, causal=True)
    x = jax.random.normal(jax.random.key(1), (2, 3, 8))
    variables = jax.jit(module.init)(jax.random.key(0), x)
    key, value = module.apply(variables, x, method="project_context")
    steps = []
    for i in range(3):
        query = module.apply(variables, x[:, i : i + 1], method="project_query")
        steps.append(module.apply(variables, query, key[:, : i + 1], value[:, : i + 1], method="attend"))
    np.testing.assert_allclose(jnp.concatenate(steps, 1), module.apply(variables, x), rtol=1e-5, atol=1e-6)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="heads: got 3, expected a divisor of the width 8"):
        MultiHeadAttention(width=8, heads=3).init(jax.random.key(0), jnp.ones((1, 2, 8)))
