"""Experiments and results that the tests of this folder share."""

from mmjax.reproduce import Column, Expected, Experiment, Row

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


def result(value: float) -> dict:
    (facts, *_) = measured(value).values()
    return {**facts, "metrics": {METRIC: value, "other": 1.0}, "config": {}}
