"""Named sweeps, their products, and how a point is written on a command line."""

import pytest

from mmjax import config as config_lib
from mmjax.errors import ConfigError
from mmjax.sweeps import points
from mmjax.sweeps.space import choice, integers, uniform

FUNCTIONS = """
def sweep_lr():
    for peak in (1e-3, 1e-2):
        yield {"optimizer.schedule.peak": peak}

def sweep_size(arg):
    return [{"batch_size": int(arg or 8), "total_steps": 4}, {"batch_size": 16}]

def sweep_nothing():
    return []

def sweep_none():
    pass

def sweep_text():
    yield "seed=1"

def sweep_set():
    yield {"seed": {1, 2}}

def sweep_twice():
    yield {"seed": 1}
    yield {"seed": 1}

def sweep_folds():
    yield {"fold": 1}

def sweep_other_lr():
    yield {"optimizer.schedule.peak": 1.0}

sweep_number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(FUNCTIONS)
    return str(path)


def sweep(file, *names, seeds=(), folds=None):
    return points.sweep_points(file, names, seeds=seeds, folds=folds)


def test_the_product_of_sweeps_the_first_slowest(file):
    assert sweep(file, "lr", "seed", seeds=[0, 7]) == [
        {"optimizer.schedule.peak": 1e-3, "seed": 0},
        {"optimizer.schedule.peak": 1e-3, "seed": 7},
        {"optimizer.schedule.peak": 1e-2, "seed": 0},
        {"optimizer.schedule.peak": 1e-2, "seed": 7},
    ]
    assert sweep(file, "fold", folds=3) == [{"fold": 0}, {"fold": 1}, {"fold": 2}]


def test_a_sweep_may_take_the_argument_of_the_config(file):
    assert sweep(file, "size")[0]["batch_size"] == 8
    assert sweep(f"{file}:32", "size")[0]["batch_size"] == 32


def test_a_json_config_has_the_built_in_sweeps(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert sweep(str(tmp_path / "config.json"), "seed", seeds=[1]) == [{"seed": 1}]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lrs"], "--sweep=lrs: is unknown \\(did you mean 'lr'\\?\\); there are: seed, fold, lr, size,"),
        (["number"], "--sweep=number: is unknown"),
        (["lr", "lr"], "--sweep=lr,lr: 'lr' is given twice"),
        (["seed"], "--sweep=seed: give the seeds too"),
        (["fold"], "--sweep=fold: give the number of folds too"),
        (["nothing"], "sweep_nothing\\(\\): yields nothing"),
        (["none"], "sweep_none\\(\\): gives None, expected several mappings"),
        (["text"], "sweep_text\\(\\): yields 'seed=1', expected a mapping"),
        (["set"], "sweep_set\\(\\): seed: got {1, 2} \\(set\\), expected text"),
        (["twice"], "--sweep=twice: gives seed=1 twice"),
        (["folds"], "sweep_folds\\(\\): sets 'fold'; use the built-in sweep"),
        (["lr", "other_lr"], "'lr' and 'other_lr' both set optimizer.schedule.peak"),
    ],
)
def test_wrong_sweeps_are_refused_in_one_line(file, names, message):
    with pytest.raises(ConfigError, match=message) as caught:
        sweep(file, *names)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_built_in_cannot_be_defined(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("def sweep_seed():\n    yield {'seed': 1}\n")
    with pytest.raises(ConfigError, match="sweep_seed: 'seed' is built in"):
        sweep(str(path), "seed", seeds=[1])


def test_a_grid_has_all_combinations_of_what_is_finite():
    space = {"a": integers(1, 2), "b": choice(["x", None])}
    assert points.grid_points(space) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": None},
        {"a": 2, "b": "x"},
        {"a": 2, "b": None},
    ]
    grid = points.grid_points({"a": integers(1, 2)})
    assert points.sweep_points("none.json", ["seed"], seeds=[0, 1], folds=None, grid=grid) == [
        {"a": 1, "seed": 0},
        {"a": 1, "seed": 1},
        {"a": 2, "seed": 0},
        {"a": 2, "seed": 1},
    ]
    grid = points.grid_points({"seed": integers(1, 2)})
    with pytest.raises(ConfigError, match="'search_space' and 'seed' both set seed"):
        points.sweep_points("none.json", ["seed"], seeds=[0], folds=None, grid=grid)
    with pytest.raises(ConfigError, match="--search=grid: c has infinitely many values"):
        points.grid_points({**space, "c": uniform(0.0, 1.0)})


def test_texts_are_what_the_command_line_reads():
    point = {"a": "film", "b": 1e-4, "c": True, "d": None, "e": [1, 2], "f": {"type": "film"}, "fold": 3}
    expected = {"a": "film", "b": "0.0001", "c": "true", "d": "none", "e": "[1, 2]", "f": '{"type": "film"}'}
    assert points.texts(point) == expected
    argv = [f"--config.{key}={text}" for key, text in expected.items()]
    assert config_lib.split_overrides(argv) == ([], expected)
    assert points.short_names(["a.peak", "b.c.rate", "b.d.rate"]) == ["a.peak", "c.rate", "d.rate"]
    assert points.short_names(["a.peak", "seed"]) == ["peak", "seed"] and points.short_names([]) == []
    film = {"type": "film", "width": 64, "depth": 1}
    assert points.label({"a.fusion": film, "b": 1e-4}) == "a.fusion=film (depth=1, width=64), b=0.0001"
    assert points.setting({"seed": 1, "fold": 2, "a": 3}) == {"a": 3}
