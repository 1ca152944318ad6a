import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmjax.training.optimizer import make_optimizer
from mmjax.training.state import create_state, replace_params, shardings_of


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def create(mesh, seed):
    setup = toy.shared_set_up(mesh, ema=0.9)
    tx = make_optimizer(toy.OPTIMIZERS["adamw"], setup.abstract.params, toy.schedule)
    return create_state(setup.model, toy.make_batch(), tx, setup.abstract, seed=seed), setup


@pytest.mark.parametrize("mesh", toy.MESHES)
def test_the_seed_alone_decides_the_numbers(mesh):
    one, _ = create((), seed=3)
    other, setup = create(toy.MESHES[mesh], seed=3)
    assert_equal(one, other)
    assert shardings_of(other) == setup.shardings
    different = setup.initial.params["label_head"]["kernel"]
    assert not np.allclose(one.params["label_head"]["kernel"], different)


def test_what_a_fresh_state_holds():
    state = toy.shared_set_up(model=toy.Model(batch_norm=True)).state
    assert state.step == 0 and state.step.dtype == jnp.int32
    assert state.key.dtype == jnp.uint32
    assert set(state.model_state) == {"batch_stats"}
    assert state.ema is None and state.eval_params is state.params
    averaged = toy.shared_set_up(ema=0.9).state
    assert_equal(averaged.eval_params, averaged.ema)
    assert_equal(averaged.ema, averaged.params)


def test_parameters_of_another_run_go_where_they_live():
    setup = toy.shared_set_up(toy.FSDP, ema=0.9)
    params = jax.tree.map(lambda x: np.full(x.shape, 2.0, x.dtype), setup.abstract.params)
    state = replace_params(setup.state, params)
    assert_equal(state.params, params)
    assert_equal(state.ema, params)
    assert shardings_of(state) == setup.shardings
    moved, _ = setup.step(state, toy.make_batch())  # params and ema do not share buffers
    assert int(moved.step) == 1
