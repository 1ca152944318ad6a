"""reproduce: the runs of an experiment, and its table."""

from __future__ import annotations

import argparse
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any

from absl import logging

from mmjax.errors import ConfigError, MmjaxError
from mmjax.reports.format import duration
from mmjax.reproduce import experiment as experiments
from mmjax.reproduce import folder, page
from mmjax.reproduce.measured import Measured
from mmjax.verbs import common

_SECONDS = {"h": 3600, "m": 60, "s": 1}
ALL = "all"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a folder of experiments/, or 'all'")
    parser.add_argument("--list", action="store_true", help="list the experiments and how far each is")
    parser.add_argument(
        "--table-only", action="store_true", help="write the table anew from results.json, and run nothing"
    )
    parser.add_argument(
        "--rows",
        metavar="A,B",
        help="only these rows ('all': also those that need what a laptop does not have)",
    )
    parser.add_argument("--seeds", metavar="0,1", help="only these seeds")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time, on CPUs (default: 1)"
    )
    parser.add_argument(
        "--budget",
        metavar="2h",
        help="start only what is expected to end within this time (h, m or s), by the times in results.json",
    )
    common.add_workdir_flag(parser, "where the runs go (default: runs/reproduce/NAME)")


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    for key in overrides:
        raise ConfigError(f"--config.{key}: reproduce runs what the experiment declares; leave it out")
    if flags.list:
        _print_list()
        return
    if flags.name is None:
        known = ", ".join([*experiments.names(), ALL])
        raise ConfigError(f"reproduce: name an experiment (there are: {known}), or use --list")
    if flags.jobs < 1:
        raise ConfigError(f"--jobs={flags.jobs}: expected 1 or more")
    seconds = None if flags.budget is None else _seconds(flags.budget)
    if flags.name == ALL and flags.rows not in (None, ALL):
        raise ConfigError(f"--rows={flags.rows}: names rows of one experiment; name it, or leave --rows out")
    names = experiments.names() if flags.name == ALL else [flags.name]
    tables = {name: Measured(experiments.load(name), folder.read_results(name)) for name in names}
    if flags.table_only:
        for name, table in tables.items():
            folder.write(name, table)
            _print_table(name, table)
        return
    _run(tables, flags, _Budget(seconds))


def _run(tables: Mapping[str, Measured], flags: argparse.Namespace, budget: _Budget) -> None:
    import jax

    from mmjax.reproduce import runs

    if flags.jobs > 1 and (jax.default_backend() != "cpu" or jax.process_count() > 1):
        raise ConfigError(
            f"--jobs={flags.jobs}: one process holds all devices of kind {jax.default_backend()}; "
            "several runs at a time are for CPUs"
        )
    seeds = None if flags.seeds is None else _numbers(flags.seeds)
    plans, failures = {}, []
    for name, table in tables.items():
        place = pathlib.Path(flags.workdir or pathlib.Path("runs") / "reproduce" / name)
        if flags.workdir and flags.name == ALL:
            place /= name
        rows = _rows(flags.rows, table)
        plans[name] = runs.plan(table.experiment, place, rows, seeds)
        if not plans[name] and flags.name != ALL:
            needs = ", ".join(sorted({row.needs for row in table.experiment.rows}))
            raise ConfigError(f"reproduce {name}: every row needs {needs}; where that is, use --rows=all")
    for name in sorted(plans, key=lambda name: _expected(tables[name], plans[name])):
        failures += _reproduce(name, tables[name], plans[name], flags.jobs, budget)
    if failures:
        raise MmjaxError(
            f"{len(failures)} runs failed ({failures[0]}); mend the cause and start again, "
            "what is finished is not run again"
        )


def _reproduce(name: str, table: Measured, planned: list[Any], jobs: int, budget: _Budget) -> list[str]:
    """Runs what is missing of one experiment, and writes its table; a line for each run that failed."""
    import jax

    from mmjax.reproduce import runs

    failures, skipped = [], []

    def may_start(run) -> bool:
        if budget.allows(table.seconds(run.row)):
            return True
        skipped.append(run)
        return False

    def keep(run, measured) -> None:
        nonlocal table
        if "error" in measured:
            failures.append(f"{run.row.name}, seed {run.seed}: {measured['error']}")
        if jax.process_index() == 0:
            table = folder.add_result(name, table.experiment, run.row.name, run.seed, measured)

    wanted = [run for run in planned if run.finished or may_start(run)]
    skipped.clear()
    if wanted:
        place = planned[0].workdir.parents[1]
        runs.share_compilations(place / runs.COMPILATIONS)
        runs.check(wanted)
        runs.run_all(table.experiment, planned, keep, jobs=jobs, may_start=may_start)
        if jax.process_index() == 0:
            _print_table(name, table)
    else:
        skipped = planned
    if skipped:
        logging.info("%s: %d of %d runs were not started: %s", name, len(skipped), len(planned), budget)
    return failures


class _Budget:
    """Time from now on; None is without end."""

    def __init__(self, seconds: float | None):
        self._seconds, self._began = seconds, time.monotonic()

    def allows(self, expected: float | None) -> bool:
        """Whether something that takes `expected` seconds (None: nobody knows) would end in time."""
        if self._seconds is None:
            return True
        return expected is not None and time.monotonic() - self._began + expected <= self._seconds

    def __str__(self) -> str:
        return f"they would not end, or nobody knows when, within {duration(self._seconds or 0)}"


def _expected(table: Measured, planned: list[Any]) -> float:
    """Seconds of the runs that are missing; what is not known comes last."""
    times = [table.seconds(run.row) for run in planned if not run.finished]
    return float("inf") if None in times else sum(times)


def _rows(text: str | None, table: Measured) -> list[str] | None:
    if text == ALL:
        return [row.name for row in table.experiment.rows]
    return None if text is None else text.split(",")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds={text}: expected whole numbers with commas, such as 0,1") from None


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hms])", text)
    if not found:
        raise ConfigError(f"--budget={text}: expected a time such as 2h, 30m or 90s")
    return float(found[1]) * _SECONDS[found[2]]


def _print_table(name: str, table: Measured) -> None:
    print(page.result_table(table))
    print(f"\n{experiments.EXPERIMENTS / name / 'README.md'}")


def _print_list() -> None:
    names = experiments.names()
    width = max(map(len, names), default=0)
    for name in names:
        table = Measured(experiments.load(name), folder.read_results(name))
        print(f"{name:<{width}}  {table.experiment.title} ({table.state()})")
        print(f"{'':<{width}}  {table.experiment.cost}")
