"""eval: the evaluators of a run's config on one of its checkpoints.

The run's own config says what to evaluate; `--config.evals...` and `--config.data.eval...` may add
to it or change it. Nothing of the run is changed but its `artifacts/`.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping

from mmjax import config as config_lib
from mmjax.errors import ConfigError
from mmjax.files import write_json
from mmjax.parallel.processes import is_first
from mmjax.training.workdir import read_config
from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    common.add_run_flags(parser)
    parser.add_argument("--only", metavar="NAME", action="append", help="an evaluator to run (default: all)")
    parser.add_argument("--out", metavar="FILE", help="also write the metrics to a new .json file")
    common.add_process_flags(parser)


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    for key in overrides:
        if not key.startswith(
            ("evals.", "data.eval.", "data.dir", "data.num_workers", "batch_size", "mesh.")
        ):
            raise ConfigError(
                f"--config.{key}: eval changes only evals, data.eval, data.dir, data.num_workers, batch_size "
                "and mesh; the rest is the run's own"
            )
    out = pathlib.Path(flags.out) if flags.out else None
    if out is not None and out.exists():
        raise ConfigError(f"--out={out}: is there already; choose another name")
    workdir = pathlib.Path(flags.workdir)
    read_config(workdir)  # which says so where this is no run's directory, or of another version
    config = config_lib.resolve(str(workdir / "config.json"), overrides)
    common.connect(flags)

    from mmjax.training.evaluate import evaluate_checkpoint
    from mmjax.verbs.train import print_metrics

    step, metrics = evaluate_checkpoint(config, workdir, flags.step, flags.only)
    if not is_first():
        return
    print(f"step {step}")
    print_metrics(metrics)
    if out is not None:
        write_json(out, {"step": step, "metrics": metrics})
