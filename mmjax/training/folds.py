"""K-fold cross-validation of a config: K runs, each evaluated on the part it did not see."""

from __future__ import annotations

import copy
import pathlib

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from mmjax import components, schema
from mmjax import config as config_lib
from mmjax.errors import ConfigError
from mmjax.files import write_json
from mmjax.parallel.processes import is_first
from mmjax.training import workdir as workdir_lib
from mmjax.training.loop import train


def cross_validate(
    config: ConfigDict, workdir: pathlib.Path, folds: int, group: str = ""
) -> dict[str, dict[str, float]]:
    """Trains `folds` runs in `workdir`/fold_0, ... and writes `folds.json`.

    The training data is split; every data set under `data.eval` becomes the held-out part, with its
    own transforms and dropped streams, and example by value where it is an `explode`. One with other labels
    than training has is other data, and stays as it is. Runs that are finished are not trained again.

    Args:
      config: resolved.
      workdir: holds one run per fold.
      folds: K, 2 or more.
      group: feature whose equal values stay in one fold; empty splits by example.

    Returns:
      Metric -> {'mean', 'std' (of the sample), 'folds'} over the folds that have it.

    Raises:
      ConfigError: fewer than 2 folds, nothing to evaluate them on, or `workdir` holds a single run.
    """
    check(config, folds)
    if (workdir / workdir_lib.CONFIG).is_file():
        raise ConfigError(f"--workdir={workdir}: holds a single run; choose another directory for the folds")
    results = []
    for fold in range(folds):
        logging.info("fold %d of %d", fold + 1, folds)
        results.append(train(fold_config(config, folds, fold, group), workdir / f"fold_{fold}")["metrics"])
    summary = {}
    for name in sorted(set().union(*results)):
        values = [metrics[name] for metrics in results if name in metrics]
        std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        summary[name] = {"mean": float(np.mean(values)), "std": std, "folds": len(values)}
    if is_first():
        write_json(workdir / "folds.json", {"folds": folds, "group": group, "metrics": summary})
    return summary


def check(config: ConfigDict, folds: int) -> None:
    """Raises a `ConfigError` where there are fewer than 2 folds, or nothing to evaluate them on."""
    if folds < 2:
        raise ConfigError(f"--folds={folds}: expected 2 or more")
    if not config.data.eval or not config.evals:
        raise ConfigError("--folds: data.eval and evals are needed, to evaluate each fold by; one is empty")


def fold_config(config: ConfigDict, folds: int, fold: int, group: str) -> ConfigDict:
    """The config of one fold."""
    plain = copy.deepcopy(config_lib.to_dict(config))
    part = {"type": "fold", "dataset": plain["data"]["train"], "folds": folds, "fold": fold, "group": group}
    plain["data"]["train"] = {**part, "held_out": False}
    for section in plain["data"]["eval"].values():
        held_out = {**part, "held_out": True}
        if section["dataset"]["type"] == "explode":
            section["dataset"]["dataset"] = held_out
        elif not section["labels"]:
            section["dataset"] = held_out
    return config_lib.check(components.normalise(plain, schema.Config, ""))
