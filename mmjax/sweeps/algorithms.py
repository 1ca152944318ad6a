"""How the points of a search are chosen, and which trials are stopped early: one table of each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import cmaes
import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from mmjax import config as config_lib
from mmjax.components import suggestion
from mmjax.errors import ConfigError
from mmjax.sweeps.space import Choice, Dimension, plain_json

GENERATION = "mmjax:generation"
GRID = "grid"  # tries all points, and so needs no sampler


class CmaEs(BaseSampler):
    """CMA-ES (Hansen and Ostermeier 2001), on the unit cube that the numbers of a space are mapped to.

    Its state is computed anew from the finished trials, in the order in which they finished, so nothing
    but points and values is stored. Trials that were stopped early or failed do not count.

    Args:
      seed: of the search.
      space: numbers only.
      population: trials of a generation; 0 takes 4 + 3 ln(dimensions).
    """

    def __init__(self, seed: int, space: Mapping[str, Dimension], population: int = 0):
        self._seed, self._space, self._population = seed, space, population
        if population == 1:
            raise ConfigError("--search=cma_es: population: got 1, expected 2 or more, or 0")
        for key, dimension in space.items():
            if isinstance(dimension, Choice):
                raise ConfigError(
                    f"--search=cma_es: {key} is a choice; cma_es moves numbers only, use tpe or random"
                )

    def infer_relative_search_space(self, study, trial):
        return {key: distribution(dimension) for key, dimension in self._space.items()}

    def sample_relative(self, study, trial, search_space):
        sign = 1.0 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1.0
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        done = sorted(done, key=lambda other: other.datetime_complete)
        size = len(self._space)
        optimizer = cmaes.CMA(
            mean=np.full(size, 0.5),
            sigma=1 / 6,
            bounds=np.tile([0.0, 1.0], (size, 1)),
            seed=_trial_seed(self._seed, trial.number),
            population_size=self._population or None,
        )
        while True:
            of_generation = [t for t in done if t.system_attrs.get(GENERATION) == optimizer.generation]
            if len(of_generation) < optimizer.population_size:
                break
            optimizer.tell(
                [
                    (np.array([d.to_unit(t.params[key]) for key, d in self._space.items()]), sign * t.value)
                    for t in of_generation[: optimizer.population_size]
                ]
            )
        study._storage.set_trial_system_attr(trial._trial_id, GENERATION, optimizer.generation)
        units = optimizer.ask()
        return {key: d.from_unit(u) for (key, d), u in zip(self._space.items(), units, strict=True)}

    def sample_independent(self, study, trial, param_name, param_distribution):
        raise AssertionError(f"{param_name}: all of the space is sampled together")


def _random(seed: int, number: int, space: Mapping[str, Dimension]) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=_trial_seed(seed, number))


def _tpe(seed: int, number: int, space: Mapping[str, Dimension], startup: int) -> BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011); running trials count as bad ones."""
    return optuna.samplers.TPESampler(
        seed=_trial_seed(seed, number), n_startup_trials=startup, constant_liar=True
    )


def _cma_es(seed: int, number: int, space: Mapping[str, Dimension], population: int) -> BaseSampler:
    return CmaEs(seed, space, population)


def _none() -> optuna.pruners.BasePruner:
    return optuna.pruners.NopPruner()


def _median(startup: int, warmup: int) -> optuna.pruners.BasePruner:
    """Stops what at its best is worse than the median of the finished trials at the same evaluation.

    From Google Vizier (Golovin et al. 2017). Nothing is stopped before `startup` trials have finished, nor
    in the first `warmup` evaluations.
    """
    return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup + 1)


def _halving(first: int, factor: int) -> optuna.pruners.BasePruner:
    """Asynchronous successive halving (Li et al. 2020): of `factor` trials one goes on."""
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)


# name -> (function of (search seed, number of the trial, space, **options), options with their defaults).
SAMPLERS: dict[str, tuple[Callable[..., BaseSampler], dict[str, Any]]] = {
    "random": (_random, {}),
    "tpe": (_tpe, {"startup": 10}),
    "cma_es": (_cma_es, {"population": 0}),
}
# name -> (function of the options, options with their defaults). Evaluations during training are counted
# from 1.
PRUNERS: dict[str, tuple[Callable[..., optuna.pruners.BasePruner], dict[str, Any]]] = {
    "none": (_none, {}),
    "median": (_median, {"startup": 4, "warmup": 0}),
    "halving": (_halving, {"first": 1, "factor": 2}),
}


def read(text: str, flag: str) -> dict[str, Any]:
    """`NAME:option=value,...` of `--search` or `--pruner`, as {'type': NAME, **options}.

    Raises:
      ConfigError: a name or an option that is unknown, or a value that cannot be.
    """
    known: dict[str, Any] = dict(PRUNERS) if flag == "--pruner" else {**SAMPLERS, GRID: (None, {})}
    name, _, options = text.partition(":")
    if name not in known:
        raise ConfigError(f"{flag}={text}: expected one of: {', '.join(known)}{suggestion(name, known)}")
    try:
        given = config_lib.to_dict(config_lib.arguments(options, **known[name][1]))
    except ConfigError as error:
        raise ConfigError(f"{flag}={text}: {str(error).removeprefix('config ')}") from None
    spec = {"type": name, **given}
    least = {"factor": 2, "first": 1}
    for option, value in given.items():
        if value < least.get(option, 0):
            raise ConfigError(
                f"{flag}={text}: {option}: got {value}, expected {least.get(option, 0)} or more"
            )
    return spec


def make_sampler(
    search: Mapping[str, Any] | None, seed: int, number: int, space: Mapping[str, Dimension]
) -> BaseSampler:
    """What chooses the point of trial `number`; a random one where the points are given."""
    spec = dict(search or {"type": GRID})
    name = spec.pop("type")
    build, _ = SAMPLERS["random" if name == GRID else name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Optuna calls experimental
        return build(seed, number, space, **spec)


def make_pruner(pruner: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """What stops trials early."""
    spec = dict(pruner)
    build, _ = PRUNERS[spec.pop("type")]
    return build(**spec)


def distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    """A dimension in Optuna's words. A choice is made among the JSON texts of its values."""
    if isinstance(dimension, Choice):
        return optuna.distributions.CategoricalDistribution([plain_json(v, "") for v in dimension.options])
    if dimension.whole:
        return optuna.distributions.IntDistribution(
            int(dimension.low), int(dimension.high), log=dimension.log
        )
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def suggest(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    """The value of a dimension that the sampler chooses for a trial."""
    found = distribution(dimension)
    if isinstance(found, optuna.distributions.CategoricalDistribution):
        return json.loads(trial.suggest_categorical(key, found.choices))
    if isinstance(found, optuna.distributions.IntDistribution):
        return trial.suggest_int(key, found.low, found.high, log=found.log)
    return trial.suggest_float(key, found.low, found.high, log=found.log)


def _trial_seed(seed: int, number: int) -> int:
    """One for each trial, whichever process runs it."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
