"""The files of an experiment: its results, and what is computed from them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mmjax.errors import DataError
from mmjax.files import write_json, write_text
from mmjax.reproduce import experiment as experiments
from mmjax.reproduce import export, page, plot
from mmjax.reproduce.measured import Measured, Results

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


def write(name: str, measured: Measured, results: Results | None = None) -> None:
    """Writes what is computed, and before it the results where they are new."""
    folder = experiments.EXPERIMENTS / name
    if results is not None:
        write_json(folder / RESULTS, results)
    for file, text in computed(name, measured).items():
        write_text(folder / file, text)


def with_result(results: Results, row: str, seed: int, measured: Mapping) -> dict:
    """Results with those of one run new."""
    return {**results, row: {**results.get(row, {}), str(seed): dict(measured)}}
