"""From the command line to a study's settings, with everything checked that can be before a run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.errors import ConfigError
from mmjax.evaluation.run import build_evaluators, check_groups, check_metric
from mmjax.reports.names import lower_is_better
from mmjax.sweeps import algorithms, points, space
from mmjax.sweeps.study import Settings
from mmjax.training.setup import load_data

_EVERY = ("every_steps", "every_epochs", "every_examples", "every_percent")


def make_settings(
    reference: str,
    overrides: Mapping[str, str],
    *,
    sweep: Sequence[str],
    search: str | None,
    trials: int | None,
    pruner: str,
    metric: str | None,
    direction: str | None,
    seeds: Sequence[int],
    folds: int | None,
    fold_group: str,
    search_seed: int,
    storage: str,
    retries: int,
) -> Settings:
    """The settings that flags describe, checked.

    Raises:
      ConfigError: one line that says which flag, sweep, key or metric is wrong.
    """
    declared = config_lib.load(reference)
    dimensions, listed, sampler, grid = {}, None, None, None
    if search:
        sampler = algorithms.read(search, "--search")
        dimensions = _space(reference)
        if sampler["type"] == algorithms.GRID:
            grid = points.grid_points(dimensions)
        else:
            algorithms.make_sampler(sampler, search_seed, 0, dimensions)
    if sweep and search and grid is None:
        raise ConfigError(
            f"--sweep={','.join(sweep)}: goes with --search=grid only; leave it or --search={search} out"
        )
    if sweep or grid is not None:
        listed = points.sweep_points(reference, sweep, seeds=seeds, folds=folds, grid=grid)
    if listed is not None and trials is not None:
        raise ConfigError(f"--trials={trials}: these are all {len(listed)} combinations; leave --trials out")
    if listed is None and (trials is None or trials < 1):
        given = "is missing" if trials is None else f"got {trials}"
        raise ConfigError(f"--trials: {given}; give the number of trials of the search, such as --trials=20")
    settings = Settings(
        name="",
        reference=reference,
        declared=declared,
        overrides=dict(overrides),
        sweep=list(sweep),
        points=listed,
        search=sampler,
        search_seed=search_seed,
        space=space.to_json(dimensions),
        trials=trials if listed is None else len(listed),
        pruner=algorithms.read(pruner, "--pruner"),
        metric=metric or "",
        direction=direction or "",
        folds=folds,
        fold_group=fold_group,
        storage=storage,
        retries=retries,
    )
    return _checked(settings)


def probes(settings: Settings) -> Iterator[points.Point]:
    """Points that stand for all: each one of a list; of a space, each value at the edge of a dimension."""
    if settings.points is not None:
        yield from settings.points
        return
    dimensions = space.from_json(settings.space)
    first = {key: dimension.edges()[0] for key, dimension in dimensions.items()}
    yield first
    for key, dimension in dimensions.items():
        yield from ({**first, key: value} for value in dimension.edges()[1:])


def prepare(settings: Settings) -> None:
    """Prepares the data of all trials, once, before workers ask for it at the same time.

    Raises:
      ConfigError, DataError: it cannot be.
    """
    seen: list[Any] = []
    for point in probes(settings):
        config = settings.config(point)
        if (section := config_lib.to_dict(config.data)) not in seen:
            seen.append(section)
            load_data(config, None)


def _space(reference: str) -> dict[str, space.Dimension]:
    found = config_lib.functions(reference, "search_space")
    if "" not in found:
        raise ConfigError(f"--search: {reference} defines no function search_space()")
    return space.check_space(found[""]())


def _checked(settings: Settings) -> Settings:
    """Resolves the config of every point that stands for others; the metric and direction are filled in."""
    for point in probes(settings):
        try:
            config = settings.config(point)
        except ConfigError as error:
            raise ConfigError(f"with {points.label(point)}: {error}") from None
        if not settings.metric:
            settings = _with_metric(settings, config)
        elif not settings.direction:
            tail = settings.metric.rpartition("/")[2]
            settings = dataclasses.replace(settings, direction="min" if lower_is_better(tail) else "max")
        evaluators = build_evaluators(config)
        check_groups(evaluators)
        check_metric(evaluators, settings.metric, "--metric")
        group = settings.metric.rpartition("/")[0]
        (owner,) = (name for name, e in evaluators.items() if group in map(e.full_name, e.groups()))
        during = any(config.evals[owner][key] is not None for key in _EVERY)
        if settings.pruner["type"] != "none" and not during:
            raise ConfigError(
                f"--pruner={settings.pruner['type']}: evals.{owner} measures {settings.metric} only at the "
                f"end; set --config.evals.{owner}.every_percent=10, say, or another --metric"
            )
    return settings


def _with_metric(settings: Settings, config: ConfigDict) -> Settings:
    best = config.checkpoint.best_metric
    if best is None:
        evaluators = build_evaluators(config)
        groups = sorted(itertools.chain(*(map(e.full_name, e.groups()) for e in evaluators.values())))
        raise ConfigError(
            "--metric: is missing; name the number of result.json to choose by, one of: "
            + ", ".join(f"{group}/..." for group in groups)
        )
    return dataclasses.replace(
        settings, metric=best, direction=settings.direction or config.checkpoint.best_mode
    )
