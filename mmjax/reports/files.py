"""What a run directory holds, read for its report: as much of it as there is."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from mmjax.errors import DataError


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The files of a run that a report reads; absent ones are empty.

    Attributes:
      workdir: the run's directory.
      config: the resolved config.
      result: metrics, steps, timings, versions; empty while the run is in progress.
      history: the lines of `metrics.jsonl`, in order.
      data: the data sets' fingerprints and class names.
      artifacts: what evaluators saved, by file name without its ending.
      unreadable: one sentence for each file that is there and could not be read.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    result: dict[str, Any]
    history: list[dict[str, Any]]
    data: dict[str, Any]
    artifacts: dict[str, dict[str, Any]]
    unreadable: list[str]


def read_run(workdir: pathlib.Path | str) -> RunFiles:
    """Reads a run directory, finished or in progress.

    Raises:
      DataError: when `workdir` is not the directory of a run.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").is_file() and not (workdir / "metrics.jsonl").is_file():
        raise DataError(f"{workdir}: is not a run's directory (it has no config.json and no metrics.jsonl)")
    unreadable: list[str] = []
    names = sorted((workdir / "artifacts").glob("*.json"))
    artifacts = {path.stem: _object(path, unreadable) for path in names}
    return RunFiles(
        workdir=workdir,
        config=_object(workdir / "config.json", unreadable),
        result=_object(workdir / "result.json", unreadable),
        history=_lines(workdir / "metrics.jsonl", unreadable),
        data=_object(workdir / "data.json", unreadable),
        artifacts={name: artifact for name, artifact in artifacts.items() if artifact},
        unreadable=unreadable,
    )


def _object(path, unreadable):
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        unreadable.append(f"{path.name} is not JSON: {error}")
        return {}
    if not isinstance(value, dict):
        unreadable.append(f"{path.name} holds a {type(value).__name__}, expected an object")
        return {}
    return value


def _lines(path, unreadable):
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    found = []
    for position, line in enumerate(lines):
        # The last line has no line feed while the run is still writing it.
        if not line.strip() or position == len(lines) - 1:
            continue
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            unreadable.append(f"{path.name} line {position + 1} is not a JSON object")
    return found
