import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from mmjax import components
from mmjax.errors import ConfigError
from mmjax.layers.stacking import stack_blocks, unstack_blocks
from mmjax.parallel.placement import named_leaves
from mmjax.training import optimizer
from mmjax.training.state import abstract_params


@pytest.fixture(scope="module")
def params():
    shapes = abstract_params(toy.Model(), toy.make_batch())
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)


def section(method="sgd", **changes):
    fields = changes.pop("fields", {})
    spec = components.normalise({"type": method, **fields}, components.component("optimizers"), "method")
    return toy.OPTIMIZERS["sgd"] | {"method": spec} | changes


def run(tx, params, steps=3):
    """Parameters after a few updates by gradients that are their sines."""

    @jax.jit
    def update(params, state):
        updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = update(params, state)
    return params


def assert_equal(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), one, other)


def rate(step):
    return 0.1 / (1.0 + step)


@pytest.mark.parametrize(
    "method, fields, reference",
    [
        (
            "adamw",
            {"b2": 0.95, "eps": 1e-6, "weight_decay": 0.2},
            optax.adamw(rate, b2=0.95, eps=1e-6, weight_decay=0.2, mask=optimizer.decayed),
        ),
        (
            "lion",
            {"b1": 0.8, "weight_decay": 0.2},
            optax.lion(rate, b1=0.8, weight_decay=0.2, mask=optimizer.decayed),
        ),
        ("sgd", {"momentum": 0.5, "nesterov": True}, optax.sgd(rate, 0.5, nesterov=True)),
        ("sgd", {"momentum": 0.0}, optax.sgd(rate)),
        (
            "adafactor",
            {"min_dim_size_to_factor": 8, "multiply_by_parameter_scale": True, "clipping_threshold": 0.5},
            optax.adafactor(rate, min_dim_size_to_factor=8, clipping_threshold=0.5),
        ),
    ],
)
def test_equals_the_optax_reference(params, method, fields, reference):
    tx = optimizer.make_optimizer(section(method, fields=fields), params, rate)
    assert_equal(run(tx, params), run(reference, params))


@pytest.mark.parametrize("method", ["adamw", "lion", "adafactor"])
def test_the_first_moment_can_be_bfloat16(params, method):
    fields = {"moment_dtype": "bfloat16"} | ({"momentum": 0.9} if method == "adafactor" else {})
    tx = optimizer.make_optimizer(section(method, fields=fields), params, rate)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(tx.init, params))}
    assert jnp.dtype(jnp.bfloat16) in dtypes


def test_weight_decay_is_for_matrices():
    names = {
        "encoder": {
            "patch": {"kernel": 1, "bias": 1},
            "norm": {"scale": 1},
            "attention": {"query": {"kernel": 1, "bias": 1}},
            "embedding": {"embedding": 1},
            "positions": {"table": 1},
            "forward_0": {"input": {"kernel": 1}, "recurrent": 1, "recurrent_bias": 1},
            "cls": 1,
        },
        "scale_head": {"log_scale": 1},
    }
    decays = {name for name, value in named_leaves(optimizer.decayed(names)) if value}
    assert decays == {
        "encoder/patch/kernel",
        "encoder/attention/query/kernel",
        "encoder/embedding/embedding",
        "encoder/forward_0/input/kernel",
        "encoder/forward_0/recurrent",
    }


def test_frozen_parameters_stay_and_carry_no_state(params):
    settings = section("adamw", fields={"weight_decay": 0.1}, frozen=["text_encoder/.*", "log_scale"])
    tx = optimizer.make_optimizer(settings, params, rate)
    after = run(tx, params)
    assert_equal(after["text_encoder"], params["text_encoder"])
    assert_equal(after["log_scale"], params["log_scale"])
    assert not np.allclose(after["label_head"]["kernel"], params["label_head"]["kernel"])

    moving = sum(
        leaf.nbytes for name in ("image_encoder", "label_head") for leaf in jax.tree.leaves(params[name])
    )
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(tx.init(params)))
    assert state == 2 * moving + 2 * 4  # two moments, and the int32 counts of Adam and the schedule

    moves = optimizer.trainable(settings, params)
    assert not any(jax.tree.leaves(moves["text_encoder"])) and all(jax.tree.leaves(moves["image_encoder"]))


def test_only_what_moves_is_clipped_by_its_norm(params):
    settings = section(fields={"momentum": 0.0}, frozen=["(image|text)_encoder/.*"], clip_norm=0.01)
    after = run(optimizer.make_optimizer(settings, params, lambda step: 1.0), params, steps=1)
    change = jax.tree.map(jnp.subtract, after, params)
    assert float(optax.tree.norm(change)) == pytest.approx(0.01, rel=1e-4)


def test_the_first_matching_multiplier_counts(params):
    multipliers = [
        {"pattern": ".*_encoder/.*/bias", "factor": 3.0},
        {"pattern": "text_encoder/.*", "factor": 0.5},
    ]
    settings = section(multipliers=multipliers, fields={"momentum": 0.0})
    factors = dict(named_leaves(optimizer.learning_rate_factors(settings, params)))
    assert factors["text_encoder/patch/bias"] == 3.0
    assert factors["text_encoder/patch/kernel"] == 0.5
    assert factors["image_encoder/patch/kernel"] == 1.0
    after = run(optimizer.make_optimizer(settings, params, rate), params, steps=1)
    moved = jax.tree.map(lambda new, old: (old - new) / (0.1 * jnp.sin(old)), after, params)
    np.testing.assert_allclose(moved["text_encoder"]["patch"]["kernel"], 0.5, rtol=1e-2)
    np.testing.assert_allclose(moved["image_encoder"]["patch"]["kernel"], 1.0, rtol=1e-2)


def test_layer_decay_counts_from_the_top_of_each_encoder():
    norm = {"scale": 1}
    names = {
        "image_encoder": {
            "patch": {"kernel": 1},
            "positions": {"table": 1},
            "cls": 1,
            "blocks_0": {"mlp": {"up": {"kernel": 1}}},
            "blocks_1": {"mlp": {"up": {"kernel": 1}}},
            "norm": norm,
            "pool": {"probe": 1},
        },
        "video_encoder": {
            "image": {"patch": {"kernel": 1}, "blocks_0": {"norm": norm}, "norm": norm},
            "temporal_transformer": {"blocks_0": {"norm": norm}, "blocks_1": {"norm": norm}},
        },
        "audio_encoder": {"conv_0": {"kernel": 1}},
        "fusion": {"blocks_0": {"norm": norm}},
    }
    factors = dict(named_leaves(optimizer.learning_rate_factors(section(layer_decay=0.5), names)))
    assert factors == {
        "image_encoder/patch/kernel": 0.125,
        "image_encoder/positions/table": 0.125,
        "image_encoder/cls": 0.125,
        "image_encoder/blocks_0/mlp/up/kernel": 0.25,
        "image_encoder/blocks_1/mlp/up/kernel": 0.5,
        "image_encoder/norm/scale": 1.0,
        "image_encoder/pool/probe": 1.0,
        "video_encoder/image/patch/kernel": 0.25,
        "video_encoder/image/blocks_0/norm/scale": 0.5,
        "video_encoder/image/norm/scale": 1.0,
        "video_encoder/temporal_transformer/blocks_0/norm/scale": 0.25,
        "video_encoder/temporal_transformer/blocks_1/norm/scale": 0.5,
        "audio_encoder/conv_0/kernel": 1.0,  # no blocks, so nothing to count
        "fusion/blocks_0/norm/scale": 1.0,
    }


def test_layer_decay_of_stacked_layers_is_that_of_layers_one_by_one():
    one_by_one = {f"blocks_{i}": {"w": np.ones((2,)), "k": np.ones((2, 3))} for i in range(3)}
    params = {"image_encoder": {"patch": np.ones(4), **one_by_one}, "head": np.ones(1)}
    settings = section(layer_decay=0.5)
    expected = optimizer.learning_rate_factors(settings, params)
    stacked = optimizer.learning_rate_factors(settings, stack_blocks(params))
    whole = jax.tree.map(np.broadcast_to, stacked, jax.tree.map(np.shape, stack_blocks(params)))
    jax.tree.map(
        np.testing.assert_array_equal,
        unstack_blocks(whole),
        jax.tree.map(lambda factor, p: np.full(p.shape, factor), expected, params),
    )


def test_layer_decay_without_layers():
    with pytest.raises(
        ConfigError, match="optimizer.layer_decay: got 0.5, but no encoder has numbered blocks"
    ):
        optimizer.learning_rate_factors(section(layer_decay=0.5), {"label_head": {"kernel": 1}})


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"frozen": ["txt_encoder/.*"]},
            r"optimizer.frozen: 'txt_encoder/\.\*' matches no .*near: text_encoder",
        ),
        ({"frozen": ["text_encoder"]}, "a pattern matches a whole path.*near: text_encoder"),
        ({"multipliers": [{"pattern": "xyz", "factor": 1.0}]}, "optimizer.multipliers: 'xyz' matches no"),
        ({"frozen": [".*"]}, "matches every parameter; nothing would be trained"),
    ],
)
def test_patterns_that_cannot_be_meant(params, changes, message):
    with pytest.raises(ConfigError, match=message):
        optimizer.make_optimizer(section(**changes), params, rate)
