"""Ranking, tables, the best config, and the page, of studies whose training is a stand-in."""

import csv
import json
import re

import pyarrow.parquet
import pytest
from sweep_cases import METRIC, Train, begin, score, write_config

from mmjax import config as config_lib
from mmjax.errors import NonFiniteError
from mmjax.sweeps import live, report, results, significance, worker

NASTY = "<script>alert('x')</script>"


@pytest.fixture
def train(monkeypatch):
    stand_in = Train()
    monkeypatch.setattr(worker, "train", stand_in)
    return stand_in


@pytest.fixture
def repeated(tmp_path, train):
    """Two learning rates with three seeds each; one run of the worse one has failed."""
    study = begin(tmp_path / "s", write_config(tmp_path), sweep=["lr", "seed"], seeds=[0, 1, 2])

    def stop(workdir, step):
        if workdir.name == "00004":
            raise NonFiniteError(f"step 1: not finite: {NASTY}")

    train.stop = stop
    worker.work(study)
    return study


def test_settings_are_ranked_by_their_mean(repeated):
    rows = results.collect(repeated)
    first, second = results.rank(rows, repeated.settings)
    assert first.point == {"optimizer.schedule.peak": 1e-3} and len(first.values()) == 3
    assert first.mean == pytest.approx(1.0 - 0.002 - 0.01) and first.std == pytest.approx(0.01)
    assert len(second.values()) == 2 and second.mean == pytest.approx(1.0 - 0.007 - 0.01)
    assert first.against_best is None
    # Seeds 0 and 2 are paired; their differences are the same, so there is no p.
    assert second.against_best.test == significance.PAIRED
    assert (second.against_best.pairs, second.against_best.p) == (2, None)
    assert second.against_best.difference == pytest.approx(0.005)


def test_a_setting_with_lost_repeats_is_not_the_best(repeated):
    rows = [row for row in results.collect(repeated)]
    low = json.loads(json.dumps(repeated.settings.__dict__))
    settings = type(repeated.settings)(**{**low, "direction": "min"})
    ranked = results.rank(rows, settings)
    assert ranked[1].mean < ranked[0].mean  # it is smaller, and yet incomplete
    assert ranked[0].point == {"optimizer.schedule.peak": 1e-3}


def test_the_tables(repeated):
    rows = results.collect(repeated)
    ranked = results.rank(rows, repeated.settings)
    written = results.write_tables(repeated, rows, ranked)
    assert [path.name for path in written] == ["trials.csv", "trials.parquet", "best.json"]
    with written[0].open() as file:
        lines = list(csv.DictReader(file))
    assert [line["state"] for line in lines] == ["finished"] * 4 + ["failed", "finished"]
    assert lines[4]["error"].startswith("step 1: not finite") and lines[4]["value"] == ""
    assert [line["config.seed"] for line in lines] == ["0", "1", "2"] * 2
    table = pyarrow.parquet.read_table(written[1]).to_pylist()
    assert [row["config.optimizer.schedule.peak"] for row in table] == [1e-3] * 3 + [1e-2] * 3
    assert [row[METRIC] for row in table] == [row.value for row in rows]
    assert table[5]["directory"] == "trials/00005" and table[4]["seconds"] is None


def test_a_point_of_lists_and_sections_has_columns_too(tmp_path, train):
    functions = """
def sweep_layers():
    yield {"model.streams.image.encoder": {"type": "cnn", "widths": [8]}, "checkpoint.every_steps": None}
    yield {"model.streams.image.encoder.widths": [8, 16], "checkpoint.every_steps": 2}
"""
    study = begin(tmp_path / "s", write_config(tmp_path, functions), sweep=["layers"])
    worker.work(study)
    report.write_results(study)
    table = pyarrow.parquet.read_table(study.directory / "trials.parquet").to_pylist()
    assert json.loads(table[0]["config.model.streams.image.encoder"]) == {"type": "cnn", "widths": [8]}
    assert json.loads(table[1]["config.model.streams.image.encoder.widths"]) == [8, 16]
    assert [row["config.checkpoint.every_steps"] for row in table] == [None, 2]


def test_the_best_setting_is_a_config(repeated):
    ranked, written = report.write_results(repeated)
    config = config_lib.resolve(str(repeated.directory / "best.json"))
    assert config.optimizer.schedule.peak == 1e-3 and config.seed == 3  # the file's own seed
    # Training it measures what the trial with that seed would.
    assert score(config) == pytest.approx(1.0 - 0.002 - 0.03)
    assert len(written) == 4 and ranked[0].mean is not None


def test_what_a_sampler_chose_has_no_repeats(tmp_path, train):
    functions = """
from mmjax.sweeps.space import choice

def search_space():
    return {"seed": choice([0, 1]), "batch_size": choice([8])}
"""
    study = begin(tmp_path / "s", write_config(tmp_path, functions), search="random", trials=5)
    worker.work(study)
    ranked, _ = report.write_results(study)
    assert [len(setting.rows) for setting in ranked] == [1] * 5
    assert ranked[0].against_best is None and ranked[1].against_best is None
    config = config_lib.resolve(str(study.directory / "best.json"))
    assert config.seed == ranked[0].point["seed"] == 0


def test_folds_are_no_part_of_the_best_config(tmp_path, train):
    study = begin(tmp_path / "s", write_config(tmp_path), sweep=["lr", "fold"], folds=3)
    worker.work(study)
    ranked, _ = report.write_results(study)
    assert [len(setting.rows) for setting in ranked] == [3, 3]
    assert ranked[1].against_best.test == significance.CORRECTED
    best = json.loads((study.directory / "best.json").read_text())
    assert best["data"]["train"]["type"] == "manifest"
    assert significance.CORRECTED in (study.directory / "sweep.html").read_text()


def test_the_page_shows_everything_and_runs_nothing(repeated):
    report.write_results(repeated)
    text = (repeated.directory / "sweep.html").read_text()
    for part in ("Ranking", "Parallel coordinates", "Importance", "over steps", "Failed trials", "finished"):
        assert part in text
    assert NASTY not in text and "&lt;script&gt;" in text
    assert "default-src &#x27;none&#x27;" in text and not re.search(r"(?:src|href)=|style=\"", text)
    assert significance.PAIRED in text and "± 0.010 (std of 3 runs)" in text


def test_a_page_of_nothing_yet(tmp_path):
    study = begin(tmp_path / "s", write_config(tmp_path), search="random", trials=3)
    ranked, written = report.write_results(study)
    assert [path.name for path in written] == ["sweep.html", "trials.csv", "trials.parquet"]
    assert ranked[0].mean is None and "in progress · 0 of 3" in written[0].read_text()


def test_importance_finds_the_key_that_matters(tmp_path, train):
    study = begin(tmp_path / "s", write_config(tmp_path), search="random", trials=24)
    worker.work(study)
    shares, _ = report.importance(study, results.collect(study))
    assert set(shares) == {"optimizer.schedule.peak", "optimizer.ema", "batch_size"}
    assert shares["optimizer.schedule.peak"] > 0.8
    assert sum(shares.values()) == pytest.approx(1.0)
    few = begin(tmp_path / "t", write_config(tmp_path), search="random", trials=2)
    worker.work(few)
    assert report.importance(few, results.collect(few)) == (
        None,
        "2 trials have finished; 5 that differ are needed.",
    )


def test_the_table_of_a_terminal(repeated):
    rows = results.collect(repeated, log=False)
    lines = live.table(rows, repeated.settings)
    assert lines[0].split() == ["trial", "state", "step", "best", "examples/s", "what"]
    assert lines[1].split()[:4] == ["0", "finished", "4", "0.998"]
    assert lines[-1] == f"6 trials: 5 finished, 1 failed, best {METRIC} 0.998 (trial 0)"


class Out(list):
    """A stream that is a terminal or a file."""

    def __init__(self, terminal):
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.append(text)

    def flush(self):
        pass


def test_a_terminal_is_drawn_anew_and_a_file_gets_what_changes(repeated):
    rows = results.collect(repeated)
    out = Out(True)
    shown = live.Live(repeated.settings, out)
    shown.show(rows)
    shown.show(rows)
    assert not out[0].startswith("\x1b") and out[1].startswith("\x1b[7F\x1b[J")
    out = Out(False)
    shown = live.Live(repeated.settings, out)
    shown.show(rows)
    shown.show(rows)
    assert len(out) == 6
    assert out[0].startswith("trial 0: finished  0.998  optimizer.schedule.peak=0.001, seed=0")


def test_an_infinite_value_has_no_spread_and_ends_nothing(tmp_path, train, monkeypatch):
    study = begin(tmp_path / "s", write_config(tmp_path), sweep=["lr", "seed"], seeds=[0, 1])
    monkeypatch.setattr("sweep_cases.score", lambda config: float("inf") if config.seed else 0.5)
    worker.work(study)
    ranked, _ = report.write_results(study)
    assert [(setting.mean, setting.std) for setting in ranked] == [(float("inf"), None)] * 2
    assert ranked[1].against_best.p is None
