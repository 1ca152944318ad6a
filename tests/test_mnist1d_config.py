"""MNIST-1D: the four models are those of the paper's table."""

import pathlib

import jax
import numpy as np
import pytest

from mmjax import config
from mmjax.errors import ConfigError
from mmjax.model import build_model, fill_from_data

FILE = pathlib.Path(__file__).parent.parent / "configs" / "mnist1d.py"
SPEC = {"signal": ((40, 1), np.float32), "digit_id": ((), np.int32)}


@pytest.mark.parametrize(
    ("model", "parameters"), [("logistic", 410), ("mlp", 15210), ("cnn", 5210), ("gru", 5134)]
)
def test_parameters_are_as_many_as_in_the_notebook(model, parameters):
    resolved = config.to_dict(config.resolve(f"{FILE}:model={model}"))
    built = build_model(fill_from_data(resolved, {}, {"digit_id": 10}), SPEC)
    batch = {"signal": np.zeros((2, 40, 1), np.float32)}
    made, variables = jax.eval_shape(built.init_with_output, jax.random.key(0), batch)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    assert made["digit"].shape == (2, 10)


def test_shuffled_changes_what_is_read_and_nothing_else():
    plain, shuffled = (
        config.to_dict(config.resolve(f"{FILE}:model=mlp{more}")) for more in ("", ",shuffled")
    )
    assert plain["data"]["streams"]["signal"].pop("features") == ["signal"]
    assert shuffled["data"]["streams"]["signal"].pop("features") == ["shuffled"]
    assert plain == shuffled


def test_an_unknown_model_is_refused():
    with pytest.raises(
        ConfigError, match="argument model: got 'lstm', expected one of: logistic, mlp, cnn, gru"
    ):
        config.resolve(f"{FILE}:model=lstm")
