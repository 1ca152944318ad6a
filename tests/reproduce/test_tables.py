"""Verdicts, and the table as a page, for programs, for papers and as a picture."""

import csv
from xml.etree import ElementTree

import pytest
from table_cases import EXPECTED, METRIC, declared, measured

from mmjax.reproduce import Claim, Row, folder, page, plot
from mmjax.reproduce.export import to_csv, to_tex
from mmjax.reproduce.measured import Measured, claim_verdict, expected_verdict
from mmjax.training import workdir


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


def test_an_experiment_may_show_the_time_of_a_step(digests):
    results = {"one": measured(0.5, 0.6), "two": measured(0.5)}
    for run, milliseconds in zip(results["one"].values(), (20.0, 30.0), strict=True):
        run["step_milliseconds"] = milliseconds
    header, _, one, two = page.result_table(Measured(declared(step_time=True), results)).splitlines()
    assert header.endswith("| ms per step, at best |") and one.endswith("| 20 |") and two.endswith("| – |")
    assert "ms per step" not in page.result_table(Measured(declared(), results))


ONE = Row("one", "first & 10%", "x.json", expected={METRIC: EXPECTED})


def test_what_is_written_is_no_change_of_the_code(digests):
    """`git_revision` leaves exactly these files out."""
    written = folder.computed("colours", Measured(declared(), {"one": measured(0.5)}))
    assert {*written, folder.RESULTS} == set(workdir.TABLES)


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
