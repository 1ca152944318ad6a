import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from toy import assert_equal, host

from mmjax.training.state import shardings_of
from mmjax.training.step import make_eval_step, pop_non_finite


def train(setup, steps=3):
    """Losses of a few steps on different batches, and the last state and metrics."""
    state, losses = setup.state, []
    for i in range(steps):
        state, metrics = setup.step(state, toy.make_batch(i))
        losses.append(float(metrics["loss"][0]))
    return losses, state, metrics


def test_training_lowers_the_loss():
    setup = toy.shared_set_up()
    state, batch = setup.state, toy.make_batch()
    losses = []
    for _ in range(30):
        state, metrics = setup.step(state, batch)
        losses.append(float(metrics["loss"][0]))
    assert losses[-1] < 0.5 * losses[0]
    assert int(state.step) == 30
    assert setup.step._cache_size() == 1


@pytest.mark.parametrize("mesh", toy.MESHES)
def test_sharded_training_equals_one_device(mesh):
    expected, single, _ = train(toy.shared_set_up(optimizer="sgd", ema=0.9))
    setup = toy.shared_set_up(toy.MESHES[mesh], optimizer="sgd", ema=0.9)
    found, state, _ = train(setup)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, host(state.params), host(single.params))
    jax.tree.map(close, host(state.ema), host(single.ema))
    assert shardings_of(state) == setup.shardings
    assert setup.step._cache_size() == 1


def test_metrics_say_what_the_step_did():
    setup = toy.shared_set_up(optimizer="sgd", ema=0.9)
    before = setup.initial
    state, metrics = setup.step(setup.state, toy.make_batch())
    assert pop_non_finite(metrics) == []
    assert set(metrics) == {
        "loss",
        "contrastive/loss",
        "contrastive/accuracy",
        "classification/loss",
        "grad_norm",
        "learning_rate",
    }
    total = metrics["contrastive/loss"][0] + 0.5 * metrics["classification/loss"][0]
    np.testing.assert_allclose(metrics["loss"][0], total, rtol=1e-6)
    assert metrics["contrastive/accuracy"][1] == toy.BATCH - 1  # one row is padding
    np.testing.assert_allclose(metrics["learning_rate"][0], 0.01)
    change = jax.tree.map(jnp.subtract, before.params, state.params)
    np.testing.assert_allclose(optax.tree.norm(change), 0.01 * metrics["grad_norm"][0], rtol=1e-3)
    average = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, before.params, host(state.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), host(state.ema), average)


def test_the_given_state_is_consumed():
    setup = toy.shared_set_up()
    state = setup.state
    setup.step(state, toy.make_batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_same_seed_same_bits_and_every_step_draws_anew():
    setup = toy.shared_set_up(model=toy.Model(dropout=0.5))
    one, other = train(setup), train(setup)
    assert one[0] == other[0]
    assert_equal(host(one[1]), host(other[1]))

    def loss(**changes):
        return float(setup.step(setup.state.replace(**changes), toy.make_batch())[1]["loss"][0])

    assert loss() == loss()
    assert loss() != loss(step=jnp.int32(1))
    assert loss() != loss(key=jax.random.key_data(jax.random.key(99)))


def test_frozen_parameters_do_not_move():
    setup = toy.set_up(frozen=["text_encoder/.*"])
    before = setup.initial.params
    _, state, metrics = train(setup)
    assert_equal(before["text_encoder"], host(state.params["text_encoder"]))
    assert not np.array_equal(before["log_scale"], state.params["log_scale"])
    assert pop_non_finite(metrics) == []


def test_batch_transforms_run_in_order_each_with_its_key():
    keys = []

    def halve(batch, key):
        keys.append(key)
        return batch | {"image": batch["image"] / 2}

    def shift(batch, key):
        keys.append(key)
        assert batch["image"].shape[0] == toy.BATCH
        return batch | {"image": batch["image"] + 1}

    setup, plain = toy.set_up(batch_transforms=[halve, shift]), toy.shared_set_up()
    _, metrics = setup.step(setup.state, toy.make_batch())
    batch = toy.make_batch()
    _, expected = plain.step(plain.state, batch | {"image": batch["image"] / 2 + 1})
    np.testing.assert_allclose(metrics["loss"][0], expected["loss"][0], rtol=1e-6)
    assert len(keys) == 2 and keys[0] is not keys[1]


def test_a_nan_in_the_batch_is_named():
    setup = toy.shared_set_up(model=toy.Model(batch_norm=True), ema=0.9)
    _, state, _ = train(setup, steps=1)
    batch = toy.make_batch()
    batch["text"][2] = np.nan
    state, metrics = setup.step(state, batch)
    found = pop_non_finite(metrics)
    assert "loss" in found and "outputs/text_embedding" in found
    assert "outputs/image_embedding" not in found and "outputs/label" not in found
    assert not any(name.startswith("non_finite") for name in metrics)


def test_a_nan_that_only_the_gradient_has_is_named():
    class Corner(toy.Classification):
        def __call__(self, outputs, batch):
            return jnp.sqrt(jnp.square(outputs["label"] * 0.0).sum()), {}  # sqrt has no slope at 0

    setup = toy.set_up(objectives={"corner": Corner()})
    _, metrics = setup.step(setup.state, toy.make_batch())
    assert pop_non_finite(metrics) == ["gradients/image_encoder", "gradients/label_head"]
    assert float(metrics["loss"][0]) == 0.0


def test_the_step_keeps_no_second_copy_of_the_state():
    """Parameters and moments are replaced in place, layer by layer."""

    class Deep(nn.Module):
        @nn.compact
        def __call__(self, batch, *, train=False):
            x = batch["image"].reshape(len(batch["image"]), -1)
            for _ in range(8):
                x = jnp.tanh(nn.Dense(128)(x))
            return {"label": x}

    class Squares(toy.Classification):
        def __call__(self, outputs, batch):
            return jnp.square(outputs["label"]).sum(), {}

    setup = toy.set_up(model=Deep(), objectives={"squares": Squares()}, optimizer="sgd")
    compiled = setup.step.lower(setup.state, toy.make_batch()).compile()
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(setup.initial))
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * state


@pytest.mark.parametrize("mesh", [(), toy.TENSOR], ids=["single", "tensor"])
def test_evaluation_returns_named_arrays_whole(mesh):
    setup = toy.shared_set_up(mesh, model=toy.Model(dropout=0.5, batch_norm=True))
    names = ["label", "scale", "example_mask"]
    step = make_eval_step(setup.model, names, mesh=setup.mesh, shardings=setup.shardings)
    batch, initial = toy.make_batch(), setup.initial
    found = step(initial.params, initial.model_state, batch)
    expected = setup.model.apply({"params": initial.params, **initial.model_state}, batch, train=False)
    assert set(found) == {"label", "scale", "example_mask"}
    np.testing.assert_allclose(found["label"], expected["label"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["example_mask"], batch["example_mask"])
    assert all(x.sharding.is_fully_replicated for x in found.values())


def test_evaluation_leaves_out_what_a_batch_does_not_have():
    setup = toy.shared_set_up()
    step = make_eval_step(setup.model, ["label", "genus"], mesh=setup.mesh, shardings=setup.shardings)
    found = step(setup.initial.params, setup.initial.model_state, toy.make_batch())
    assert set(found) == {"label"}
