"""The tables of `experiments/` follow from their committed results."""

import pytest

from mmjax.reproduce import experiment, folder, runs
from mmjax.reproduce.measured import Measured


@pytest.mark.parametrize("name", experiment.names())
def test_the_committed_table_is_what_the_results_give(name):
    results = folder.read_results(name)
    files = folder.computed(name, Measured(experiment.load(name), results))
    for file, text in files.items():
        committed = experiment.EXPERIMENTS / name / file
        written = committed.read_text(encoding="utf-8") if committed.is_file() else ""
        assert written == text, f"{file} is stale: ./launch.sh reproduce {name} --table-only"


@pytest.mark.parametrize("name", experiment.names())
def test_the_committed_experiment_can_be_run(name, tmp_path):
    loaded = experiment.load(name)
    rows = [row.name for row in loaded.rows]
    assert len(runs.plan(loaded, tmp_path, rows)) == len(loaded.rows) * len(loaded.seeds)
