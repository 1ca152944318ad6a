"""The files of an experiment: its results, and what is computed from them."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping

from mmjax.errors import DataError
from mmjax.files import write_json, write_text
from mmjax.reproduce import experiment as experiments
from mmjax.reproduce import export, page, plot
from mmjax.reproduce.experiment import Experiment
from mmjax.reproduce.measured import Measured

RESULTS = "results.json"


def read_results(name: str) -> dict:
    """What the experiment's `results.json` holds; nothing where it was not run.

    Raises:
      DataError: the file is damaged.
    """
    file = experiments.EXPERIMENTS / name / RESULTS
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: is damaged ({error}); restore it, or remove it to begin anew") from None


def computed(name: str, measured: Measured) -> dict[str, str]:
    """File name -> text of all that follows from the results; the table's other forms where there are any."""
    files = {"README.md": page.render(name, measured)}
    if measured.finished():
        files |= {"table.csv": export.to_csv(measured), "table.tex": export.to_tex(name, measured)}
        files |= {"table.svg": plot.to_svg(measured)}
    return files


def write(name: str, measured: Measured) -> None:
    """Writes what is computed."""
    for file, text in computed(name, measured).items():
        write_text(experiments.EXPERIMENTS / name / file, text)


def add_result(name: str, experiment: Experiment, row: str, seed: int, found: Mapping) -> Measured:
    """Puts one run into the results, and writes all files anew.

    Others may do the same at the same time, on this machine. An error does not take the place of what the
    same config gave before.

    Args:
      name: of the experiment's directory.
      experiment: as declared there.
      row, seed: which run.
      found: what was measured in it, or its error.

    Returns:
      The experiment with all results there are now.
    """
    with (experiments.EXPERIMENTS / name / "experiment.py").open("rb") as declared:
        fcntl.flock(declared, fcntl.LOCK_EX)  # until the file is closed
        results = read_results(name)
        before = results.get(row, {}).get(str(seed), {"error": ""})
        same = before.get("config_digest") == found["config_digest"]
        if not ("error" in found and "error" not in before and same):
            results = {**results, row: {**results.get(row, {}), str(seed): dict(found)}}
            write_json(experiments.EXPERIMENTS / name / RESULTS, results)
        measured = Measured(experiment, results)
        write(name, measured)
        return measured
