import numpy as np
import pytest
from evaluation import eval_cases as cases

from mmjax.evaluation.bag_of_words import word_overlap

SECTION = {"type": "bag_of_words_retrieval", "data": "test", "text_features": ["name"]}
TRAIN = {
    "red circle": [1, 0, 0, 1, 0, 0],
    "red square": [1, 0, 0, 0, 1, 0],
    "blue circle": [0, 1, 0, 1, 0, 0],
    "green star": [0, 0, 1, 0, 0, 1],
}


def split(names, pixels, **columns):
    rows = len(names)
    table = {
        "image": np.asarray(pixels, np.float32).reshape(rows, 2, 3, 1),
        "image_present": np.ones(rows, bool),
        "text_present": np.ones(rows, bool),
    }
    return cases.Split(table | columns, [{"name": name} for name in names], batch_size=3)


def test_overlap_is_the_cosine_of_tf_idf():
    weights = word_overlap(["Red star", "nothing", "green star"], list(TRAIN), neighbours=4)
    # 'star' is rarer than 'red', and each name has one more word.
    assert weights[0, 3] > weights[0, 0] > 0
    assert weights[0, 2] == 0
    assert not weights[1].any()
    np.testing.assert_allclose(weights[2], [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_array_equal(
        (word_overlap(["red"], list(TRAIN), neighbours=1) > 0)[0], [True, False, False, False]
    )


def test_names_made_of_known_words_find_their_pictures(tmp_path):
    test = split(
        ["blue square", "green circle", "blue star"],
        [[0, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 0, 1]],
    )
    train = split(list(TRAIN), list(TRAIN.values()))
    context = cases.make_context(tmp_path, {"train": train, "test": test})
    found = cases.run(context, **SECTION)
    bag_of_words = "baseline/bag_of_words/retrieval/text_to_image"
    assert found[f"{bag_of_words}/R@1"] == 1.0
    assert found[f"{bag_of_words}/median_rank"] == 1.0
    chance = "baseline/chance/retrieval/text_to_image"
    assert found[f"{chance}/R@1"] == pytest.approx(1 / 3)
    assert found[f"{chance}/R@5"] == 1.0


def test_unknown_words_are_answered_at_random(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"unheard{i}" for i in range(200)]
    test = split(names, rng.normal(size=(200, 6)))
    train = split(list(TRAIN), list(TRAIN.values()))
    found = cases.run(cases.make_context(tmp_path, {"train": train, "test": test}), **SECTION)
    # The median of a random order of 200 is about 100, give or take 200 / sqrt(12) / sqrt(200) * 1.25.
    assert 80 < found["baseline/bag_of_words/retrieval/text_to_image/median_rank"] < 120


def test_positives_and_items_are_those_of_retrieval(tmp_path):
    test = split(
        ["red circle", "blue circle", "green star"],
        [[1, 0, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 1]],
        concept=np.array([1, 1, 2], np.int32),
    )
    context = cases.make_context(tmp_path, {"train": split(list(TRAIN), list(TRAIN.values())), "test": test})
    found = cases.run(context, **SECTION, positives=["concept"])
    assert found["baseline/chance/retrieval/text_to_image/R@1"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    found = cases.run(context, **SECTION, image_item="concept")
    assert found["baseline/chance/retrieval/text_to_image/R@1"] == pytest.approx(1 / 2)


def test_rows_without_text_or_image_are_left_out(tmp_path):
    # Without the text of its second row there is only one training text left.
    train = split(
        ["red circle", "blue circle"],
        [TRAIN["red circle"], TRAIN["blue circle"]],
        text_present=np.array([True, False]),
    )
    test = split(
        ["blue", "red"], [TRAIN["blue circle"], TRAIN["red square"]], image_present=np.array([True, False])
    )
    found = cases.run(cases.make_context(tmp_path, {"train": train, "test": test}), **SECTION)
    assert found["baseline/chance/retrieval/text_to_image/R@1"] == 1.0
