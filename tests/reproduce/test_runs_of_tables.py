import pytest
from table_cases import METRIC, declared, measured, result

from mmjax.errors import ConfigError, MmjaxError, Preempted
from mmjax.files import write_json
from mmjax.reproduce import Column, Row, folder, runs


def test_the_time_of_a_step_is_that_of_the_fastest_interval():
    # The first line's interval holds the compilation; an evaluation has no rate.
    history = [{"train/examples_per_second": rate} for rate in (8.0, 64.0, 80.0)] + [{"accuracy": 0.5}]
    assert runs.step_time(history, 16) == {"step_milliseconds": 200.0}
    assert runs.step_time([], 16) == {}


def test_numbers_of_the_log_of_training_are_those_of_its_last_line():
    history = [
        {"step": 1, "train/loss": 3.0, "train/part/loss": 1.0},
        {"step": 2, "train/loss": 2.0, "train/part/loss": 0.5},
        {"step": 2, METRIC: 0.9},
    ]
    wanted = ["train/loss", METRIC, "train/other"]
    assert runs.last_logged(history, wanted) == {"train/loss": 2.0}
    assert runs.last_logged([{"step": 1, METRIC: 0.9}], wanted) == {}


def test_a_column_that_nothing_measures_is_refused(config_file, tmp_path):
    one = Row("one", "first", str(config_file))
    wrong = declared(one, columns=[Column("classification/group/accuracy", "x")])
    with pytest.raises(
        ConfigError, match="column 'classification/group/accuracy': no row's evals measure it"
    ):
        runs.plan(wrong, tmp_path)


def test_only_some_rows_and_seeds(config_file, tmp_path):
    accelerated = Row("big", "big", str(config_file), needs="a TPU")
    colours = declared(Row("one", "first", str(config_file)), accelerated)

    def chosen(**selection):
        return [(run.row.name, run.seed) for run in runs.plan(colours, tmp_path, **selection)]

    assert chosen() == [("one", 0), ("one", 1)]
    assert chosen(rows=["one", "big"], seeds=[1]) == [("one", 1), ("big", 1)]
    with pytest.raises(ConfigError, match=r"--rows: 'bg' is unknown \(did you mean 'big'\?\)"):
        chosen(rows=["bg"])
    with pytest.raises(ConfigError, match="--seeds: 7 is none of the experiment's; it has: 0, 1"):
        chosen(seeds=[7])


def test_a_run_that_fails_does_not_stop_the_others(config_file, tmp_path, monkeypatch):
    def train(config, workdir):
        if config.batch_size == 4:
            raise MmjaxError("no luck")
        if config.batch_size == 2:
            raise RuntimeError("first line\nsecond line")
        write_json(workdir / "result.json", result(config.seed / 10))

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "write_report", lambda workdir: workdir)
    rows = [
        Row("bad", "bad", str(config_file), overrides={"batch_size": "4"}),
        Row("broken", "broken", str(config_file), overrides={"batch_size": "2"}),
        Row("good", "good", str(config_file)),
    ]
    colours = declared(*rows, seeds=[3])
    found = {}
    runs.run_all(colours, runs.plan(colours, tmp_path), lambda run, kept: found.update({run.row.name: kept}))
    assert found["good"]["metrics"] == {METRIC: 0.3}
    assert found["good"].keys() == measured(0.3)["0"].keys()
    assert found["bad"]["error"] == "no luck" and found["broken"]["error"] == "RuntimeError: first line"


def test_a_stop_signal_ends_all_runs(config_file, tmp_path, monkeypatch):
    def train(config, workdir):
        raise Preempted("saved")

    monkeypatch.setattr(runs, "train", train)
    colours = declared(Row("one", "first", str(config_file)))
    with pytest.raises(Preempted):
        runs.run_all(colours, runs.plan(colours, tmp_path), keep=None)


def test_an_error_does_not_take_the_place_of_a_result(place, digests):
    (place / "experiment.py").write_text("")
    one, good = declared(), measured(0.5)["0"]
    folder.add_result("colours", one, "one", 0, good)
    table = folder.add_result("colours", one, "one", 0, {"error": "no luck", "config_digest": "digest"})
    assert table.finished() == [good] and folder.read_results("colours")["one"]["0"] == good
    table = folder.add_result("colours", one, "one", 0, {"error": "no luck", "config_digest": "newer"})
    assert table.failed() and "no luck" in (place / "README.md").read_text()
    table = folder.add_result("colours", one, "one", 0, good)
    assert table.finished() == [good]


def test_what_others_have_measured_meanwhile_stays(place, digests):
    (place / "experiment.py").write_text("")
    for row in ("one", "two"):  # as two processes, which know nothing of each other
        for seed, found in measured(0.5, 0.6).items():
            folder.add_result("colours", declared(), row, int(seed), found)
    assert {row: set(seeds) for row, seeds in folder.read_results("colours").items()} == {
        "one": {"0", "1"},
        "two": {"0", "1"},
    }
