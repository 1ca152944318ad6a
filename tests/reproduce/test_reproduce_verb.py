import json

import pytest
from table_cases import METRIC, declared, measured, result

from mmjax import __main__ as main
from mmjax.errors import ConfigError, MmjaxError
from mmjax.files import write_json
from mmjax.reproduce import Row, experiment, folder, runs


def test_the_verb_trains_what_is_missing_and_writes_the_page(config_file, place, tmp_path, capsys):
    (place / "experiment.py").write_text(
        "from mmjax.reproduce import Column, Experiment, Row\n"
        "EXPERIMENT = Experiment('T', 'X', 's', 'c', seeds=[0],\n"
        f"    rows=[Row('one', 'first', {str(config_file)!r})], columns=[Column({METRIC!r}, 'accuracy')])\n"
    )
    verb = ["reproduce", "colours", f"--workdir={tmp_path / 'runs'}"]
    assert main.dispatch(verb) == 0
    run = tmp_path / "runs" / "one" / "seed0"
    assert (run / "result.json").is_file() and (run / "report.html").is_file()
    results = json.loads((place / "results.json").read_text())
    kept = json.loads((run / "result.json").read_text())["metrics"][METRIC]
    assert results["one"]["0"]["metrics"] == {METRIC: kept}
    text = (place / "README.md").read_text()
    assert f"| first | {kept:.3f} |" in text

    before = (run / "result.json").stat().st_mtime_ns
    assert main.dispatch(verb) == 0  # nothing is trained again
    assert (run / "result.json").stat().st_mtime_ns == before
    assert (place / "README.md").read_text() == text

    config_file.write_text(config_file.read_text().replace('"peak": 0.1', '"peak": 0.2'))
    with pytest.raises(ConfigError, match=r"seed0: holds a run of another config \(optimizer.schedule.peak"):
        main.dispatch(verb)
    assert json.loads((place / "results.json").read_text()) == results
    config_file.write_text(config_file.read_text().replace('"peak": 0.2', '"peak": 0.1'))

    (place / "README.md").write_text("stale")
    assert main.dispatch(["reproduce", "colours", "--table-only"]) == 0
    assert (place / "README.md").read_text() == text
    capsys.readouterr()
    main.dispatch(["reproduce", "--list"])
    assert "colours  T (1 of 1 runs)" in capsys.readouterr().out


SECONDS = {"quick": 5.0, "slow": 60.0, "unknown": 20.0}


def known_results(name, *values):
    return {name: {seed: run | {"wall_seconds": SECONDS[name]} for seed, run in measured(*values).items()}}


@pytest.fixture
def trained(monkeypatch):
    """What was trained, as the verb was told; no run takes any time."""
    trained = []

    def train(config, workdir):
        trained.append((workdir.parent.name, config.seed))
        write_json(workdir / "result.json", result(0.25) | {"wall_seconds": SECONDS[workdir.parent.name]})

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "write_report", lambda workdir: workdir)
    return trained


def test_a_budget_starts_what_would_end_in_time(config_file, place, tmp_path, monkeypatch, trained, digests):
    (place / "experiment.py").write_text("")
    quick, slow = (Row(name, name, str(config_file)) for name in ("quick", "slow"))
    monkeypatch.setattr(experiment, "load", lambda name: declared(quick, slow))
    verb = ["reproduce", "colours", f"--workdir={tmp_path / 'runs'}", "--budget=40s"]
    main.dispatch(verb)
    assert trained == []  # nobody knows how long a run takes
    known = known_results("quick", 0.1, 0.2) | known_results("slow", 0.1, 0.2)
    write_json(place / "results.json", known)
    main.dispatch(verb)
    assert trained == [("quick", 0), ("quick", 1)]
    results = folder.read_results("colours")
    assert results["quick"]["1"]["metrics"] == {METRIC: 0.25} and results["slow"] == known["slow"]
    main.dispatch([*verb[:-1], "--budget=1h", "--rows=slow", "--seeds=1"])
    assert trained[2:] == [("slow", 1)]


def test_all_experiments_the_shortest_first(config_file, place, tmp_path, monkeypatch, trained, digests):
    tables = {
        name: declared(Row(name, name, str(config_file), needs=needs), seeds=[0])
        for name, needs in {"slow": "", "unknown": "", "quick": "", "pod": "a pod"}.items()
    }
    for name in tables:
        (place.parent / name).mkdir()
        (place.parent / name / "experiment.py").write_text("")
    for name in ("slow", "quick"):
        write_json(place.parent / name / "results.json", known_results(name, 0.1))
    monkeypatch.setattr(experiment, "names", lambda: list(tables))
    monkeypatch.setattr(experiment, "load", tables.get)
    main.dispatch(["reproduce", "all", f"--workdir={tmp_path / 'runs'}"])
    assert [name for name, _ in trained] == ["quick", "slow", "unknown"]
    assert (tmp_path / "runs" / "slow" / "slow" / "seed0" / "result.json").is_file()
    with pytest.raises(ConfigError, match="every row needs a pod; where that is, use --rows=all"):
        main.dispatch(["reproduce", "pod", f"--workdir={tmp_path / 'runs2'}"])


@pytest.mark.slow
def test_several_runs_at_a_time_are_processes_of_their_own(config_file, place, tmp_path, monkeypatch):
    rows = [
        Row("good", "good", str(config_file)),
        Row("bad", "bad", str(config_file), overrides={"optimizer.schedule.peak": "1e38"}),
    ]
    (place / "experiment.py").write_text("")
    monkeypatch.setattr(experiment, "load", lambda name: declared(*rows))
    verb = ["reproduce", "colours", f"--workdir={tmp_path / 'runs'}", "--jobs=2"]
    with pytest.raises(MmjaxError, match="2 runs failed .bad, seed .: step .: not finite"):
        main.dispatch(verb)
    results = folder.read_results("colours")
    assert {METRIC} == set(results["good"]["0"]["metrics"]) == set(results["good"]["1"]["metrics"])
    assert (tmp_path / "runs" / "good" / "seed1" / "report.html").is_file()
    one_by_one = ["reproduce", "colours", f"--workdir={tmp_path / 'others'}", "--rows=good"]
    main.dispatch(one_by_one)
    again = folder.read_results("colours")
    assert again["good"]["1"]["metrics"] == results["good"]["1"]["metrics"]


def test_failed_runs_make_the_verb_fail(config_file, place, tmp_path, monkeypatch):
    def train(config, workdir):
        raise MmjaxError("no luck")

    monkeypatch.setattr(runs, "train", train)
    (place / "experiment.py").write_text("")
    monkeypatch.setattr(experiment, "load", lambda name: declared(Row("one", "first", str(config_file))))
    with pytest.raises(MmjaxError, match=r"2 runs failed \(one, seed 0: no luck\)"):
        main.dispatch(["reproduce", "colours", f"--workdir={tmp_path / 'runs'}"])
    assert "- first, seed 1: no luck" in (place / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an experiment"),
        (["x", "--config.seed=1"], "reproduce runs what the experiment declares"),
        (["mnist1d", "--budget=2"], "--budget=2: expected a time such as 2h, 30m or 90s"),
        (["mnist1d", "--jobs=0"], "--jobs=0: expected 1 or more"),
        (["mnist1d", "--seeds=a"], "--seeds=a: expected whole numbers with commas"),
        (["all", "--rows=mlp"], "--rows=mlp: names rows of one experiment"),
    ],
)
def test_wrong_usage_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        main.dispatch(["reproduce", *arguments])
