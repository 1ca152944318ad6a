"""train: a config, from data to the run's report."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping

from mmjax.errors import ConfigError
from mmjax.parallel.processes import is_first
from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    common.add_config_flag(parser)
    common.add_workdir_flag(parser, "the run's directory; a run in it goes on (default: runs/<config>)")
    parser.add_argument(
        "--overfit-one-batch",
        action="store_true",
        help="train on one batch only, write nothing, and tell whether the model can learn",
    )
    parser.add_argument("--steps", type=int, help="steps of --overfit-one-batch (default: 100)")
    parser.add_argument("--folds", type=int, metavar="K", help="K-fold cross-validation of the training data")
    parser.add_argument(
        "--fold-group",
        default="",
        metavar="FEATURE",
        help="keep examples that share this feature of the data in one fold",
    )
    parser.add_argument(
        "--profile",
        type=int,
        default=0,
        metavar="STEPS",
        help="trace this many steps with JAX's profiler, into WORKDIR/profile",
    )
    common.add_process_flags(parser)


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> int:
    if flags.steps is not None and not flags.overfit_one_batch:
        raise ConfigError("--steps: is for --overfit-one-batch; a run takes --config.total_steps")
    if flags.fold_group and flags.folds is None:
        raise ConfigError("--fold-group: is for --folds; give --folds=K too")
    if flags.overfit_one_batch and flags.folds is not None:
        raise ConfigError("--overfit-one-batch and --folds: give one of them")
    if flags.profile < 0 or (flags.profile and (flags.overfit_one_batch or flags.folds is not None)):
        raise ConfigError(
            f"--profile: got {flags.profile}, expected how many steps of one ordinary run to trace; "
            "leave out --overfit-one-batch and --folds"
        )
    config = common.resolve(flags, overrides)
    common.connect(flags, saves_at_sigterm=not flags.overfit_one_batch)
    if flags.overfit_one_batch:
        return _overfit(config, 100 if flags.steps is None else flags.steps)
    workdir = pathlib.Path(flags.workdir) if flags.workdir else common.default_workdir(flags.config)
    if flags.folds is not None:
        from mmjax.training.folds import cross_validate

        summary = cross_validate(config, workdir, flags.folds, flags.fold_group)
        if is_first():
            _print_folds(summary)
        return 0

    from mmjax.training.resume import finished

    result = finished(workdir, config)
    if result is None:  # else what trains need not be loaded
        from mmjax.training.loop import train

        result = train(config, workdir, profile_steps=flags.profile)
    if not is_first():
        return 0
    print_metrics(result["metrics"])
    print(f"{result['steps']} steps in {result['wall_seconds']:.0f} s; report: {_report(workdir)}")
    return 0


def _report(workdir: pathlib.Path) -> pathlib.Path:
    """The report of a finished run, made where there is none since it finished."""
    from mmjax.reports.report import FILE_NAME
    from mmjax.training.workdir import RESULT

    report = workdir / FILE_NAME
    if not report.is_file() or report.stat().st_mtime < (workdir / RESULT).stat().st_mtime:
        from mmjax.verbs.report import make_report

        make_report(workdir)
    return report


def print_metrics(metrics: Mapping[str, float]) -> None:
    """One metric per line."""
    width = max(map(len, metrics), default=0)
    for name, value in sorted(metrics.items()):
        print(f"  {name:<{width}}  {value:.4f}")


def _overfit(config, steps: int) -> int:
    from mmjax.training.overfit import overfit_one_batch

    def show(step, values):
        if not is_first():
            return
        parts = "  ".join(f"{name} {value:.4g}" for name, value in sorted(values.items()))
        print(f"step {step:>5}  {parts}", flush=True)

    first, last = overfit_one_batch(config, steps, show)
    verdict = "" if last < first else "; it did not fall, so this cannot learn as it is"
    if is_first():
        print(f"one batch, {steps} steps: loss {first:.4g} -> {last:.4g}{verdict}")
    return 0 if last < first else 1


def _print_folds(summary: Mapping[str, Mapping[str, float]]) -> None:
    width = max(map(len, summary), default=0)
    for name, row in sorted(summary.items()):
        print(f"  {name:<{width}}  {row['mean']:.4f} +- {row['std']:.4f} ({row['folds']:.0f} folds)")
