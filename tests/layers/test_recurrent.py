import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers.recurrent import Recurrent

LENGTHS = [5, 3, 1]


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (4, 5, 3))


@pytest.fixture
def mask():
    return jnp.arange(5) < jnp.array([*LENGTHS, 0])[:, None]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("reverse", [False, True])
def test_padded_batch_equals_each_sequence_alone(cell, reverse, x, mask):
    module = Recurrent(width=4, cell=cell, reverse=reverse)
    variables = jax.jit(module.init)(jax.random.key(1), x, mask)
    outputs, last = module.apply(variables, jnp.where(mask[..., None], x, 1e3), mask)
    for row, length in enumerate(LENGTHS):
        alone = x[row : row + 1, :length]
        states, final = module.apply(variables, alone, jnp.ones((1, length), bool))
        np.testing.assert_allclose(outputs[row, :length], states[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(last[row], final[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(final[0], states[0, 0 if reverse else -1])
    np.testing.assert_array_equal(outputs[~mask], 0.0)
    np.testing.assert_array_equal(last[3], 0.0)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_holes_are_passed_over(cell, x):
    module = Recurrent(width=4, cell=cell)
    holes = jnp.broadcast_to(jnp.array([0, 1, 0, 1, 1], bool), (4, 5))
    variables = jax.jit(module.init)(jax.random.key(1), x, holes)
    outputs, last = module.apply(variables, x, holes)
    states, final = module.apply(variables, x[:, [1, 3, 4]], jnp.ones((4, 3), bool))
    np.testing.assert_allclose(outputs[:, [1, 3, 4]], states, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last, final, rtol=1e-5, atol=1e-6)


def test_lstm_equals_flax(x):
    module, theirs = Recurrent(width=4), nn.OptimizedLSTMCell(4)
    params = jax.jit(module.init)(jax.random.key(1), x, jnp.ones((4, 5), bool))["params"]
    inputs = jnp.split(params["input"]["kernel"], 4, axis=1)
    recurrent, bias = jnp.split(params["recurrent"], 4, axis=1), jnp.split(params["input"]["bias"], 4)
    cell = {}
    for gate, *arrays in zip("ifgo", inputs, recurrent, bias, strict=True):
        cell[f"i{gate}"] = {"kernel": arrays[0]}
        cell[f"h{gate}"] = {"kernel": arrays[1], "bias": arrays[2]}
    expected = nn.RNN(theirs).apply({"params": {"cell": cell}}, x)
    got, _ = module.apply({"params": params}, x, jnp.ones((4, 5), bool))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_gru_equals_flax(x):
    module, theirs = Recurrent(width=4, cell="gru"), nn.GRUCell(4)
    params = jax.jit(module.init)(jax.random.key(1), x, jnp.ones((4, 5), bool))["params"]
    params["recurrent_bias"] += 0.3
    inputs = jnp.split(params["input"]["kernel"], 3, axis=1)
    recurrent, bias = jnp.split(params["recurrent"], 3, axis=1), jnp.split(params["input"]["bias"], 3)
    cell = {}
    for gate, *arrays in zip("rzn", inputs, recurrent, bias, strict=True):
        cell[f"i{gate}"] = {"kernel": arrays[0], "bias": arrays[2]}
        cell[f"h{gate}"] = {"kernel": arrays[1]}
    cell["hn"]["bias"] = params["recurrent_bias"]
    expected = nn.RNN(theirs).apply({"params": {"cell": cell}}, x)
    got, _ = module.apply({"params": params}, x, jnp.ones((4, 5), bool))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_forget_gate_starts_open(x):
    params = jax.jit(Recurrent(width=4).init)(jax.random.key(1), x, jnp.ones((4, 5), bool))["params"]
    np.testing.assert_array_equal(params["input"]["bias"].reshape(4, 4).mean(axis=1), [0, 1, 0, 0])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gradients_are_finite_and_padding_gets_none(cell, x, mask):
    module = Recurrent(width=4, cell=cell)
    variables = jax.jit(module.init)(jax.random.key(1), x, mask)

    def total(variables, x):
        outputs, last = module.apply(variables, x, mask)
        return jnp.sin(outputs).sum() + last.sum()

    by_parameter, by_input = jax.jit(jax.grad(total, argnums=(0, 1)))(variables, x)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(by_parameter))
    np.testing.assert_array_equal(by_input[~mask], 0.0)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_second_biases_add_to_the_first(cell, x):
    """As in PyTorch's formulas, where only the candidate of a GRU treats the two differently."""
    module, plain = Recurrent(width=4, cell=cell, second_biases=True), Recurrent(width=4, cell=cell)
    mask = jnp.ones((4, 5), bool)
    params = jax.jit(module.init)(jax.random.key(1), x, mask)["params"]
    second = params["recurrent_bias"] + jnp.linspace(-1, 1, params["recurrent_bias"].size)
    shared = len(second) - 4 * (cell == "gru")
    first = {**params["input"], "bias": params["input"]["bias"].at[:shared].add(second[:shared])}
    moved = {"input": first, "recurrent": params["recurrent"]}
    if cell == "gru":
        moved["recurrent_bias"] = second[shared:]
    got, _ = module.apply({"params": {**params, "recurrent_bias": second}}, x, mask)
    expected, _ = plain.apply({"params": moved}, x, mask)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
