from __future__ import annotations

import pytest

from mmjax.reports.names import Name, bounds, headlines, lower_is_better, natural, parse, readable


@pytest.mark.parametrize(
    "name, expected",
    [
        ("retrieval/text_to_image/R@10", Name("retrieval/text_to_image", "R@10")),
        ("baseline/chance/classification/digit/accuracy", Name("classification/digit", "accuracy", "chance")),
        (
            "degraded/baseline/majority/classification/digit/accuracy",
            Name("degraded/classification/digit", "accuracy", "majority"),
        ),
        ("loss", Name("", "loss")),
        ("baseline/accuracy", Name("baseline", "accuracy")),
    ],
)
def test_parse(name, expected):
    assert parse(name) == expected


def test_readable():
    assert readable("retrieval/text_to_image") == "retrieval · text → image"


@pytest.mark.parametrize(
    "tail, lower",
    [
        ("median_rank", True),
        ("loss", True),
        ("ece", True),
        ("R@1", False),
        ("mean_reciprocal_rank", False),
        ("accuracy", False),
    ],
)
def test_lower_is_better(tail, lower):
    assert lower_is_better(tail) is lower


def test_headlines_take_the_best_metric_first_and_one_of_each_group():
    names = [
        "a/x/f1_macro",
        "a/x/accuracy",
        "b/R@1",
        "b/R@10",
        "baseline/chance/b/R@10",
        "train/loss",
        "c/mse",
    ]
    assert headlines(names, None, 6) == ["a/x/accuracy", "b/R@10"]
    assert headlines(names, "b/R@1", 6) == ["b/R@1", "a/x/accuracy"]
    assert headlines(names, "not there", 1) == ["a/x/accuracy"]


def test_bounds_belong_to_a_number():
    tails = ["accuracy", "accuracy_low", "accuracy_high", "f1", "f1_low", "very_low", "very_high"]
    assert bounds(tails) == {"accuracy": ("accuracy_low", "accuracy_high")}


def test_natural_order():
    assert sorted(["R@10", "auroc", "R@5", "R"], key=natural) == ["R", "R@5", "R@10", "auroc"]
