"""docs/models.md is what the code and the record say."""

import pytest
from reference_cases import CASES

from experiments.models import page
from experiments.models.sizes import MODELS
from mmjax.interop.families import FAMILIES

ROWS = {page.key(row): row for row in MODELS}
COMMAND = "run `python -m experiments.models.page`"


def test_the_page_is_not_stale():
    """Parameters are counted anew; what is measured comes from the record."""
    record = page.read_record()
    lacking = sorted(set(ROWS) - set(record["gflops"]))
    assert not lacking, f"{COMMAND}: it has no GFLOPs of {', '.join(lacking)}"
    assert page.PAGE.read_text(encoding="utf-8") == page.render(record), COMMAND


def test_every_family_has_a_line():
    assert {row.family for row in MODELS} == set(FAMILIES), (
        "add a line to MODELS in experiments/models/sizes.py"
    )
    assert len(ROWS) == len(MODELS)


@pytest.mark.parametrize("name", ["vit: B/16", "resnet: 18", "bert: MiniLM-L6"])
def test_operations_are_counted_as_they_were(name):
    assert page.gflops(ROWS[name]) == pytest.approx(page.read_record()["gflops"][name], rel=0.01)


def test_parameters_of_published_models():
    """As their checkpoints have them, but that a class token and its position are one vector here."""
    counts = {name: page.parameters(ROWS[name]) for name in ("clip: ViT-B/32", "siglip: B/16", "bert: base")}
    assert counts["clip: ViT-B/32"] == 151_277_313 - 768
    assert counts["siglip: B/16"] == 203_155_970
    assert counts["bert: base"] == 109_482_240


def test_examples_are_there():
    for row in MODELS:
        if row.example:
            assert (page.PAGE.parents[1] / "configs" / row.example.split(":")[0]).is_file(), row.example


def test_every_measured_difference_is_within_its_tolerance(hf):
    record = page.read_record()["differences"]
    lacking = sorted(set(CASES) - set(record))
    assert not lacking, f"run `python tests/interop/measure.py {' '.join(lacking)}`"
    assert set(record) == set(CASES), "run `python tests/interop/measure.py`: a case is gone"
    for name, make in CASES.items():
        assert record[name]["difference"] <= make(hf).atol, name
    assert {entry["family"] for entry in record.values()} == set(FAMILIES)
