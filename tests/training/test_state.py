import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmjax.errors import ConfigError
from mmjax.parallel.placement import named_leaves
from mmjax.training.optimizer import make_optimizer
from mmjax.training.state import create_state, merge_params, replace_params, shardings_of


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
    assert averaged.eval_params is averaged.ema
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


def tree(**values):
    return {"encoder": {name: np.full((2, 3), value, np.float32) for name, value in values.items()}}


def test_merge_takes_equal_paths():
    target, source = tree(a=0, b=0, c=0), tree(a=1, b=2, z=3)
    merged, report = merge_params(target, source, exclude=["encoder/b"])
    assert {name: leaf[0, 0] for name, leaf in named_leaves(merged)} == {
        "encoder/a": 1,
        "encoder/b": 0,
        "encoder/c": 0,
    }
    assert report.taken == ["encoder/a"]
    assert report.fresh == ["encoder/b", "encoder/c"]
    assert report.unused == ["encoder/b", "encoder/z"]


def test_merge_refuses_other_shapes_and_empty_results():
    source = {"encoder": {"a": np.zeros((3, 3), np.float32)}}
    with pytest.raises(ConfigError, match=r"encoder/a is \(3, 3\) in the source and \(2, 3\) in this model"):
        merge_params(tree(a=0), source)
    merge_params(
        tree(a=0, b=0), source | {"encoder": source["encoder"] | tree(b=1)["encoder"]}, ["encoder/b"]
    )
    with pytest.raises(ConfigError, match="init: no parameter is taken"):
        merge_params(tree(a=0), tree(a=1), include=["encoder"])
