"""sweep: many runs of a config, from lists of settings or a search, on several workers."""

from __future__ import annotations

import argparse
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

from mmjax.errors import ConfigError, MmjaxError
from mmjax.sweeps import SETTINGS
from mmjax.verbs import common

_OF_THE_STUDY = (
    "sweep",
    "seeds",
    "folds",
    "fold_group",
    "search",
    "trials",
    "pruner",
    "search_seed",
    "metric",
    "direction",
    "retries",
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    common.add_config_flag(parser)
    parser.add_argument(
        "--sweep",
        metavar="NAMES",
        help="functions sweep_NAME() of the config file, or seed and fold, which are built in; of several "
        "the product",
    )
    parser.add_argument("--seeds", metavar="0,1,2", help="seeds of the sweep 'seed'")
    parser.add_argument(
        "--folds", type=int, metavar="K", help="K of the sweep 'fold': K-fold cross-validation"
    )
    parser.add_argument(
        "--fold-group",
        metavar="FEATURE",
        help="keep examples that share this feature of the data in one fold",
    )
    parser.add_argument(
        "--search",
        metavar="SAMPLER",
        help="instead of --sweep: random, tpe, cma_es or grid over the config file's search_space(); options "
        "follow a colon, such as tpe:startup=10",
    )
    parser.add_argument("--trials", type=int, metavar="N", help="trials of the search")
    parser.add_argument(
        "--pruner",
        metavar="PRUNER",
        help="stop bad trials early: none, median or halving; options follow a colon, such as "
        "median:startup=4,warmup=1 or halving:factor=3 (default: none)",
    )
    parser.add_argument("--search-seed", type=int, metavar="S", help="seed of the search itself (default: 0)")
    parser.add_argument(
        "--metric",
        help="what is better, a metric of result.json (default: the config's checkpoint.best_metric)",
    )
    parser.add_argument("--direction", choices=("max", "min"), help="(default: what the metric's name says)")
    parser.add_argument(
        "--retries",
        type=int,
        metavar="N",
        help="how often a trial goes on after its worker died (default: 3)",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine")
    parser.add_argument(
        "--storage",
        metavar="WHERE",
        help="record of the trials: sqlite (one machine; the default), journal (several that share the "
        "directory), or postgresql://USER@HOST/DATABASE",
    )
    common.add_workdir_flag(parser, "the sweep's directory (default: runs/sweeps/<config>-<sweep>)")
    parser.add_argument("--resume", action="store_true", help="go on with the sweep in --workdir, as it is")
    parser.add_argument(
        "--retry-failed", action="store_true", help="run the trials that failed again, from their checkpoints"
    )
    parser.add_argument(
        "--worker",
        action="store_true",
        help="be one worker of the sweep, and start no others (for jobs on several machines)",
    )
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    if flags.workers < 1:
        raise ConfigError(f"--workers={flags.workers}: expected 1 or more")
    from mmjax.sweeps import storage

    address = flags.storage or os.environ.get("MMJAX_SWEEP_STORAGE")
    if address is not None:
        storage.check(address)
    names = _names(flags.sweep)
    given = [name for name in _OF_THE_STUDY if getattr(flags, name) is not None]
    fresh = bool(given or overrides)
    if flags.resume and fresh:
        first = f"--{given[0].replace('_', '-')}" if given else f"--config.{next(iter(overrides))}"
        raise ConfigError(f"{first}: --resume goes on with the sweep as it is; leave one of them out")
    if flags.resume and not flags.workdir:
        raise ConfigError("--resume: give the sweep's directory too, --workdir=DIR")
    directory = (
        pathlib.Path(flags.workdir) if flags.workdir else default_directory(flags.config, names, flags.search)
    )

    from mmjax.sweeps import study as study_lib

    if fresh or not (flags.resume or flags.worker):
        study = _begin(flags, overrides, names, directory, address or "sqlite")
    else:
        study = study_lib.open_study(directory, address)
        study.fill()  # what made it may have been killed before all trials were recorded
    if flags.retry_failed:
        study.retry_failed()

    from mmjax.sweeps.report import write_results

    if flags.worker:
        from mmjax.sweeps.worker import work

        work(study, flags.parent)
        if flags.parent is None:
            _show(study, *write_results(study))
        return
    try:
        if study.unfinished():
            from mmjax.sweeps.pool import Pool

            Pool(study, address or study.settings.storage, flags.workers).run()
    finally:
        ranked, written = write_results(study)  # also of a sweep that was stopped
    _show(study, ranked, written)


def check_elsewhere(flags: argparse.Namespace, overrides: Mapping[str, str], place: str) -> int:
    """How many machines a sweep takes with `--on=<place>`: one for each worker.

    Raises:
      ConfigError: what was given cannot be run there; nothing is written.
    """
    where = flags.storage
    given = any(getattr(flags, name) is not None for name in _OF_THE_STUDY)
    as_it_is = flags.resume or (flags.worker and not (given or overrides))
    if where is None and as_it_is and (pathlib.Path(flags.workdir or "") / SETTINGS).is_file():
        from mmjax.sweeps.study import read_settings

        where = read_settings(pathlib.Path(flags.workdir)).storage
    if flags.workers > 1 and where in (None, "sqlite"):
        raise ConfigError(
            f"--on={place}: several workers need --storage=journal or postgresql://...; SQLite's locks do "
            "not hold on the file systems that machines share"
        )
    if not as_it_is:
        _settings(flags, overrides, _names(flags.sweep), flags.storage or "sqlite")
    return flags.workers


def one_worker(command: Sequence[str]) -> list[str]:
    """The command of one worker of a sweep, from that of the whole sweep."""
    kept, skip = [], False
    for item in command:
        if skip or item.startswith("--workers="):
            skip = False
        elif item == "--workers":
            skip = True
        else:
            kept.append(item)
    return [*kept, "--worker"]


def default_directory(config: str, names: list[str], search: str | None) -> pathlib.Path:
    """`runs/sweeps/<config>-<sweep>`."""
    what = "-".join([*filter(None, [(search or "").partition(":")[0]]), *names])
    if not what:
        raise ConfigError(
            "sweep: give --sweep=NAMES, or --search=SAMPLER; --resume goes on with --workdir=DIR"
        )
    return pathlib.Path("runs") / "sweeps" / f"{common.default_workdir(config).name}-{what}"


def _begin(flags, overrides, names, directory, address):
    from mmjax.sweeps import plan
    from mmjax.sweeps import study as study_lib

    settings = _settings(flags, overrides, names, address)
    study_lib.check_place(directory, settings)
    plan.prepare(settings)
    return study_lib.begin(directory, settings, address)


def _settings(flags, overrides, names, address):
    """What the flags describe, checked."""
    from mmjax.sweeps import plan

    settings = plan.make_settings(
        flags.config,
        overrides,
        sweep=names,
        search=flags.search,
        trials=flags.trials,
        pruner=flags.pruner or "none",
        metric=flags.metric,
        direction=flags.direction,
        seeds=_seeds(flags.seeds),
        folds=flags.folds,
        fold_group=flags.fold_group or "",
        search_seed=flags.search_seed or 0,
        storage=address,
        retries=3 if flags.retries is None else flags.retries,
    )
    for flag, wanted in (("seeds", "seed"), ("folds", "fold"), ("fold_group", "fold")):
        if getattr(flags, flag) is not None and wanted not in names:
            raise ConfigError(
                f"--{flag.replace('_', '-')}: is for --sweep={wanted}; add it, or leave this out"
            )
    if settings.retries < 0:
        raise ConfigError(f"--retries={settings.retries}: expected 0 or more")
    return settings


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",")]


def _seeds(text: str | None) -> list[int]:
    if text is None:
        return []
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ConfigError(f"--seeds={text}: expected whole numbers with commas between them, such as 0,1,2")
    return [int(part) for part in text.split(",")]


def _show(study, ranked, written) -> None:
    """The best setting, and where everything stands; an error where nothing has finished."""
    from mmjax.sweeps import points

    best = ranked[0]
    if best.mean is not None:
        spread = "" if best.std is None else f" ± {best.std:.4g} (std of {len(best.values())} runs)"
        print(f"best {study.settings.metric}: {best.mean:.4f}{spread} with {points.label(best.point)}")
    print(f"written: {', '.join(map(str, written))}")
    errors = [row.error for setting in ranked for row in setting.rows if row.error]
    if errors:
        print(f"{len(errors)} trials failed; the first: {errors[0]}")
    if best.mean is None:
        raise MmjaxError("no trial has finished; mend the cause and start again with --retry-failed")
