"""A study: one directory with what is tried (`study.json`), the record of its trials, and their runs.

study.json     the settings; another sweep is refused in the same directory
study.sqlite3  the trials' states, points and values, see `mmjax.sweeps.storage`
claims/        which process works on what, see `mmjax.sweeps.claims`
trials/00012/  an ordinary run
workers/       logs of the workers
"""

from __future__ import annotations

import dataclasses
import json
import logging as standard_logging
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

import optuna
from ml_collections import ConfigDict
from optuna.trial import FrozenTrial, TrialState

from mmjax import config as config_lib
from mmjax.errors import ConfigError, DataError
from mmjax.files import write_json
from mmjax.sweeps import SETTINGS, algorithms, claims, points, space
from mmjax.sweeps import storage as storage_lib

FORMAT = "mmjax.sweep.1"
# Attributes of a trial in the storage; INSTEAD is the number of the first trial that it repeats.
POINT, ERROR, INSTEAD = "point", "error", "instead"
_BEFORE = ("launch", "claims")  # what may stand in the directory before the study
_FREE = ("name", "reference", "storage", "trials", "retries")  # no part of what is tried


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a study tries; all that its workers need to know.

    Attributes:
      name: of the study in its storage.
      reference: the config file, for people.
      declared: the config as the file gives it, with no default filled.
      overrides: key -> text of the command line.
      sweep: names of sweeps; empty for a search.
      points: what the trials change, for sweeps and grids; none where a sampler chooses.
      search: the sampler with its options, for a search.
      search_seed: of the sampler.
      space: the search space, as `mmjax.sweeps.space.to_json` writes it.
      trials: how many.
      pruner: with its options.
      metric, direction: what is better: the 'max' or 'min' of a metric of `result.json`.
      folds, fold_group: of the sweep `fold`.
      storage: without a password.
      retries: how often a trial is taken up again after its worker died.
    """

    name: str
    reference: str
    declared: dict[str, Any]
    overrides: dict[str, str]
    sweep: list[str]
    points: list[points.Point] | None
    search: dict[str, Any] | None
    search_seed: int
    space: dict[str, Any]
    trials: int
    pruner: dict[str, Any]
    metric: str
    direction: str
    folds: int | None
    fold_group: str
    storage: str
    retries: int

    def config(self, point: points.Point) -> ConfigDict:
        """The resolved config of a point; `ConfigError` where it cannot be run."""
        for key in points.texts(point):
            if key in self.overrides:
                raise ConfigError(f"--config.{key}: is set by the sweep too; leave one of them out")
        config = config_lib.resolve_raw(self.declared, {**self.overrides, **points.texts(point)})
        if points.FOLD in point:
            from mmjax.training import folds

            folds.check(config, self.folds)
            config = folds.fold_config(config, self.folds, point[points.FOLD], self.fold_group)
        return config

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is better than `other`."""
        return one > other if self.direction == "max" else one < other


class Study:
    """A study's directory, open.

    Args:
      directory: of the study.
      settings: what it tries.
      address: of its storage, with the password where it needs one.
    """

    def __init__(self, directory: pathlib.Path, settings: Settings, address: str):
        self.directory, self.settings = directory, settings
        quiet()
        # Of processes that make the same tables at the same time, all but one fail.
        with claims.waiting_for(directory / "claims", "study"):
            self._storage = storage_lib.open_storage(address, directory)
        self._study: optuna.Study | None = None

    def fill(self) -> None:
        """Records the trials that are not there yet; one process does it at a time."""
        settings = self.settings
        with claims.waiting_for(self.directory / "claims", "study"):
            study = optuna.create_study(
                storage=self._storage,
                study_name=settings.name,
                direction={"max": "maximize", "min": "minimize"}[settings.direction],
                load_if_exists=True,
            )
            there = [t for t in study.get_trials(deepcopy=False) if INSTEAD not in t.user_attrs]
            for number in range(len(there), settings.trials):
                given = {POINT: json.dumps(settings.points[number])} if settings.points is not None else {}
                study.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs=given))

    def retry_failed(self) -> int:
        """Records a new trial for each that failed, with its point and directory; returns how many."""
        with claims.waiting_for(self.directory / "claims", "study"):
            failed = [t for t in self.trials(TrialState.FAIL) if POINT in t.user_attrs]
            for trial in failed:
                given = {POINT: trial.user_attrs[POINT], INSTEAD: first_number(trial)}
                self.optuna().add_trial(
                    optuna.create_trial(
                        state=TrialState.WAITING,
                        params=trial.params,
                        distributions=trial.distributions,
                        user_attrs=given,
                    )
                )
        return len(failed)

    def optuna(self, number: int | None = None) -> optuna.Study:
        """The study as Optuna has it; from now on with the sampler of trial `number`, where one is given."""
        settings = self.settings
        if self._study is None:
            try:
                self._study = optuna.load_study(
                    storage=self._storage,
                    study_name=settings.name,
                    pruner=algorithms.make_pruner(settings.pruner),
                )
            except KeyError:
                raise DataError(
                    f"{self.directory}: its trials are not recorded in {settings.storage}; record them with "
                    f"sweep --resume --workdir={self.directory}"
                ) from None
        if number is not None:
            self._study.sampler = algorithms.make_sampler(
                settings.search, settings.search_seed, number, space.from_json(settings.space)
            )
        return self._study

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials, by number; only those in some states where any are given.

        Of a trial that was repeated after it failed, only the last one.
        """
        last = {first_number(trial): trial for trial in self.optuna().get_trials(deepcopy=False)}
        return [trial for trial in last.values() if not states or trial.state in states]

    def unfinished(self) -> list[FrozenTrial]:
        """The trials that wait or run."""
        return self.trials(TrialState.WAITING, TrialState.RUNNING)

    def workdir(self, trial: FrozenTrial | optuna.Trial) -> pathlib.Path:
        """Directory of a trial's run."""
        return self.directory / "trials" / claim_name(first_number(trial))


def first_number(trial: FrozenTrial | optuna.Trial) -> int:
    """The number that people see: that of the first trial, where this one repeats one that failed."""
    return trial.user_attrs.get(INSTEAD, trial.number)


def claim_name(number: int) -> str:
    """Name of a trial's directory and claims."""
    return f"{number:05d}"


def open_study(directory: pathlib.Path, address: str | None = None) -> Study:
    """The study in a directory.

    Args:
      directory: of the study.
      address: of its storage, where it is not to be taken from the settings.

    Raises:
      ConfigError: the address is not that of its storage.
      DataError: there is none, its settings are damaged, or the record of its trials is gone.
    """
    settings = read_settings(directory)
    if address is not None and storage_lib.without_password(address) != settings.storage:
        raise ConfigError(
            f"--storage={storage_lib.without_password(address)}: the sweep in {directory} is recorded in "
            f"{settings.storage}; leave --storage (or MMJAX_SWEEP_STORAGE) out"
        )
    file = storage_lib.local_file(settings.storage, directory)
    if file is not None and not file.is_file() and (directory / "trials").is_dir():
        raise DataError(f"{file}: is gone, and with it the record of the trials; choose another directory")
    return Study(directory, settings, address or settings.storage)


def read_settings(directory: pathlib.Path) -> Settings:
    """The settings of a study; `DataError` where it is none or they are damaged."""
    path = directory / SETTINGS
    if not path.is_file():
        raise DataError(f"{directory}: holds no sweep (no {SETTINGS}); start one with --sweep or --search")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved.pop("format", None) != FORMAT:
            raise ValueError(f"is not of the format {FORMAT}")
        return Settings(**saved)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is damaged ({error})") from None


def begin(directory: pathlib.Path, settings: Settings, address: str) -> Study:
    """Makes a study, or opens the one that is there, where it tries the same.

    A search may be given more trials than it had; what is finished is not tried again.

    Raises:
      ConfigError: the directory holds another sweep or other files, or cannot be written.
    """
    check_place(directory, settings)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with claims.waiting_for(directory / "claims", "study"):
            check_place(directory, settings)
            if (directory / SETTINGS).is_file():
                settings = dataclasses.replace(settings, name=read_settings(directory).name)
            else:
                name = f"{directory.absolute().name}-{uuid.uuid4().hex[:8]}"
                settings = dataclasses.replace(settings, name=name)
            settings = dataclasses.replace(settings, storage=storage_lib.without_password(settings.storage))
            write_json(directory / SETTINGS, {"format": FORMAT, **dataclasses.asdict(settings)})
    except OSError as error:
        raise ConfigError(f"--workdir={directory}: cannot be written ({error}); choose another") from error
    study = Study(directory, settings, address)
    study.fill()
    return study


def check_place(directory: pathlib.Path, settings: Settings) -> None:
    """Raises a `ConfigError` unless a directory is free, or its study tries what the settings say."""
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"--workdir={directory}: is a file; choose a directory")
    if not (directory / SETTINGS).is_file():
        if directory.is_dir() and any(
            path.name not in _BEFORE and not path.name.endswith(".partial") for path in directory.iterdir()
        ):
            raise ConfigError(
                f"--workdir={directory}: is not empty and not a sweep; choose another directory"
            )
        return
    saved = read_settings(directory)
    lines = config_lib.difference(_identity(saved), _identity(settings))
    if storage_lib.without_password(settings.storage) != saved.storage:
        lines.append(f"storage: {saved.storage!r} -> {storage_lib.without_password(settings.storage)!r}")
    if settings.trials < saved.trials:
        lines.append(f"trials: {saved.trials} -> {settings.trials}")
    if lines:
        shown = "; ".join(lines[:4]) + (f"; and {len(lines) - 4} more" if len(lines) > 4 else "")
        raise ConfigError(
            f"--workdir={directory}: holds another sweep ({shown}); choose another directory, or go on with "
            "that one: sweep --resume"
        )


def _identity(settings: Settings) -> Mapping[str, Any]:
    plain = json.loads(json.dumps(dataclasses.asdict(settings)))
    return {key: value for key, value in plain.items() if key not in _FREE}


def quiet() -> None:
    """Optuna's own messages only from errors on; ours say what matters."""
    optuna.logging.set_verbosity(standard_logging.ERROR)
