"""The contrastive losses in chunks against the same losses from the whole matrix."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from objectives import contrastive_cases as cases

from mmjax.errors import ConfigError
from mmjax.objectives.infonce import InfoNCE
from mmjax.objectives.sigmoid import Sigmoid
from mmjax.parallel.mesh import AXES, activation_rules, batch_sharding, make_mesh, replicated

FIELDS = {"a": "image_embedding", "b": "text_embedding", "streams": ["image", "text"], "scale": "scale"}
OBJECTIVES = {
    "infonce": functools.partial(InfoNCE, **FIELDS),
    "sigmoid": functools.partial(Sigmoid, **FIELDS, bias="bias"),
}
MESHES = {
    "data": {"data": 8},
    "fsdp": {"data": 2, "fsdp": 4},
    "tensor": {"data": 2, "fsdp": 2, "tensor": 2},
}
ROWS = 32

both = pytest.mark.parametrize("name", OBJECTIVES)


@functools.cache
def make(sizes):
    sizes = dict.fromkeys(AXES, 1) | dict(sizes)
    return make_mesh(sizes, jax.devices()[: math.prod(sizes.values())])


@functools.cache
def compiled(name, chunk_size, positives="concept", mesh=()):
    """outputs, batch -> ((loss, metrics), gradient of the loss in every output), jitted."""
    objective = OBJECTIVES[name](positives=positives, chunk_size=chunk_size)

    def run(outputs, batch):
        if not mesh:
            return jax.value_and_grad(objective, has_aux=True)(outputs, batch)
        with activation_rules(make(mesh)):
            return jax.value_and_grad(objective, has_aux=True)(outputs, batch)

    return jax.jit(run)


def place(tree, mesh):
    def one(x):
        return jax.device_put(x, batch_sharding(mesh) if np.ndim(x) else replicated(mesh))

    return jax.tree.map(one, tree)


def assert_same(found, expected):
    (loss, metrics), gradient = found
    (expected_loss, expected_metrics), expected_gradient = expected
    # A loss of a single row is 0 in theory, and one rounding of 1 in either formula.
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6, atol=2**-23)
    assert metrics.keys() == expected_metrics.keys()
    for name in metrics:
        np.testing.assert_array_equal(metrics[name], expected_metrics[name], err_msg=name)
    for name in gradient:
        # Sums over rows in another order: where terms cancel, what is left is their rounding.
        rounding = 2**-22 * float(np.abs(expected_gradient[name]).max())
        np.testing.assert_allclose(
            gradient[name], expected_gradient[name], rtol=1e-5, atol=max(1e-7, rounding), err_msg=name
        )


@both
@pytest.mark.parametrize("positives", ["", "concept"])
@pytest.mark.parametrize("chunk_size", [5, 100])  # with a remainder; more than there are rows
def test_equals_the_whole_matrix(name, positives, chunk_size):
    given = cases.outputs(rows=ROWS), cases.batch(rows=ROWS)
    assert_same(compiled(name, chunk_size, positives)(*given), compiled(name, 0, positives)(*given))


@both
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("chunk_size", [0, 3])
def test_on_any_mesh_equals_the_whole_matrix_on_one_device(name, chunk_size, mesh):
    sizes = tuple(MESHES[mesh].items())
    given = cases.outputs(rows=ROWS), cases.batch(rows=ROWS)
    found = compiled(name, chunk_size, mesh=sizes)(*place(given, make(sizes)))
    assert_same(found, compiled(name, 0)(*given))
    assert found[1]["image_embedding"].sharding.is_equivalent_to(batch_sharding(make(sizes)), 2)


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_sigmoid_gathers_each_stream_once(chunk_size):
    sizes = (("data", 8),)
    given = place((cases.outputs(rows=ROWS), cases.batch(rows=ROWS)), make(sizes))
    program = compiled("sigmoid", chunk_size, mesh=sizes).lower(*given).compile().as_text()
    width = given[0]["image_embedding"].shape[1]
    rows = ROWS // 8
    gathered = re.findall(rf"f32\[{ROWS},{width}\]\S* (all-gather|all-reduce|all-to-all)", program)
    assert gathered == ["all-gather"] * 2
    assert len(re.findall(rf"f32\[{rows},{width}\]\S* reduce-scatter", program)) == 1


@both
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whatever_is_missing_and_belongs_together(name, data):
    flags = st.lists(st.booleans(), min_size=ROWS, max_size=ROWS).map(np.array)
    masks = {key: data.draw(flags) for key in ("example_mask", "image_present", "text_present")}
    ids = data.draw(st.lists(st.integers(-1, 6), min_size=ROWS, max_size=ROWS))
    batch = cases.batch(rows=ROWS) | masks | {"concept": np.array(ids, np.int32)}
    outputs = cases.outputs(seed=data.draw(st.integers(0, 9)), rows=ROWS)
    assert_same(compiled(name, 5)(outputs, batch), compiled(name, 0)(outputs, batch))


@both
def test_no_valid_row_gives_zero_and_no_nan(name):
    (loss, _), gradient = compiled(name, 5)(
        cases.outputs(rows=ROWS), cases.none_valid(cases.batch(rows=ROWS))
    )
    assert loss == 0.0
    assert all(np.all(np.asarray(g) == 0) for g in gradient.values())


@both
def test_rows_that_do_not_count_change_nothing(name):
    outputs, batch = cases.outputs(rows=ROWS), cases.batch(rows=ROWS)
    (loss, _), gradient = compiled(name, 5)(outputs, batch)
    (spoiled, _), spoiled_gradient = compiled(name, 5)(cases.spoiled(batch, outputs, np.nan), batch)
    np.testing.assert_array_equal(spoiled, loss)
    for key in gradient:
        np.testing.assert_array_equal(spoiled_gradient[key], gradient[key])


@both
def test_logits_far_beyond_the_range_of_exp(name):
    given = cases.outputs(rows=ROWS) | {"scale": np.float32(1e5)}, cases.batch(rows=ROWS)
    found = compiled(name, 5)(*given)
    assert np.isfinite(found[0][0]) and found[0][0] > 1e3
    assert all(np.isfinite(g).all() for g in found[1].values())
    np.testing.assert_allclose(found[0][0], compiled(name, 0)(*given)[0][0], rtol=1e-6)


@both
def test_bfloat16_embeddings(name):
    outputs, batch = cases.outputs(rows=ROWS), cases.batch(rows=ROWS)
    half = {k: jnp.asarray(v, jnp.bfloat16) if np.ndim(v) else v for k, v in outputs.items()}
    found, expected = compiled(name, 5)(half, batch), compiled(name, 0)(half, batch)
    assert found[0][0].dtype == jnp.float32 and found[1]["image_embedding"].dtype == jnp.bfloat16
    np.testing.assert_allclose(found[0][0], expected[0][0], rtol=1e-6)
    for key in found[1]:  # rounded to bfloat16 at the end: next to it at most, 2 ** -8
        np.testing.assert_allclose(
            np.float32(found[1][key]), np.float32(expected[1][key]), rtol=2**-7, atol=1e-7, err_msg=key
        )


def temporaries(name, rows, chunk_size, mesh):
    """Bytes that one device needs for value and gradient, beside arguments and results."""
    mesh_ = make(mesh)

    def shape(x, *more):
        sharding = batch_sharding(mesh_) if np.ndim(x) else replicated(mesh_)
        return jax.ShapeDtypeStruct((rows, *more) if np.ndim(x) else (), x.dtype, sharding=sharding)

    outputs = {k: shape(v, *([256] if np.ndim(v) else [])) for k, v in cases.outputs().items()}
    batch = {k: shape(v) for k, v in cases.batch().items()}
    run = compiled(name, chunk_size, mesh=mesh).lower(outputs, batch).compile()
    return run.memory_analysis().temp_size_in_bytes


@both
@pytest.mark.parametrize("mesh", [(("data", 1),), (("data", 8),)], ids=["one device", "8 devices"])
def test_temporaries_grow_with_the_batch_and_not_with_its_square(name, mesh):
    small, large = (temporaries(name, rows, 128, mesh) for rows in (2048, 4096))
    assert 1.9 < large / small < 2.1
    assert large < temporaries(name, 4096, 0, mesh)


def test_a_negative_chunk_is_told():
    with pytest.raises(ConfigError, match="got chunk_size -4, expected 1 row or more, or 0"):
        OBJECTIVES["infonce"](chunk_size=-4)
