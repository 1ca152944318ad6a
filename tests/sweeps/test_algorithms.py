"""Samplers and pruners: their options, what they choose, and that choices can be repeated."""

import statistics

import optuna
import pytest
from sweep_cases import SEARCHED, Train, begin, write_config

from mmjax.errors import ConfigError
from mmjax.sweeps import algorithms, worker
from mmjax.sweeps.space import choice, integers, log_uniform, uniform

SPACE = {"a": uniform(-1.0, 1.0), "b": log_uniform(1e-4, 1.0), "c": integers(1, 9)}


@pytest.mark.parametrize(
    ("text", "flag", "message"),
    [
        ("tep", "--search", "--search=tep: expected one of: random, tpe, cma_es, grid \\(did you mean 'tpe'"),
        (
            "tpe:start=3",
            "--search",
            "--search=tpe:start=3: argument 'start' is unknown \\(did you mean 'startup'",
        ),
        (
            "tpe:startup=few",
            "--search",
            "--search=tpe:startup=few: argument startup: got 'few', expected a whole",
        ),
        ("random:startup=3", "--search", "argument 'startup' is unknown"),
        ("medain", "--pruner", "--pruner=medain: expected one of: none, median, halving"),
        ("halving:factor=1", "--pruner", "factor: got 1, expected 2 or more"),
        ("median:startup=-1", "--pruner", "startup: got -1, expected 0 or more"),
    ],
)
def test_wrong_names_and_options(text, flag, message):
    with pytest.raises(ConfigError, match=message):
        algorithms.read(text, flag)


def test_options_are_filled():
    assert algorithms.read("tpe", "--search") == {"type": "tpe", "startup": 10}
    assert algorithms.read("halving:factor=3", "--pruner") == {"type": "halving", "first": 1, "factor": 3}


def run(name, objective, trials, seed=0, space=SPACE, order=None):
    """The points of a search; each trial is asked for with the sampler that its number gives."""
    spec = algorithms.read(name, "--search")
    study = optuna.create_study(direction="minimize")
    points = []
    for number in range(trials):
        study.sampler = algorithms.make_sampler(spec, seed, number, space)
        trial = study.ask()
        points.append({key: algorithms.suggest(trial, key, d) for key, d in space.items()})
        study.tell(trial, objective(points[-1]))
    return points


@pytest.mark.parametrize("name", ["random", "tpe:startup=4", "cma_es"])
def test_points_lie_in_the_space_and_come_again_with_the_seed(name):
    one, same = (run(name, lambda p: p["a"] ** 2, 12) for _ in range(2))
    assert one == same
    assert one != run(name, lambda p: p["a"] ** 2, 12, seed=1)
    for point in one:
        assert -1 <= point["a"] <= 1 and 1e-4 <= point["b"] <= 1
        assert point["c"] in range(1, 10) and isinstance(point["c"], int)


def test_a_random_point_depends_on_seed_and_number_alone():
    ordered = run("random", lambda p: 0.0, 6)
    spec = algorithms.read("random", "--search")
    study = optuna.create_study()
    for _ in range(6):
        study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.WAITING))
    trials = [study.ask() for _ in range(6)]
    for number in reversed(range(6)):  # as several workers may come to them
        study.sampler = algorithms.make_sampler(spec, 0, number, SPACE)
        found = {key: algorithms.suggest(trials[number], key, d) for key, d in SPACE.items()}
        assert found == ordered[number]


@pytest.mark.parametrize(("name", "trials"), [("tpe", 60), ("cma_es", 60)])
def test_what_learns_finds_a_minimum_that_chance_does_not(name, trials):
    def objective(point):
        return (point["a"] - 0.7) ** 2 + (SPACE["b"].to_unit(point["b"]) - 0.3) ** 2

    space = {key: SPACE[key] for key in ("a", "b")}
    last = [objective(point) for point in run(name, objective, trials, space=space)[-15:]]
    chance = [objective(point) for point in run("random", objective, trials, space=space)]
    # TPE goes on looking far away now and then, so medians are compared.
    assert statistics.median(last) < 0.25 * statistics.median(chance)


def test_cma_es_keeps_nothing_but_points_and_values():
    spec = algorithms.read("cma_es:population=4", "--search")
    study = optuna.create_study(direction="maximize")
    generations = []
    for number in range(10):
        study.sampler = algorithms.make_sampler(spec, 0, number, SPACE)
        trial = study.ask()
        point = {key: algorithms.suggest(trial, key, d) for key, d in SPACE.items()}
        study.tell(trial, -(point["a"] ** 2))
        attributes = study.trials[-1].system_attrs
        assert set(attributes) == {algorithms.GENERATION}
        generations.append(attributes[algorithms.GENERATION])
    assert generations == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_cma_es_takes_no_choices():
    with pytest.raises(ConfigError, match="--search=cma_es: d is a choice"):
        algorithms.make_sampler({"type": "cma_es", "population": 0}, 0, 0, {**SPACE, "d": choice([1, 2])})


@pytest.mark.parametrize(
    ("pruner", "stopped"),
    [
        # Scores of 0.9, 0.8, ... at the end; the first trials stop nothing, a median stops what is below.
        ("none", {}),
        ("median:startup=2", {2: 1, 3: 1, 4: 1, 5: 1}),
        ("median:startup=2,warmup=2", {2: 3, 3: 3, 4: 3, 5: 3}),
        ("halving:factor=2", {1: 1, 2: 1, 3: 1, 4: 1, 5: 1}),
    ],
)
def test_what_is_stopped_and_at_which_evaluation(tmp_path, monkeypatch, pruner, stopped):
    monkeypatch.setattr(worker, "train", Train())
    reference = write_config(tmp_path, SEARCHED)
    study = begin(tmp_path / "s", reference, sweep=["seed"], seeds=[0, 10, 20, 30, 40, 50], pruner=pruner)
    worker.work(study)
    trials = study.trials()
    found = {t.number: max(t.intermediate_values) for t in trials if t.state.name == "PRUNED"}
    assert found == stopped


def test_a_generation_of_one_is_refused_and_of_two_works():
    spec = algorithms.read("cma_es:population=1", "--search")
    with pytest.raises(ConfigError, match="--search=cma_es: population: got 1, expected 2 or more, or 0"):
        algorithms.make_sampler(spec, 0, 0, SPACE)
    assert len(run("cma_es:population=2", lambda p: p["a"] ** 2, 6)) == 6
