"""Running evaluators, and checking before a run that they can be run."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from absl import logging

from mmjax import components
from mmjax import config as config_lib
from mmjax.components import suggestion
from mmjax.errors import ConfigError
from mmjax.evaluation.context import ALWAYS, EvalContext, companions
from mmjax.evaluation.evaluator import Evaluator


def build_evaluators(config: Mapping[str, Any]) -> dict[str, Evaluator]:
    """The evaluators of a resolved config, by name."""
    sections = config_lib.to_dict(config["evals"])
    return {name: components.build("evaluators", section) for name, section in sections.items()}


def names_to_collect(
    evaluators: Mapping[str, Evaluator],
    *,
    data: Mapping[str, Collection[str]],
    outputs: Collection[str],
) -> tuple[str, ...]:
    """Everything that the forward pass of `EvalContext` has to return; fails early where it cannot.

    Args:
      evaluators: by the name they have in the config.
      data: name of each data set there is -> names of its batch entries.
      outputs: names of the model's outputs.

    Raises:
      ConfigError: naming the evaluator and the data set, output or batch entry that is not there,
        with the nearest one that is; or two evaluators whose metrics would have one name.
    """
    check_groups(evaluators)
    wanted = set(ALWAYS)
    for name, evaluator in evaluators.items():
        for data_name, entries in evaluator.needs().items():
            if data_name not in data:
                raise ConfigError(
                    f"evals.{name}: there is no data set '{data_name}'{suggestion(data_name, data)}; "
                    f"there are: {', '.join(sorted(data))}"
                )
            batch = set(data[data_name])
            known = {*outputs, *batch, *ALWAYS}
            for entry in sorted(entries - known):
                raise ConfigError(
                    f"evals.{name}: '{entry}' is neither an output of the model nor in the batch of "
                    f"'{data_name}'{suggestion(entry, known)}; there are: {', '.join(sorted(known))}"
                )
            wanted |= entries | (companions(entries) & batch)
    return tuple(sorted(wanted))


def check_groups(evaluators: Mapping[str, Evaluator]) -> None:
    """Raises a `ConfigError` where two evaluators would give metrics of the same names."""
    owners: dict[str, str] = {}
    for name, evaluator in evaluators.items():
        for group in map(evaluator.full_name, evaluator.groups()):
            if group in owners:
                raise ConfigError(
                    f"evals.{name} and evals.{owners[group]} both give '{group}/...'; "
                    "set another 'prefix' in one of them"
                )
            owners[group] = name


def check_metric(evaluators: Mapping[str, Evaluator], name: str, key: str) -> None:
    """Raises a `ConfigError`, naming `key`, where no evaluator gives a metric such as `name`."""
    groups = metric_groups(evaluators)
    if name.rpartition("/")[0] not in groups:
        given = ", ".join(f"{group}/..." for group in sorted(groups)) or "nothing"
        raise ConfigError(f"{key}: no evaluator gives '{name}'; expected one of: {given}")


def metric_groups(evaluators: Mapping[str, Evaluator]) -> set[str]:
    """What the names of their metrics are before the last '/'."""
    return {evaluator.full_name(group) for evaluator in evaluators.values() for group in evaluator.groups()}


def run_evaluators(evaluators: Mapping[str, Evaluator], context: EvalContext) -> dict[str, float]:
    """Runs the evaluators on one round's context.

    Args:
      evaluators: those that are due, by the name they have in the config.
      context: of this round.

    Returns:
      Metric name (with the evaluator's prefix) -> value. A number that the data does not define is
      left out, with a warning.

    Raises:
      ConfigError: two evaluators give metrics of one name; a data set, output, label or stream
        that is not there.
      NonFiniteError: an output holds NaN or infinity.
    """
    check_groups(evaluators)
    for evaluator in evaluators.values():
        context.expect(evaluator.needs())
    results: dict[str, float] = {}
    for name, evaluator in evaluators.items():
        logging.info("evaluator %s, on '%s'", name, evaluator.data)
        for metric, value in evaluator.evaluate(context):
            metric = evaluator.full_name(metric)
            if math.isnan(value):
                logging.warning("evals.%s: %s is not defined on this data, and is left out", name, metric)
            else:
                results[metric] = float(value)
    return results
