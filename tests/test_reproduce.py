"""Experiments: their committed tables, verdicts, and the runs that fill them."""

import dataclasses
import json

import pytest
from PIL import Image

from mmjax import __main__ as main
from mmjax.errors import ConfigError, MmjaxError, Preempted
from mmjax.reproduce import Claim, Column, Expected, Experiment, Row, experiment, runs, table
from mmjax.verbs import reproduce

METRIC = "classification/colour_logits/accuracy"
EXPECTED = Expected(value=50.0, tolerance=1.0, source="Table 1")


def declared(*rows: Row, **changes) -> Experiment:
    return Experiment(
        **{
            "title": "Colours",
            "text": "Squares.",
            "source": "none",
            "cost": "nothing",
            "rows": rows or [Row("one", "first", "x.json"), Row("two", "second", "x.json")],
            "columns": [Column(METRIC, "accuracy (%)", scale=100, decimals=1)],
            "seeds": [0, 1],
            **changes,
        }
    )


def measured(*values: float, digest: str = "digest") -> dict:
    facts = {"parameters": 1234, "steps": 9, "wall_seconds": 30.0, "devices": ["cpu"]}
    facts |= {"versions": {"jax": "0.0"}, "git_revision": "abc", "config_digest": digest}
    return {str(seed): {"metrics": {METRIC: value}, **facts} for seed, value in enumerate(values)}


@pytest.fixture
def digests(monkeypatch):
    """As if every row's config were the one it was measured with; there are no files."""
    monkeypatch.setattr(Row, "config_digest", lambda row: "digest")


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The folder of an experiment 'colours', instead of the committed ones."""
    monkeypatch.setattr(experiment, "EXPERIMENTS", tmp_path / "experiments")
    folder = tmp_path / "experiments" / "colours"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def config_file(tmp_path):
    """A config that trains two steps on eight small images."""
    rows = []
    for i in range(8):
        Image.new("L", (8, 8), 30 * i).save(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "colour": ["dark", "light"][i // 4]})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"type": "manifest", "path": str(tmp_path / "rows.jsonl"), "labels": ["colour"]}
    transforms = [{"type": "decode_image"}, {"type": "normalise", "mean": [0.5], "std": [0.5]}]
    head = {"type": "classifier", "reads": "image", "label": "colour"}
    loss = {"type": "cross_entropy", "logits": "colour_logits", "label": "colour"}
    accuracy = {"type": "classification", "data": "all", "head": "colour_logits", "label": "colour"}
    config = {
        "batch_size": 8,
        "total_steps": 2,
        "data": {
            "dir": str(tmp_path / "prepared"),
            "train": data,
            "eval": {"all": {"dataset": data}},
            "streams": {"image": {"features": ["image"], "train": transforms, "eval": transforms}},
            "labels": {"colour": "colour"},
        },
        "model": {
            "streams": {"image": {"kind": "image", "encoder": {"type": "cnn", "widths": [4]}}},
            "heads": {"colour_logits": head},
        },
        "objectives": {"colour": loss},
        "optimizer": {"method": {"type": "sgd"}, "schedule": {"type": "constant", "peak": 0.1}},
        "log": {"tensorboard": False},
        "evals": {"colour": accuracy},
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    return file


# Committed experiments


@pytest.mark.parametrize("name", experiment.names())
def test_the_committed_page_is_what_the_results_give(name):
    page = table.render(name, experiment.load(name), reproduce.read_results(name))
    committed = experiment.EXPERIMENTS / name / "README.md"
    written = committed.read_text() if committed.is_file() else ""
    assert written == page, f"stale: ./launch.sh reproduce {name} --table-only"


@pytest.mark.parametrize("name", experiment.names())
def test_the_committed_experiment_can_be_run(name, tmp_path):
    loaded = experiment.load(name)
    assert len(runs.plan(loaded, tmp_path)) == len(loaded.rows) * len(loaded.seeds)


# The time of a step


def test_the_time_of_a_step_is_that_of_the_fastest_interval():
    # The first line's interval holds the compilation; an evaluation has no rate.
    history = [{"train/examples_per_second": rate} for rate in (8.0, 64.0, 80.0)] + [{"accuracy": 0.5}]
    assert runs.step_time(history, 16) == {"step_milliseconds": 200.0}
    assert runs.step_time([], 16) == {}


def test_an_experiment_may_show_the_time_of_a_step(digests):
    results = {"one": measured(0.5, 0.6), "two": measured(0.5)}
    for run, time in zip(results["one"].values(), (20.0, 30.0), strict=True):
        run["step_milliseconds"] = time
    header, _, one, two = table.result_table(declared(step_time=True), results).splitlines()
    assert header.endswith("| ms per step, at best |") and one.endswith("| 20 |") and two.endswith("| – |")
    assert "ms per step" not in table.result_table(declared(), results)


# Verdicts


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([], "not run"),
        ([50.9], "reproduced"),
        ([51.1], "not reproduced"),
        ([49.5, 52.5], "reproduced"),  # a mean of 51
        ([50.0, 54.0], "within noise"),  # 52, with a deviation of 2.8
        ([51.9, 52.1], "not reproduced"),
    ],
)
def test_verdict_on_an_expected_number(values, verdict):
    assert table.expected_verdict(values, EXPECTED) == verdict


@pytest.mark.parametrize(
    ("larger", "smaller", "verdict"),
    [
        ({"a": [3.0]}, {"b": [2.0], "c": [1.0]}, "holds in single runs"),
        ({"a": [3.0]}, {"b": [2.0], "c": [4.0]}, "does not hold: a against c"),
        ({"a": [3.0, 3.2]}, {"b": [2.0, 2.2]}, "holds"),
        ({"a": [3.0, 4.0]}, {"b": [2.0, 4.0], "c": [0.0, 0.0]}, "within noise: a against b"),
        ({"a": [2.0]}, {"b": [2.0]}, "does not hold: a against b"),
        ({"a": [3.0], "d": []}, {"b": [2.0]}, "not run"),
    ],
)
def test_verdict_on_a_claim(larger, smaller, verdict):
    assert table.claim_verdict(larger, smaller) == verdict


# The page


def test_the_page_is_computed_from_the_results(digests):
    rows = [
        Row("one", "first", "x.json", overrides={"a.b": "2"}, expected={METRIC: EXPECTED}),
        Row("two", "second", "x.json"),
        Row("three", "third", "x.json"),
    ]
    claims = [Claim("first beats second", METRIC, ["one"], ["two"])]
    failed = {"0": {"error": "out of luck", "config_digest": "digest"}}
    results = {"one": measured(0.49, 0.52), "two": {**measured(0.1, 0.2), **failed}}
    page = table.render("colours", declared(*rows, claims=claims), results)
    lines = page.splitlines()
    assert "| first | 50.5 ± 2.1 | 1,234 | 30.0 s |" in lines
    assert "| second | 20.0 (n = 1) | 1,234 | 30.0 s |" in lines
    assert "| third | – | – | – |" in lines
    assert "| first | accuracy (%) | 50 ± 1 | 50.5 ± 2.1 | reproduced | Table 1 |" in lines
    assert "| first beats second | holds in single runs |" in lines
    assert "- second, seed 0: out of luck" in lines
    assert "| first | `./launch.sh train --config=x.json --config.a.b=2` |" in lines
    assert "3 runs took 1 min 30 s in all, on cpu; revision abc." in lines


def test_a_page_without_results_says_so(digests):
    one = Row("one", "first", "x.json", expected={METRIC: EXPECTED})
    page = table.render("colours", declared(one), {})
    assert "| first | accuracy (%) | 50 ± 1 | – | not run | Table 1 |" in page.splitlines()
    assert "took" not in page


def test_results_of_another_config_are_marked(digests):
    results = {"one": measured(0.5, 0.5, digest="older"), "two": measured(0.5, 0.5)}
    page = table.render("colours", declared(), results)
    assert "| first \\* | 50.0" in page and "| second | 50.0" in page and "config has changed" in page
    assert table.state(declared(), results) == "4 of 4 runs, configs have changed since"
    assert table.state(declared(), {}) == "not run"


# Declarations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [Row("a b", "x", "x.json")]}, "row 'a b': cannot name a directory"),
        ({"rows": [Row("a", "x", "x.json")] * 2}, "at least one row, and none twice"),
        ({"seeds": []}, "at least one seed"),
        ({"rows": [Row("a", "x", "x.json", expected={"other": EXPECTED})]}, "expected of row 'a': 'other'"),
        ({"claims": [Claim("c", METRIC, ["on"], ["two"])]}, r"'on' is unknown \(did you mean 'one'\?\)"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        declared(**changes)


def test_an_unknown_experiment_is_refused(folder):
    (folder / "experiment.py").write_text("EXPERIMENT = 3\n")
    with pytest.raises(ConfigError, match=r"'colors' is not an experiment \(did you mean 'colours'\?\)"):
        experiment.load("colors")
    with pytest.raises(ConfigError, match="defines no EXPERIMENT"):
        experiment.load("colours")


# Runs


def result(value: float) -> dict:
    (facts, *_) = measured(value).values()
    return {**facts, "metrics": {METRIC: value, "other": 1.0}, "config": {}}


def test_a_column_that_nothing_measures_is_refused(config_file, tmp_path):
    one = Row("one", "first", str(config_file))
    wrong = declared(one, columns=[Column("classification/group/accuracy", "x")])
    with pytest.raises(
        ConfigError, match="column 'classification/group/accuracy': no row's evals measure it"
    ):
        runs.plan(wrong, tmp_path)


def test_a_run_that_fails_does_not_stop_the_others(config_file, tmp_path, monkeypatch):
    def train(config, workdir):
        if config.batch_size == 4:
            raise MmjaxError("no luck")
        if config.batch_size == 2:
            raise RuntimeError("first line\nsecond line")
        return result(config.seed / 10)

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "write_report", lambda workdir: workdir)
    rows = [
        Row("bad", "bad", str(config_file), overrides={"batch_size": "4"}),
        Row("broken", "broken", str(config_file), overrides={"batch_size": "2"}),
        Row("good", "good", str(config_file)),
    ]
    colours = declared(*rows, seeds=[3])
    found = runs.run_all(colours, runs.plan(colours, tmp_path))
    assert found["good"]["3"]["metrics"] == {METRIC: 0.3}
    assert found["good"]["3"].keys() == measured(0.3)["0"].keys()
    assert runs.failures(found) == ["bad, seed 3: no luck", "broken, seed 3: RuntimeError: first line"]


def test_a_stop_signal_ends_all_runs(config_file, tmp_path, monkeypatch):
    def train(config, workdir):
        raise Preempted("saved")

    monkeypatch.setattr(runs, "train", train)
    colours = declared(Row("one", "first", str(config_file)))
    with pytest.raises(Preempted):
        runs.run_all(colours, runs.plan(colours, tmp_path))


def test_the_verb_trains_what_is_missing_and_writes_the_page(config_file, folder, tmp_path, capsys):
    (folder / "experiment.py").write_text(
        "from mmjax.reproduce import Column, Experiment, Row\n"
        "EXPERIMENT = Experiment('T', 'X', 's', 'c', seeds=[0],\n"
        f"    rows=[Row('one', 'first', {str(config_file)!r})], columns=[Column({METRIC!r}, 'accuracy')])\n"
    )
    verb = ["reproduce", "colours", f"--workdir={tmp_path / 'runs'}"]
    assert main.dispatch(verb) == 0
    run = tmp_path / "runs" / "one" / "seed0"
    assert (run / "result.json").is_file() and (run / "report.html").is_file()
    results = json.loads((folder / "results.json").read_text())
    kept = json.loads((run / "result.json").read_text())["metrics"][METRIC]
    assert results["one"]["0"]["metrics"] == {METRIC: kept}
    page = (folder / "README.md").read_text()
    assert f"| first | {kept:.3f} |" in page

    before = (run / "result.json").stat().st_mtime_ns
    assert main.dispatch(verb) == 0  # nothing is trained again
    assert (run / "result.json").stat().st_mtime_ns == before
    assert (folder / "README.md").read_text() == page

    config_file.write_text(config_file.read_text().replace('"peak": 0.1', '"peak": 0.2'))
    with pytest.raises(ConfigError, match=r"seed0: holds a run of another config \(optimizer.schedule.peak"):
        main.dispatch(verb)
    assert json.loads((folder / "results.json").read_text()) == results
    config_file.write_text(config_file.read_text().replace('"peak": 0.2', '"peak": 0.1'))

    (folder / "README.md").write_text("stale")
    assert main.dispatch(["reproduce", "colours", "--table-only"]) == 0
    assert (folder / "README.md").read_text() == page
    capsys.readouterr()
    main.dispatch(["reproduce", "--list"])
    assert "colours  T (1 of 1 runs)" in capsys.readouterr().out


def test_failed_runs_make_the_verb_fail(config_file, folder, tmp_path, monkeypatch):
    def train(config, workdir):
        raise MmjaxError("no luck")

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(experiment, "load", lambda name: declared(Row("one", "first", str(config_file))))
    with pytest.raises(MmjaxError, match=r"2 runs failed \(one, seed 0: no luck\)"):
        main.dispatch(["reproduce", "colours", f"--workdir={tmp_path / 'runs'}"])
    assert "- first, seed 1: no luck" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an experiment"),
        (["x", "--config.seed=1"], "reproduce runs what the experiment declares"),
    ],
)
def test_wrong_usage_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        main.dispatch(["reproduce", *arguments])


def test_the_digest_is_of_the_config_as_declared(config_file):
    row = Row("one", "first", str(config_file))
    assert row.config_digest() == dataclasses.replace(row, heading="other").config_digest()
    assert row.config_digest() != dataclasses.replace(row, overrides={"batch_size": "4"}).config_digest()


def test_numbers_of_the_log_of_training_are_those_of_its_last_line():
    history = [
        {"step": 1, "train/loss": 3.0, "train/part/loss": 1.0},
        {"step": 2, "train/loss": 2.0, "train/part/loss": 0.5},
        {"step": 2, METRIC: 0.9},
    ]
    wanted = ["train/loss", METRIC, "train/other"]
    assert runs.last_logged(history, wanted) == {"train/loss": 2.0}
    assert runs.last_logged([{"step": 1, METRIC: 0.9}], wanted) == {}
