"""NT-Xent and CoMM against their formulas, row by row."""

import contrastive_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.objectives.comm import CoMM
from mmjax.objectives.nt_xent import NTXent

STREAMS = ["image", "text"]
NAMES = {"a": "image_embedding", "b": "text_embedding", "streams": STREAMS}


def compute(objective, outputs, batch):
    return jax.jit(lambda outputs, batch: objective(outputs, batch))(outputs, batch)


def by_hand(a, b, temperature):
    """The mean over all rows of both sides, and how often the most similar other row is the partner."""
    rows = np.concatenate([a, b]).astype(np.float64)
    losses, hits = [], []
    for i, row in enumerate(rows):
        partner = (i + len(a)) % len(rows)
        scores = {j: row @ other / temperature for j, other in enumerate(rows) if j != i}
        losses.append(np.log(sum(map(np.exp, scores.values()))) - scores[partner])
        hits.append(max(scores, key=scores.get) == partner)
    return np.mean(losses), np.mean(hits)


def test_it_is_the_formula_over_the_rows_that_count():
    outputs, batch = cases.outputs(), cases.batch()
    loss, metrics = compute(NTXent(**NAMES, temperature=0.3), outputs, batch)
    _, kept = cases.only_valid(batch, outputs)
    expected, accuracy = by_hand(kept["image_embedding"], kept["text_embedding"], 0.3)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    hits, number = metrics["accuracy"]
    np.testing.assert_allclose(hits / number, accuracy, rtol=1e-6)
    assert float(number) == 2 * cases.valid_rows(batch).sum()


def test_equal_views_of_different_examples_are_the_limit():
    """Opposite to all others as far as that goes: the bound named in experiments/mnist1d_contrastive."""
    count = 8
    simplex = np.eye(count) - 1 / count
    simplex = (simplex / np.linalg.norm(simplex, axis=1, keepdims=True)).astype(np.float32)
    outputs = {"image_embedding": simplex, "text_embedding": simplex}
    batch = {f"{stream}_present": np.ones(count, bool) for stream in STREAMS}
    batch["example_mask"] = np.ones(count, bool)
    loss, _ = compute(NTXent(**NAMES, temperature=0.5), outputs, batch)
    others = 2 * (count - 1)
    # Of all 2 count views the similarities to one add up to 0; it and its partner have 2 of it.
    np.testing.assert_allclose(loss, np.log(1 + others * np.exp(-2 * (1 + 2 / others))), rtol=1e-5)


def objectives():
    alone = {"a_alone": ["a_image", "a_text"], "b_alone": ["b_image", "b_text"]}
    return {"nt_xent": NTXent(**NAMES), "comm": CoMM(**NAMES, **alone)}


def all_outputs():
    names = ("a_image", "a_text", "b_image", "b_text")
    alone = {name: cases.outputs(seed)["image_embedding"] for seed, name in enumerate(names, start=1)}
    return cases.outputs() | alone


@pytest.mark.parametrize("name", ["nt_xent", "comm"])
def test_rows_that_do_not_count_change_nothing_even_nan(name):
    objective, outputs, batch = objectives()[name], all_outputs(), cases.batch()
    loss = jax.jit(jax.value_and_grad(lambda outputs, batch: objective(outputs, batch)[0]))
    expected, gradient = loss(outputs, batch)
    spoiled, other = loss(cases.spoiled(batch, outputs, np.nan), batch)
    np.testing.assert_array_equal(spoiled, expected)
    rows = cases.valid_rows(batch)
    for key in objective.reads():
        np.testing.assert_array_equal(other[key][rows], gradient[key][rows])
        assert np.abs(gradient[key][rows]).max() > 0 and not np.abs(gradient[key][~rows]).max()


@pytest.mark.parametrize("name", ["nt_xent", "comm"])
def test_no_row_that_counts_gives_zero(name):
    batch = cases.batch() | {"example_mask": np.zeros(cases.ROWS, bool)}
    loss, metrics = compute(objectives()[name], all_outputs(), batch)
    assert float(loss) == 0 and float(metrics["accuracy"][1]) == 0


@pytest.mark.parametrize("name", ["nt_xent", "comm"])
def test_sharded_over_eight_devices_equals_one(name):
    objective, outputs, batch = objectives()[name], all_outputs(), cases.batch()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    rows = {name: value for name, value in outputs.items() if np.ndim(value) == 2}
    step = jax.jit(jax.value_and_grad(lambda o, b: objective(o, b)[0]))
    on_one, on_eight = step(rows, batch), step(jax.device_put(rows, by_row), jax.device_put(batch, by_row))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), on_one, on_eight)


def test_comm_is_its_sum():
    outputs, batch = all_outputs(), cases.batch()
    loss, metrics = compute(objectives()["comm"], outputs, batch)

    def contrast(a, b):
        return float(compute(NTXent(a=a, b=b, streams=STREAMS, temperature=0.1), outputs, batch)[0])

    full = contrast("image_embedding", "text_embedding")
    alone = sum(
        0.5 * (contrast(f"a_{stream}", "text_embedding") + contrast(f"b_{stream}", "image_embedding"))
        for stream in STREAMS
    )
    np.testing.assert_allclose([metrics["full"][0], metrics["alone"][0]], [full, alone], rtol=1e-5)
    np.testing.assert_allclose(loss, full + alone, rtol=1e-5)
    assert jnp.isfinite(loss)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: NTXent(**NAMES, temperature=0.0),
            r"nt_xent.temperature: got 0.0, expected a number above 0",
        ),
        (lambda: CoMM(**NAMES, a_alone=[], b_alone=[]), "comm: got 0 outputs in a_alone and 0 in b_alone"),
        (
            lambda: CoMM(**NAMES, a_alone=["x"], b_alone=["y", "z"]),
            "got 1 outputs in a_alone and 2 in b_alone",
        ),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
