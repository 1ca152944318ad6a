"""Experiments: their committed tables, verdicts, and the runs that fill them."""

import concurrent.futures
import csv
import dataclasses
import json
import os
import signal
import sys
import time
from xml.etree import ElementTree

import pytest
from PIL import Image

from mmjax import __main__ as main
from mmjax.errors import ConfigError, MmjaxError, Preempted
from mmjax.files import write_json
from mmjax.reproduce import Claim, Column, Expected, Experiment, Row, experiment, folder, page, plot, runs
from mmjax.reproduce import children as children_lib
from mmjax.reproduce.export import to_csv, to_tex
from mmjax.reproduce.measured import Measured, claim_verdict, expected_verdict

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
def place(monkeypatch, tmp_path):
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


# The time of a step


def test_the_time_of_a_step_is_that_of_the_fastest_interval():
    # The first line's interval holds the compilation; an evaluation has no rate.
    history = [{"train/examples_per_second": rate} for rate in (8.0, 64.0, 80.0)] + [{"accuracy": 0.5}]
    assert runs.step_time(history, 16) == {"step_milliseconds": 200.0}
    assert runs.step_time([], 16) == {}


def test_an_experiment_may_show_the_time_of_a_step(digests):
    results = {"one": measured(0.5, 0.6), "two": measured(0.5)}
    for run, milliseconds in zip(results["one"].values(), (20.0, 30.0), strict=True):
        run["step_milliseconds"] = milliseconds
    header, _, one, two = page.result_table(Measured(declared(step_time=True), results)).splitlines()
    assert header.endswith("| ms per step, at best |") and one.endswith("| 20 |") and two.endswith("| – |")
    assert "ms per step" not in page.result_table(Measured(declared(), results))


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
    assert expected_verdict(values, EXPECTED) == verdict


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
    assert claim_verdict(larger, smaller) == verdict


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
    lines = page.render("colours", Measured(declared(*rows, claims=claims), results)).splitlines()
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
    text = page.render("colours", Measured(declared(one), {}))
    assert "| first | accuracy (%) | 50 ± 1 | – | not run | Table 1 |" in text.splitlines()
    assert "took" not in text and "table.svg" not in text


def test_results_of_another_config_are_marked(digests):
    results = {"one": measured(0.5, 0.5, digest="older"), "two": measured(0.5, 0.5)}
    text = page.render("colours", Measured(declared(), results))
    assert "| first \\* | 50.0" in text and "| second | 50.0" in text and "config has changed" in text
    assert Measured(declared(), results).state() == "4 of 4 runs, configs have changed since"
    assert Measured(declared(), {}).state() == "not run"


def test_a_row_that_needs_more_than_a_laptop_says_so(digests):
    one = Row("one", "first", "x.json", expected={METRIC: EXPECTED}, needs="a TPU v3-8")
    lines = page.render("colours", Measured(declared(one), {})).splitlines()
    assert "| first | accuracy (%) | 50 ± 1 | – | not run: needs a TPU v3-8 | Table 1 |" in lines
    assert "| first | `./launch.sh train --config=x.json`; needs a TPU v3-8 |" in lines
    assert Measured(declared(one), {}).state() == "not run, needs a TPU v3-8"
    assert Measured(declared(one), {"one": measured(0.5)}).cell(one, declared(one).columns[0]).verdict == (
        "reproduced"
    )


# The table's other forms


ONE = Row("one", "first & 10%", "x.json", expected={METRIC: EXPECTED})


def test_the_table_for_other_programs(digests):
    text = to_csv(Measured(declared(ONE, Row("two", "second", "x.json")), {"one": measured(0.49, 0.52)}))
    first, second = csv.DictReader(text.splitlines())
    assert first == {
        "row": "one",
        "heading": "first & 10%",
        "metric": METRIC,
        "column": "accuracy (%)",
        "n": "2",
        "mean": "50.5",
        "std": "2.12132",
        "values": "49 52",
        "expected": "50",
        "tolerance": "1",
        "verdict": "reproduced",
        "source": "Table 1",
    }
    assert second["n"] == "0" and second["mean"] == second["verdict"] == ""


def test_the_table_for_a_paper(digests):
    results = {"one": measured(0.49, 0.52), "two": measured(0.5)}
    text = to_tex("colours", Measured(declared(ONE, Row("two", "second", "x.json")), results))
    assert r"first \& 10\% & $50.5 \pm 2.1$ \\" in text
    assert r"\quad (expected) & ($50$) \\" in text and r"second & $50.0$ \\" in text
    assert text.count(r"\\") == 4 and text.endswith("\\end{tabular}\n")


def test_the_picture_shows_every_seed_and_what_is_expected(digests):
    two = Row("two", "second", "x.json")
    svg = ElementTree.fromstring(
        plot.to_svg(Measured(declared(ONE, two), {"one": measured(0.49, 0.52), "two": measured(0.5)}))
    )
    marks = [element.tag.split("}")[1] for element in svg.iter()]
    assert marks.count("circle") == 3 + 1 and marks.count("polygon") == 1 + 1  # and the legend's
    assert {"first & 10%", "second", "accuracy (%)"} <= {element.text for element in svg.iter()}
    nothing = ElementTree.fromstring(plot.to_svg(Measured(declared(), {})))
    assert not [e for e in nothing.iter() if e.tag.endswith("polygon")]


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


def test_an_unknown_experiment_is_refused(place):
    (place / "experiment.py").write_text("EXPERIMENT = 3\n")
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


@pytest.mark.parametrize(
    ("written", "code", "expected"),
    [
        ("error: config.seed: wrong\n", 2, "config.seed: wrong"),
        ("Traceback\n  x\njax.errors.JaxRuntimeError: no memory\n---\nFor simplicity, JAX has\n", 1, None),
        ("step 300/900  loss 0.3\n", -9, "was killed by signal 9"),
        ("", 1, "ended without a word"),
    ],
)
def test_what_is_said_of_a_process_that_failed(tmp_path, written, code, expected):
    log = tmp_path / "log"
    earlier = "error: of an earlier attempt\n"
    log.write_text(earlier + written)
    expected = expected or "jax.errors.JaxRuntimeError: no memory"
    assert children_lib.what_went_wrong(log, len(earlier), code) == expected


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


def test_a_stop_signal_reaches_the_processes(tmp_path, monkeypatch):
    """Each saves and ends with 75; what has not begun does not begin."""
    saves = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); "
    command = [sys.executable, "-c", saves + "print('up', flush=True); time.sleep(60)"]
    monkeypatch.setattr(children_lib, "_command", lambda row, seed, workdir: command)
    row = Row("one", "first", "x.json")
    log = tmp_path / "one" / "seed0.log"

    def stop_when_up():
        while not (log.is_file() and "up" in log.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    with concurrent.futures.ThreadPoolExecutor(3) as pool, children_lib.Children() as children:
        first = pool.submit(children.train, row, 0, tmp_path / "one" / "seed0", tmp_path)
        pool.submit(stop_when_up).result()
        with pytest.raises(Preempted):
            first.result()
        with pytest.raises(Preempted):
            pool.submit(children.train, row, 1, tmp_path / "one" / "seed1", tmp_path).result()
    assert not (tmp_path / "one" / "seed1.log").read_text()


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
