import numpy as np
import pytest
from evaluation import eval_cases as cases

from mmjax.errors import ConfigError

SECTION = {"type": "regression", "data": "test", "head": "score", "target": "rating"}


def test_counts_known_targets_of_real_rows(tmp_path):
    rng = np.random.default_rng(0)
    rating = rng.normal(size=11).astype(np.float32)
    score = (rating + 0.5 * rng.normal(size=11)).astype(np.float32)
    known = np.arange(11) != 4
    split = cases.Split({"rating": np.where(known, rating, np.nan).astype(np.float32)})
    context = cases.make_context(tmp_path, {"test": split}, {"score": score[:, None]})
    found = cases.run(context, **SECTION)
    rating, score = rating[known].astype(float), score[known].astype(float)
    expected = {
        "mse": np.mean((rating - score) ** 2),
        "mae": np.mean(np.abs(rating - score)),
        "r2": 1 - np.sum((rating - score) ** 2) / np.sum((rating - rating.mean()) ** 2),
        "pearson": np.corrcoef(rating, score)[0, 1],
    }
    assert found == pytest.approx({f"regression/score/{name}": v for name, v in expected.items()}, rel=1e-5)


def test_another_shape_is_told(tmp_path):
    context = cases.make_context(
        tmp_path, {"test": cases.Split({"rating": np.zeros(5)})}, {"score": np.zeros((5, 2))}
    )
    with pytest.raises(ConfigError, match=r"'score' has shape \(5, 2\), the target 'rating' \(5,\)"):
        cases.run(context, **SECTION)
