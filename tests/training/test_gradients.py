import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmjax import objectives as objectives_lib
from mmjax.errors import ConfigError
from mmjax.objectives import Objective
from mmjax.objectives.cross_entropy import CrossEntropy
from mmjax.objectives.infonce import InfoNCE
from mmjax.objectives.mse import MeanSquaredError
from mmjax.parallel.mesh import activation_rules, batch_sharding
from mmjax.training.gradients import make_gradient_function

BATCH = toy.make_batch(5)
KEY = jax.random.key(7)


def compute(setup, accumulate_steps=1, trainable=None, objectives=toy.OBJECTIVES, batch=BATCH):
    function = make_gradient_function(
        setup.model,
        objectives,
        setup.shardings.params,
        accumulate_steps=accumulate_steps,
        trainable=trainable,
    )

    def with_rules(*arguments):
        with activation_rules(setup.mesh):
            return function(*arguments)

    batch = jax.device_put(batch, batch_sharding(setup.mesh))
    state = setup.state
    return jax.jit(with_rules)(state.params, state.model_state, batch, KEY)


def assert_same(one, other):
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-6)
    assert one.metrics.keys() == other.metrics.keys()
    for name, value in one.metrics.items():
        np.testing.assert_allclose(value, other.metrics[name], rtol=1e-5, err_msg=name)
    for name, value in one.outputs.items():
        np.testing.assert_allclose(value, other.outputs[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert_close(one.gradients, other.gradients)


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, other)


@pytest.fixture(scope="module")
def single():
    return toy.shared_set_up()


@pytest.fixture(scope="module")
def reference(single):
    return compute(single)


@pytest.mark.parametrize("accumulate_steps", [2, 8])
def test_microbatches_give_what_the_whole_batch_gives(single, reference, accumulate_steps):
    found = compute(single, accumulate_steps)
    assert_same(found, reference)
    # The temperature reaches the loss as a scalar output; the examples of a batch see each other.
    assert abs(float(reference.gradients["log_scale"])) > 1e-3


@pytest.mark.parametrize("mesh, accumulate_steps", [("data", 1), ("fsdp", 2), ("tensor", 1), ("tensor", 2)])
def test_sharded_equals_one_device(reference, mesh, accumulate_steps):
    assert_same(compute(toy.shared_set_up(toy.MESHES[mesh]), accumulate_steps), reference)


def test_both_passes_drop_the_same_units():
    setup = toy.shared_set_up(model=toy.Model(dropout=0.5))
    params, steps = setup.state.params, 2

    def by_hand(params, batch):
        keys = jax.random.split(KEY, steps)
        pieces = []
        for i in range(steps):
            piece = {name: x[i::steps] for name, x in batch.items()}
            outputs = setup.model.apply({"params": params}, piece, train=True, rngs={"dropout": keys[i]})
            pieces.append(outputs)
        joined = {
            name: pieces[0][name]
            if pieces[0][name].ndim == 0
            else jnp.stack([piece[name] for piece in pieces], 1).reshape(toy.BATCH, -1)
            for name in pieces[0]
        }
        return objectives_lib.total_loss(toy.OBJECTIVES, joined, batch)[0]

    loss, gradients = jax.jit(jax.value_and_grad(by_hand))(params, jax.device_put(BATCH))
    found = compute(setup, steps)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-6)
    assert_close(found.gradients, gradients)
    assert abs(float(found.loss) - float(compute(setup).loss)) > 1e-3  # dropout does something


def test_batch_statistics_go_from_microbatch_to_microbatch():
    setup = toy.shared_set_up(model=toy.Model(batch_norm=True))
    state = setup.state.model_state
    for i in range(2):
        piece = {name: x[i::2] for name, x in BATCH.items()}
        _, state = setup.model.apply(
            {"params": setup.state.params, **state}, piece, train=True, mutable=["batch_stats"]
        )
    assert_close(compute(setup, 2).model_state, state)


WISH = np.where(np.arange(16) == 2, np.nan, np.random.default_rng(2).normal(size=(toy.BATCH, 16)))
MEANS_BATCH = BATCH | {
    # The microbatch of rows 1 and 9 has no label at all.
    "label": np.where(np.isin(np.arange(toy.BATCH), (1, 4, 9)), -1, BATCH["label"]),
    "wish": WISH.astype(np.float32),
}
MEANS = {
    "class": CrossEntropy(logits="label", label="label", class_weights=[1.0, 2.0, 3.0, 0.5]),
    "wish": MeanSquaredError(prediction="image_embedding", target="wish", weight=0.3),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole(Objective):
    """A mean of which nothing is known but the loss of a whole batch."""

    inner: Objective

    def reads(self):
        return self.inner.reads()

    def targets(self):
        return self.inner.targets()

    def __call__(self, outputs, batch):
        return self.inner(outputs, batch)


CACHED = {name: Whole(inner=objective, weight=objective.weight) for name, objective in MEANS.items()}


@pytest.mark.parametrize("accumulate_steps", [2, 8])
def test_microbatches_of_means_give_what_the_whole_batch_gives(single, accumulate_steps):
    expected = compute(single, objectives=MEANS, batch=MEANS_BATCH)
    assert_same(compute(single, accumulate_steps, objectives=MEANS, batch=MEANS_BATCH), expected)


@pytest.mark.parametrize("mesh", ["fsdp", "tensor"])
def test_microbatches_of_means_on_a_mesh(single, mesh):
    expected = compute(single, objectives=MEANS, batch=MEANS_BATCH)
    setup = toy.shared_set_up(toy.MESHES[mesh])
    assert_same(compute(setup, 2, objectives=MEANS, batch=MEANS_BATCH), expected)


@pytest.mark.parametrize("model", [toy.Model(dropout=0.5), toy.Model(batch_norm=True)])
def test_means_are_what_cached_gradients_give(model):
    """With the same units dropped, and the same statistics of batches."""
    setup = toy.shared_set_up(model=model)
    found = compute(setup, 4, objectives=MEANS, batch=MEANS_BATCH)
    expected = compute(setup, 4, objectives=CACHED, batch=MEANS_BATCH)
    assert_same(found, expected)
    assert_close(found.model_state, expected.model_state)


@pytest.mark.parametrize(
    ("objectives", "passes"), [(MEANS, 4), (CACHED, 8), (MEANS | {"contrastive": toy.Contrastive()}, 8)]
)
def test_a_second_forward_pass_only_where_examples_see_each_other(objectives, passes):
    calls = []

    class Counting(toy.Model):
        def __call__(self, batch, *, train=False):
            jax.debug.callback(lambda: calls.append(1))
            return super().__call__(batch, train=train)

    setup = toy.set_up(model=Counting())
    calls.clear()
    jax.block_until_ready(compute(setup, 4, objectives=objectives, batch=MEANS_BATCH))
    jax.effects_barrier()
    assert len(calls) == passes


def test_no_gradient_for_what_does_not_move(single, reference):
    moves = jax.tree.map(lambda _: True, single.state.params)
    moves["text_encoder"] = jax.tree.map(lambda _: False, moves["text_encoder"])
    found = compute(single, trainable=moves).gradients
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found["text_encoder"]))
    assert_close(found["image_encoder"], reference.gradients["image_encoder"])


def test_an_output_that_is_not_there(single):
    class ReadsMore(toy.Classification):
        def reads(self):
            return ("lable",)

    with pytest.raises(ConfigError, match="objectives.x: reads 'lable', .*did you mean 'label'"):
        compute(single, objectives={"x": ReadsMore()})


def test_a_batch_that_does_not_split(single):
    with pytest.raises(ConfigError, match="accumulate_steps: got 3, expected a divisor of the 16 rows"):
        compute(single, 3)


@pytest.mark.parametrize("mesh, accumulate_steps", [(None, 2), ("tensor", 2)])
def test_contrast_in_chunks_equals_the_whole_matrix(single, mesh, accumulate_steps):
    fields = {"a": "image_embedding", "b": "text_embedding", "streams": [], "scale": "scale"}
    whole = compute(single, objectives={"contrast": InfoNCE(**fields)})
    setup = toy.shared_set_up(toy.MESHES[mesh]) if mesh else single
    found = compute(setup, accumulate_steps, objectives={"contrast": InfoNCE(**fields, chunk_size=3)})
    assert_same(found, whole)
