"""reproduce: the runs of an experiment, and its table."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping

from mmjax.errors import ConfigError, MmjaxError
from mmjax.files import write_json
from mmjax.reproduce import experiment as experiments
from mmjax.reproduce import table
from mmjax.training.workdir import read_json
from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a folder of experiments/")
    parser.add_argument("--list", action="store_true", help="list the experiments and how far each is")
    parser.add_argument(
        "--table-only", action="store_true", help="write README.md anew from results.json, and run nothing"
    )
    common.add_workdir_flag(parser, "where the runs go (default: runs/reproduce/NAME)")


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    for key in overrides:
        raise ConfigError(f"--config.{key}: reproduce runs what the experiment declares; leave it out")
    if flags.list:
        _print_list()
        return
    if flags.name is None:
        known = ", ".join(experiments.names()) or "none"
        raise ConfigError(f"reproduce: name an experiment (there are: {known}), or use --list")
    experiment = experiments.load(flags.name)
    if flags.table_only:
        _write_table(flags.name, experiment, read_results(flags.name))
        return

    import jax

    from mmjax.reproduce import runs

    workdir = pathlib.Path(flags.workdir or pathlib.Path("runs") / "reproduce" / flags.name)
    runs.share_compilations(workdir / "compilations")
    planned = runs.plan(experiment, workdir)
    runs.check(planned)
    results = runs.run_all(experiment, planned)
    if jax.process_index() == 0:
        write_json(experiments.EXPERIMENTS / flags.name / "results.json", results)
        _write_table(flags.name, experiment, results)
    if failures := runs.failures(results):
        raise MmjaxError(
            f"{len(failures)} runs failed ({failures[0]}); mend the cause and start again, "
            "what is finished is not run again"
        )


def _write_table(name: str, experiment: experiments.Experiment, results: Mapping) -> None:
    page = experiments.EXPERIMENTS / name / "README.md"
    page.write_text(table.render(name, experiment, results), encoding="utf-8")
    print(table.result_table(experiment, results))
    print(f"\n{page}")


def read_results(name: str) -> dict:
    """What an experiment's `results.json` holds; nothing where it was not run."""
    file = experiments.EXPERIMENTS / name / "results.json"
    return read_json(file) if file.is_file() else {}


def _print_list() -> None:
    names = experiments.names()
    width = max(map(len, names), default=0)
    for name in names:
        experiment = experiments.load(name)
        state = table.state(experiment, read_results(name))
        print(f"{name:<{width}}  {experiment.title} ({state})")
        print(f"{'':<{width}}  {experiment.cost}")
