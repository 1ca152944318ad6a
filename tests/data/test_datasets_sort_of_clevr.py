"""Sort-of-CLEVR: its counts and balance, and that every answer can be found again in the picture."""

import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data.datasets import sort_of_clevr_builder as builder
from mmjax.data.datasets.sort_of_clevr import ANSWERS, COLOURS, GROUPS, KINDS, QUESTIONS, SortOfClevr
from mmjax.errors import DataError

COUNTS = {"train": 300, "test": 20}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("sort_of_clevr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "IMAGES", COUNTS)  # the first of the whole data set
        SortOfClevr().prepare(data_dir)
    return {split: SortOfClevr(split).open(data_dir) for split in COUNTS}


@pytest.fixture(scope="module")
def records(sources):
    return list(sources["train"])


def scene_of(record):
    """Place, colour and shape of the objects, from the pixels alone."""
    pixels = np.asarray(Image.open(io.BytesIO(record["image"])), int)
    assert pixels.shape == (75, 75, 3)
    centres, circles = np.zeros((6, 2)), np.zeros(6, bool)
    for i, colour in enumerate(COLOURS):
        rows, columns = np.nonzero((pixels == builder._RGB[colour]).all(axis=-1))
        centres[i] = (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2
        circles[i] = len(rows) < 11 * 11
    return centres, circles


def answer(question, centres, circles):
    colour, kind = int(question[:6].argmax()), 3 * int(question[7]) + int(question[8:].argmax())
    shapes = ["circle" if circle else "square" for circle in circles]
    distances = np.hypot(*(centres - centres[colour]).T)
    others = [i for i in range(6) if i != colour]
    return {
        "shape": shapes[colour],
        "left": "yes" if centres[colour, 0] < 37.5 else "no",
        "top": "yes" if centres[colour, 1] < 37.5 else "no",
        "closest": shapes[min(others, key=lambda i: distances[i])],
        "furthest": shapes[max(others, key=lambda i: distances[i])],
        "count": str(shapes.count(shapes[colour])),
    }[KINDS[kind]]


def test_counts_and_names(sources):
    assert builder.IMAGES == {"train": 9800, "test": 200}
    assert {split: len(source) for split, source in sources.items()} == {"train": 6000, "test": 400}
    ids = [record["example_id"] for source in sources.values() for record in source]
    assert sorted(ids) == list(range(6400))
    names = sources["train"].class_names
    assert names["answer"] == names["relational"] == list(ANSWERS) and names["kind"] == list(KINDS)


def test_every_answer_is_in_the_picture(records):
    for record in records[::7]:
        question = record["question"]
        assert question.shape == (1, 11) and question.dtype == np.float32
        np.testing.assert_array_equal(question[0].reshape(11)[:6].sum(), 1)
        assert question[0, 6:8].sum() == question[0, 8:].sum() == 1
        assert ANSWERS[record["answer"]] == answer(question[0], *scene_of(record))


def test_the_state_description_says_what_the_picture_shows(records):
    for record in records[:: 3 * QUESTIONS]:
        centres, circles = scene_of(record)
        objects = record["objects"]
        order = objects[:, 2:8].argmax(axis=1)
        np.testing.assert_allclose(objects[:, :2], centres[order] / 37 - 1, atol=1e-6)
        np.testing.assert_array_equal(objects[:, 9] == 1, circles[order])
    orders = {tuple(record["objects"][:, 2:8].argmax(axis=1)) for record in records[::QUESTIONS]}
    assert len(orders) > 100


def test_an_image_has_ten_different_questions_of_either_sort(records):
    for start in range(0, len(records), QUESTIONS):
        of_image = records[start : start + QUESTIONS]
        assert len({record["image_id"] for record in of_image}) == 1
        questions = {record["question"].tobytes() for record in of_image}
        assert len(questions) == QUESTIONS
        assert sum(record["relational"] is not None for record in of_image) == QUESTIONS // 2


def test_kinds_and_answers_are_balanced(records):
    kinds = np.bincount([record["kind"] for record in records], minlength=6) / len(records)
    np.testing.assert_allclose(kinds, 1 / 6, atol=0.01)
    for kind in ("shape", "left", "top", "closest", "furthest"):
        answers = [record["answer"] for record in records if KINDS[record["kind"]] == kind]
        shares = np.bincount(answers, minlength=10) / len(answers)
        # Of two, at random; without a constant answer that would be right much more often.
        assert np.flatnonzero(shares).tolist() == ([0, 1] if kind in ("left", "top") else [2, 3])
        assert shares.max() < 0.56


def test_counts_are_those_of_random_shapes():
    """One object's shape, and how many of five others have it: a binomial distribution."""
    scenes = [builder.draw_scene(np.random.default_rng(number)) for number in range(3000)]
    answers = [int(builder.answer(scene, "count", colour)) for scene in scenes for colour in range(6)]
    shares = np.bincount(answers, minlength=7)[1:] / len(answers)
    np.testing.assert_allclose(shares, np.array([1, 5, 10, 10, 5, 1]) / 32, atol=0.02)


def test_groups_hold_the_answers_to_their_kinds(records):
    for record in records[:200]:
        for group, kinds in GROUPS.items():
            expected = record["answer"] if KINDS[record["kind"]] in kinds else None
            assert record[group] == expected


def test_an_image_depends_on_its_number_alone():
    def made(number):
        rng = np.random.default_rng([builder._SEED, number])
        scene = builder.draw_scene(rng)
        return scene, builder.ask(scene, rng)

    (scene, asked), (again, same), (other, _) = made(5), made(5), made(6)
    np.testing.assert_array_equal(scene.centres, again.centres)
    np.testing.assert_array_equal(asked[0], same[0])
    assert (scene.centres != other.centres).any()
    assert not builder._has_ties(scene)
    tied = builder.Scene(np.array([[0, 0], [9, 0], [0, 9], [40, 0], [60, 0], [70, 0]]), scene.circles)
    assert builder._has_ties(tied)


def test_selecting_features_leaves_the_rest_out(sources):
    view = sources["test"].select(["objects", "relational"])
    assert "image" not in view[3] and view[3]["objects"].shape == (6, 10)
    assert view.column("relational")[:20].count(None) == 10
    sources["test"].verify()


def test_not_prepared(tmp_path):
    with pytest.raises(DataError, match="sort_of_clevr/1.0.0: not prepared"):
        SortOfClevr().open(tmp_path)
