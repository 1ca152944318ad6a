import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import SMALL, build

from mmjax.encoders.text_transformer import after_first
from mmjax.errors import ConfigError

IDS = jnp.array([[4, 5, 7, 3, 7, 0], [4, 5, 6, 3, 2, 0]])  # the end is 7


def encode(ids, mask=None, **fields):
    encoder = build({"type": "text_transformer", **SMALL, "vocab_size": 11, **fields})
    variables = jax.jit(encoder.init)(jax.random.key(0), ids)
    return jax.jit(encoder.apply)(variables, ids, mask)


def test_after_first():
    expected = [[False, False, False, True, True, True], [False] * 6]
    np.testing.assert_array_equal(after_first(IDS == 7), expected)


@pytest.mark.parametrize("causal", [False, True])
def test_eos_pools_the_first_end_and_what_follows_is_padding(causal):
    features = encode(IDS, causal=causal, pooling="eos", eos_id=7)
    np.testing.assert_array_equal(features.mask, [[True] * 3 + [False] * 3, [True] * 6])
    np.testing.assert_array_equal(features.pooled[0], features.tokens[0, 2])
    np.testing.assert_array_equal(features.pooled[1], features.tokens[1, 5])
    cut = encode(IDS[:1, :3], causal=causal, pooling="eos", eos_id=7)
    np.testing.assert_allclose(features.pooled[0], cut.pooled[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("pooling", "index"), [("cls", 0), ("last", 4)])
def test_pooling_takes_a_token(pooling, index):
    features = encode(IDS, jnp.broadcast_to(IDS[1] > 0, IDS.shape), pooling=pooling)
    np.testing.assert_array_equal(features.pooled[1], features.tokens[1, index])


def test_causal_tokens_do_not_see_what_follows():
    changed = IDS.at[:, 3:].set(9)
    for causal in (True, False):
        a, b = encode(IDS, causal=causal), encode(changed, causal=causal)
        same = np.abs(a.tokens - b.tokens)[:, :3].max() == 0
        assert same == causal


def test_post_norm_with_fixed_positions():
    features = encode(IDS, norm_position="post", position="sinusoidal", eps=1e-12)
    np.testing.assert_allclose(features.tokens.mean(-1), 0.0, atol=1e-5)  # the last thing is a norm
    np.testing.assert_allclose(features.tokens.std(-1), 1.0, rtol=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0, expected the size of the tokenizer's vocabulary"),
        ({"pooling": "eos"}, "eos_id: is missing; pooling 'eos' needs it"),
        ({"max_length": 4}, "max_length: is 4, got 6 tokens"),
    ],
)
def test_what_cannot_be_run(fields, message):
    with pytest.raises(ConfigError, match=message):
        encode(IDS, **fields)


def test_attended_padding_counts_as_text_and_a_missing_text_is_missing():
    """As SigLIP: the mask of a text changes nothing, and its last position is what is pooled."""
    settings = {"attend_padding": True, "pooling": "last", "pooler": "linear"}
    mask = jnp.array([[True] * 3 + [False] * 3, [False] * 6])
    features, whole = encode(IDS, mask, **settings), encode(IDS, **settings)
    np.testing.assert_array_equal(features.mask, [[True] * 6, [False] * 6])
    np.testing.assert_array_equal(features.tokens[0], whole.tokens[0])
    np.testing.assert_array_equal(features.pooled[0], whole.pooled[0])
    np.testing.assert_array_equal(features.pooled[1], 0)
    assert not np.allclose(whole.pooled, whole.tokens[:, -1])  # the linear layer
    with pytest.raises(ConfigError, match="attend_padding: is on, but pooling 'eos'"):
        encode(IDS, attend_padding=True, pooling="eos", eos_id=7)


@pytest.mark.parametrize("position", ["rotary", "relative", "sinusoidal"])
def test_positions_are_told_apart_at_any_length(position):
    same = jnp.full((1, 300), 4)
    features = encode(jnp.where(jnp.arange(300) == 150, 5, same), position=position)
    assert not np.allclose(features.tokens[0, 149], features.tokens[0, 151], atol=1e-5)
