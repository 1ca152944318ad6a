"""Trifeature and Sort-of-CLEVR: the models of their arguments, and that they learn a few examples."""

import pathlib

import jax
import numpy as np
import optax
import pytest

from mmjax import components, config
from mmjax.errors import ConfigError
from mmjax.model import build_model, fill_from_data, init_model
from mmjax.objectives import total_loss

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
IMAGE, SCENE = (32, 32, 3), (6, 10)
ROWS = 8


def resolved(reference):
    return config.to_dict(config.resolve(str(CONFIGS / reference)))


def learn(plain, spec, batch, class_counts, steps=60, rate=3e-3):
    """The losses of some steps on one batch."""
    model = build_model(fill_from_data(plain, {}, class_counts), spec)
    variables = init_model(model, spec, jax.random.key(0))
    state = {name: value for name, value in variables.items() if name != "params"}
    objectives = {name: components.build("objectives", o) for name, o in plain["objectives"].items()}
    adam = optax.adam(rate)

    def loss(parameters, batch):
        outputs, _ = model.apply({"params": parameters, **state}, batch, train=True, mutable=[*state])
        return total_loss(objectives, outputs, batch)[0]

    @jax.jit
    def step(parameters, moments, batch):
        value, gradient = jax.value_and_grad(loss)(parameters, batch)
        updates, moments = adam.update(gradient, moments)
        return optax.apply_updates(parameters, updates), moments, value

    parameters, losses = variables["params"], []
    moments = adam.init(parameters)
    for _ in range(steps):
        parameters, moments, value = step(parameters, moments, batch)
        losses.append(float(value))
    return losses


@pytest.mark.parametrize("method", ["cross", "cross_self", "comm"])
def test_every_method_learns_a_few_pairs(method):
    plain = resolved(f"trifeature.py:method={method}")
    for section in plain["model"]["streams"].values():
        section["encoder"]["widths"] = [8, 16]
    names = list(plain["data"]["streams"])
    assert len(names) == {"cross": 2, "cross_self": 6, "comm": 4}[method]
    rng = np.random.default_rng(0)
    batch = {name: rng.normal(size=(ROWS, *IMAGE)).astype(np.float32) for name in names}
    batch |= {f"{name}_present": np.ones(ROWS, bool) for name in names}
    batch["example_mask"] = np.ones(ROWS, bool)
    losses = learn(plain, {name: (IMAGE, np.float32) for name in names}, batch, {})
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]


def test_the_biased_set_is_only_trained_on():
    plain, biased = resolved("trifeature.py"), resolved("trifeature.py:biased=true")
    assert plain["data"]["train"]["agreeing"] == "any" and biased["data"]["train"]["agreeing"] == "all"
    assert plain["data"]["eval"] == biased["data"]["eval"]


def test_the_full_setting_is_that_of_the_paper():
    full = resolved("trifeature.py:size=full")
    assert full["data"]["train"]["pairs"] == 10_000 and full["data"]["train"]["size"] == 224
    assert full["total_epochs"] == 100 and full["batch_size"] == 64
    fusion = full["model"]["fusion"]
    assert fusion["type"] == "merged_attention" and (fusion["width"], fusion["depth"]) == (512, 1)


@pytest.mark.parametrize("model", ["relation", "mlp", "attention"])
@pytest.mark.parametrize("seen", ["states", "images"])
def test_every_model_learns_a_few_questions(model, seen):
    plain = resolved(f"sort_of_clevr.py:model={model},input={seen}")
    shape = SCENE if seen == "states" else (75, 75, 3)
    rng = np.random.default_rng(0)
    batch = {
        "scene": rng.normal(size=(ROWS, *shape)).astype(np.float32),
        "question": rng.integers(0, 2, (ROWS, 1, 11)).astype(np.float32),
        "answer": np.arange(ROWS, dtype=np.int32),
        "example_mask": np.ones(ROWS, bool),
        **{f"{name}_present": np.ones(ROWS, bool) for name in ("scene", "question")},
    }
    spec = {"scene": (shape, np.float32), "question": ((1, 11), np.float32), "answer": ((), np.int32)}
    losses = learn(plain, spec, batch, {"answer": 10}, steps=40)
    assert np.isfinite(losses).all() and losses[-1] < 0.5 * losses[0]


def test_the_full_relation_network_has_the_widths_of_the_paper():
    fusion = resolved("sort_of_clevr.py:size=full")["model"]["fusion"]
    assert fusion["relation"] == [2000] * 4 and [*fusion["hidden"], fusion["width"]] == [2000, 1000, 500, 100]
    mlp = resolved("sort_of_clevr.py:size=full,model=mlp")["model"]["fusion"]
    assert mlp["hidden"] == [2000] * 5 + [1000, 500]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "trifeature.py:method=clip",
            "argument method: got 'clip', expected one of: cross, cross_self, comm",
        ),
        ("trifeature.py:size=huge", "argument size: got 'huge', expected one of: full, small"),
        ("sort_of_clevr.py:model=rn", "argument model: got 'rn', expected one of: relation, mlp, attention"),
        ("sort_of_clevr.py:input=video", "argument input: got 'video', expected one of: images, states"),
    ],
)
def test_wrong_arguments(reference, message):
    with pytest.raises(ConfigError, match=message):
        resolved(reference)
