"""A run's directory: who may write to it, and the files that stand in it.

config.json     the resolved config; alone enough to run again
spec.json       shapes and types of one batch
data.json       fingerprints of the data sets and the class names of the labels
tokenizers/     the tokenizers, one JSON each
metrics.jsonl   one line per log or evaluation
checkpoints/    the whole state, see mmjax.training.checkpoints
artifacts/      what evaluators leave for the report
result.json     final metrics and facts about the run; present only when it is finished
report.html
launch/         the job's script and its log, of runs that launch.sh --on=slurm has started
searches/       pictures of what `search` found
plan.json       what `plan` said of the run before it started
profile/        traces of JAX's profiler
.lock           held by the process that trains here
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import pathlib
import platform
import subprocess
import uuid
from collections.abc import Mapping
from importlib import metadata
from typing import IO, Any

from mmjax import components, schema
from mmjax import config as config_lib
from mmjax.errors import ConfigError, DataError
from mmjax.files import write_json, write_text

CONFIG, DATA, RESULT, PLAN = "config.json", "data.json", "result.json", "plan.json"
_LOCK = ".lock"
# What `mmjax.reproduce` writes into each folder of experiments/.
TABLES = ("README.md", "results.json", "table.csv", "table.tex", "table.svg")
_VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def read_json(path: pathlib.Path) -> Any:
    """Reads a file of a run; `DataError` where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; is {path.parent} the directory of a run?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is damaged ({error})") from None


def check_place(workdir: pathlib.Path) -> None:
    """Raises a `ConfigError` unless `workdir` is a run's directory, empty, or yet to be made."""
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"--workdir={workdir}: is a file; choose a directory")
    if (workdir / CONFIG).is_file() or not workdir.is_dir():
        return
    # A process that was killed while writing the first file may have left its partial file, a job begins
    # with its script and log there, and a run may have been planned.
    before = ("launch", PLAN, _LOCK)
    if any(not path.name.endswith(".partial") and path.name not in before for path in workdir.iterdir()):
        raise ConfigError(f"--workdir={workdir}: is not empty and not a run; choose another directory")


def lock(workdir: pathlib.Path) -> IO[str]:
    """Keeps other processes of this machine from training in `workdir`, which is made where it is missing.

    Returns:
      What to close when it is over; the end of the process does it too, however it ends.

    Raises:
      ConfigError: another process trains there, or nothing can be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / _LOCK).open("w")
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: cannot be written ({error}); choose another") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(
            f"--workdir={workdir}: another process is training there; wait until it ends, or choose another "
            "directory"
        ) from None
    except OSError:  # a file system without locks
        pass
    return file


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The config of a run, with today's defaults for the keys that were added since.

    Raises:
      DataError: this is no run's directory, or the file is damaged.
      ConfigError: this version of the code does not have one of its keys, or needs another.
    """
    saved = read_json(workdir / CONFIG)
    try:
        return components.normalise(saved, schema.Config, "")
    except ConfigError as error:
        raise ConfigError(
            f"{workdir / CONFIG}: {error}; the run was made by another version of mmjax, use that one"
        ) from None


def write_inputs(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    spec: Mapping[str, Any],
    tokenizers: Mapping[str, Any],
) -> None:
    """Makes `workdir` the directory of this run, with what prediction needs besides the parameters.

    Args:
      workdir: checked by `mmjax.training.resume`; made where it does not exist.
      config: resolved, with all sizes filled in.
      facts: what is known of the data, see `mmjax.data.loading.LoadedData.facts`.
      spec: shapes and types of one batch, see `mmjax.data.preprocessing.Spec`.
      tokenizers: by name.

    Raises:
      ConfigError: nothing can be written there.
    """
    try:
        write_json(workdir / CONFIG, config_lib.to_dict(config))  # first: it makes this a run's directory
        write_json(workdir / DATA, facts)
        write_json(workdir / "spec.json", spec)
        for name, tokenizer in tokenizers.items():
            tokenizer.save(workdir / "tokenizers" / f"{name}.json")
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: cannot be written ({error}); choose another") from error


def check_log(log: Mapping[str, Any]) -> None:
    """Raises a `ConfigError` where a writer that `log` asks for is not installed."""
    if log["wandb"] and importlib.util.find_spec("wandb") is None:
        raise ConfigError("log.wandb=true: wandb is not installed; pip install wandb, or log.wandb=false")


class MetricsLog:
    """Appends to `metrics.jsonl`, and to TensorBoard and Weights & Biases where asked.

    Args:
      workdir: the run's directory.
      step: the step the run goes on from; later lines, of work that was lost, are cut off.
      log: `mmjax.schema.Log`, after `check_log`.
      config: for Weights & Biases.
      writes: False on all processes but one, where nothing is written.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        step: int,
        log: Mapping[str, Any],
        config: Mapping[str, Any],
        *,
        writes: bool = True,
    ):
        self._file = self._tensorboard = self._wandb = None
        if not writes:
            return
        path = workdir / "metrics.jsonl"
        _cut_back(path, step)
        self._file = path.open("a", encoding="utf-8")
        if log["tensorboard"]:
            from tensorboardX import SummaryWriter

            self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
        if log["wandb"]:
            import wandb

            self._wandb = wandb.init(
                project=log["wandb_project"],
                dir=str(workdir),
                config=config_lib.to_dict(config),
                id=_wandb_id(workdir),
                resume="allow",
            )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One line: `{"step": step, **values}`."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}, sort_keys=True) + "\n")
        self._file.flush()
        numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
        if self._tensorboard is not None:
            for key, value in numbers.items():
                self._tensorboard.add_scalar(key, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        """Flushes every writer."""
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _wandb_id(workdir: pathlib.Path) -> str:
    """The run's name there, kept beside its metrics, so that a run that goes on is the same one."""
    path = workdir / "wandb.json"
    if not path.is_file():
        write_json(path, {"id": uuid.uuid4().hex})
    return read_json(path)["id"]


def _cut_back(path: pathlib.Path, step: int) -> None:
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue  # the half-written last line of a killed process
    write_text(path, "".join(kept))


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the libraries that decide numbers."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("mmjax", *_VERSIONED):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_revision() -> str | None:
    """The commit of the checkout this code runs from, with `-dirty` where it was changed.

    The tables that `reproduce` writes into it after each run are no change.
    """
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        tables = [f":(exclude,top,glob)experiments/*/{name}" for name in TABLES]
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":(top)", *tables)
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    folder = pathlib.Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
