import jax
import jax.numpy as jnp
import numpy as np
from encoder_cases import build

IDS = jnp.array([[3, 4, 5, 0], [3, 0, 0, 0]])
MASK = jnp.array([[True, True, True, False], [True, False, False, False]])


def bag(**fields):
    return build({"type": "embedding_bag", "width": 8, "vocab_size": 11, **fields})


def test_a_token_that_was_never_trained_adds_almost_nothing():
    encoder = bag()
    params = encoder.init(jax.random.key(0), IDS)["params"]
    params["embed"]["embedding"] = params["embed"]["embedding"].at[3].set(1.0)  # 3 was trained
    known = encoder.apply({"params": params}, IDS[1:], MASK[1:]).tokens.sum(axis=1)
    beside_unknown = encoder.apply({"params": params}, IDS[:1], MASK[:1]).tokens.sum(axis=1)
    np.testing.assert_allclose(beside_unknown, known, atol=0.02)


def test_the_bag_is_the_sum_over_the_root_of_the_number():
    encoder = bag(initial=1.0)
    params = encoder.init(jax.random.key(0), IDS)["params"]
    params["down"] = jax.tree.map(jnp.zeros_like, params["down"])  # leaves the residual path
    pooled = encoder.apply({"params": params}, IDS, MASK).pooled
    table = params["embed"]["embedding"]
    np.testing.assert_allclose(pooled[0], (table[3] + table[4] + table[5]) / np.sqrt(3), rtol=1e-6)
    np.testing.assert_allclose(pooled[1], table[3], rtol=1e-6)


def test_without_the_mlp_the_bag_is_linear():
    encoder = bag(initial=1.0, mlp_width=0)
    params = encoder.init(jax.random.key(0), IDS)
    assert set(params["params"]) == {"embed"}
    doubled = jax.tree.map(lambda table: 2 * table, params)
    pooled = encoder.apply(params, IDS, MASK).pooled
    np.testing.assert_allclose(encoder.apply(doubled, IDS, MASK).pooled, 2 * pooled, rtol=1e-6)


def test_token_dropout_leaves_out_some_tokens_but_never_all():
    encoder = bag(initial=1.0, token_dropout=0.9)
    params = encoder.init(jax.random.key(0), IDS)
    masks = []
    for seed in range(30):
        features = encoder.apply(params, IDS, MASK, train=True, rngs={"dropout": jax.random.key(seed)})
        masks.append(np.asarray(features.mask))
    counts = np.stack(masks).sum(axis=2)
    assert counts.min() == 1 and (counts[:, 1] == 1).all()
    assert 1 in counts[:, 0] and not np.stack(masks)[:, 0, 3].any()
    assert encoder.apply(params, IDS, MASK).mask.sum() == MASK.sum()  # none in evaluation
