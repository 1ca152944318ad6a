"""Tables in docs/ are what the committed measurements give."""

import json

import pytest

from experiments import pages
from experiments.planning import figure, measure, target
from experiments.speed import page as speed


def from_plans(module):
    return module.page(json.loads(module.PLANS.read_text(encoding="utf-8")))


PARTS = {
    "experiments.planning.measure": (measure.PAGE, lambda: from_plans(measure)),
    "experiments.planning.target": (target.PAGE, lambda: from_plans(target)),
    speed.SCRIPT: (speed.PAGE, speed.text),
}


@pytest.mark.parametrize("script", PARTS)
def test_the_committed_table_is_what_was_measured(script):
    page, text = PARTS[script]
    assert pages.read_part(page, script) == text().strip()


def test_the_committed_picture_is_of_what_was_measured():
    plans = json.loads(measure.PLANS.read_text(encoding="utf-8"))
    assert figure.FILE.read_text(encoding="utf-8") == figure.to_svg(plans)
    assert sum(len(series.points) for series in figure.series(plans)) == len(plans)
    assert f"({figure.FILE.relative_to(pages.DOCS)})" in measure.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("module", [measure, target])
def test_every_plan_belongs_to_a_row(module):
    rows = {row.name for row in target.ROWS} if module is target else {measure.key(*r) for r in measure.ROWS}
    assert set(json.loads(module.PLANS.read_text(encoding="utf-8"))) <= rows


def test_a_part_of_a_page_is_replaced_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- Written by a.b; do not edit. -->\nold\n<!-- End. -->\nafter\n")
    pages.replace_part(page, "a.b", "new\n")
    assert page.read_text() == (
        "before\n<!-- Written by a.b; do not edit. -->\n\nnew\n\n<!-- End. -->\nafter\n"
    )
    with pytest.raises(ValueError, match="has no part '<!-- Written by c; do not edit. -->'"):
        pages.replace_part(page, "c", "new")
