import numpy as np
import pytest
from evaluation import eval_cases as cases

from mmjax.errors import ConfigError, NonFiniteError

SECTION = {
    "type": "retrieval",
    "data": "test",
    "a": "image_embedding",
    "b": "text_embedding",
    "a_name": "image",
    "b_name": "text",
    "streams": ["image", "text"],
}


def context(tmp_path, image, text, columns=None, records=None, **more):
    """Embeddings given as rows of similarities: image i is the i-th unit vector."""
    rows = len(image)
    present = {"image_present": np.ones(rows, bool), "text_present": np.ones(rows, bool)}
    split = cases.Split(present | (columns or {}), records, **more)
    outputs = {
        "image_embedding": np.asarray(image, np.float32),
        "text_embedding": np.asarray(text, np.float32),
    }
    return cases.make_context(tmp_path, {"test": split}, outputs)


# Similarity of text j (row) to image i (column); images are unit vectors.
TEXTS = np.array(
    [
        [0.9, 0.1, 0.0, 0.0],  # its own image is the nearest
        [0.8, 0.5, 0.1, 0.0],  # its own is second
        [0.3, 0.2, 0.1, 0.4],  # its own is last
        [0.5, 0.5, 0.5, 0.5],  # ties with all
    ]
)


def test_pairs_by_hand(tmp_path):
    found = cases.run(context(tmp_path, np.eye(4), TEXTS), **SECTION)
    # Text to image ranks 1, 2, 4, 4. Image to text, down the columns: 1, 1 (ties), ...
    to_image = np.array([1, 2, 4, 4])
    # Column 0: .9 first; column 1: .5 ties with the last text; column 2: .1 with two at least as good
    # (.1 of the second text, .5 of the last); column 3: .5 first.
    to_text = np.array([1, 2, 3, 1])
    for group, ranks in (("text_to_image", to_image), ("image_to_text", to_text)):
        expected = {
            "R@1": np.mean(ranks <= 1),
            "R@5": 1.0,
            "R@10": 1.0,
            "median_rank": np.median(ranks),
            "mean_reciprocal_rank": np.mean(1 / ranks),
        }
        assert {k: found[f"retrieval/{group}/{k}"] for k in expected} == pytest.approx(expected)
    assert len(found) == 10


def test_any_label_in_common_makes_a_pair(tmp_path):
    # Rows 1 and 0 show the same pixels, rows 2 and 3 the same concept; -1 is nothing in common.
    columns = {"pixel_id": np.array([5, 5, -1, -1], np.int32), "concept_id": np.array([1, 2, 3, 3], np.int32)}
    found = cases.run(
        context(tmp_path, np.eye(4), TEXTS, columns), **SECTION, positives=["pixel_id", "concept_id"]
    )
    # Text to image: 1; 1 (image 0 is right too); 1 (image 3 is); .5 ties with two wrong ones: 3.
    assert found["retrieval/text_to_image/R@1"] == 3 / 4
    assert found["retrieval/text_to_image/mean_reciprocal_rank"] == pytest.approx((3 + 1 / 3) / 4)
    alone = cases.run(context(tmp_path, np.eye(4), TEXTS, columns), **SECTION, positives=["pixel_id"])
    assert alone["retrieval/text_to_image/mean_reciprocal_rank"] == pytest.approx((1 + 1 + 1 / 4 + 1 / 4) / 4)


def test_several_captions_of_an_image(tmp_path):
    # Three images with two captions each, in rows (0, 0, 1, 1, 2, 2) of images.
    image_id = np.array([7, 7, 3, 3, 9, 9], np.int32)
    images = np.repeat(np.eye(3), 2, axis=0)
    texts = np.array(
        [
            [0.9, 0.0, 0.1],
            [0.2, 0.3, 0.1],
            [0.1, 0.8, 0.0],
            [0.7, 0.6, 0.5],
            [0.6, 0.5, 0.55],
            [0.1, 0.2, 0.3],
        ]
    )
    found = cases.run(
        context(tmp_path, images, texts, {"image_id": image_id}, batch_size=5), **SECTION, a_item="image_id"
    )
    # Six captions ask for three images.
    ranks = np.array([1, 2, 1, 2, 2, 1])
    assert found["retrieval/text_to_image/R@1"] == pytest.approx(3 / 6)
    assert found["retrieval/text_to_image/mean_reciprocal_rank"] == pytest.approx(np.mean(1 / ranks))
    # Three images ask for six captions, the better of their two counts: .9, .8 are first, and .55 is.
    assert found["retrieval/image_to_text/R@1"] == 1.0
    # Without saying that rows share images, every image is there twice and the numbers are others.
    naive = cases.run(context(tmp_path, images, texts, {"image_id": image_id}), **SECTION)
    assert naive["retrieval/text_to_image/R@1"] == 0.0


def test_unnumbered_items_stay_items_of_their_own(tmp_path):
    columns = {"image_id": np.array([-1, -1, 4, 4], np.int32)}
    found = cases.run(
        context(tmp_path, np.eye(4), np.eye(4)[[0, 1, 2, 2]], columns), **SECTION, a_item="image_id"
    )
    assert found["retrieval/text_to_image/R@1"] == 1.0
    assert found["retrieval/image_to_text/R@1"] == 1.0


@pytest.mark.parametrize("ids", [[1e8, 1e8 + 8, 2e8, 2e8], [0.5, 1.0, 2.0, 3.0]])
def test_ids_that_float32_does_not_tell_apart_are_refused(tmp_path, ids):
    columns = {"image_id": np.array(ids, np.float32)}
    with pytest.raises(ConfigError, match="'image_id' holds numbers up to .* whole ones below 16,777,"):
        cases.run(context(tmp_path, np.eye(4), np.eye(4), columns), **SECTION, a_item="image_id")


def test_a_missing_number_is_an_item_of_its_own(tmp_path):
    columns = {"image_id": np.array([3.0, np.nan, np.nan, 3.0], np.float32)}
    made = context(tmp_path, np.eye(4), np.eye(4)[[0, 1, 2, 0]], columns)
    assert cases.run(made, **SECTION, a_item="image_id")["retrieval/text_to_image/R@1"] == 1.0
    gallery = cases.artifact(tmp_path, "retrieval_image_to_text")
    assert len(gallery["queries"]) == 3


def test_rows_without_a_stream_neither_ask_nor_answer(tmp_path):
    columns = {"image_present": np.array([True, False, True, True])}
    found = cases.run(context(tmp_path, np.eye(4), TEXTS, columns), **SECTION)
    # Texts 0, 2, 3 against images 0, 2, 3: ranks 1, 3, 3.
    assert found["retrieval/text_to_image/mean_reciprocal_rank"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)


def test_constant_embeddings_earn_nothing(tmp_path):
    found = cases.run(context(tmp_path, np.ones((4, 2)), np.ones((4, 2))), **SECTION)
    assert found["retrieval/text_to_image/R@1"] == 0.0
    assert found["retrieval/text_to_image/median_rank"] == 4.0


def test_gallery(tmp_path):
    records = [{"name": name} for name in ("cat", "dog", "sun", "car")]
    columns = {"example_id": np.array([10, 11, 12, 13], np.int32)}
    image, text = (np.zeros((14, 4), np.float32) for _ in range(2))
    image[10:], text[10:] = np.eye(4), TEXTS
    split = cases.Split(
        columns | {"image_present": np.ones(4, bool), "text_present": np.ones(4, bool)}, records, batch_size=3
    )
    made = cases.make_context(tmp_path, {"test": split}, {"image_embedding": image, "text_embedding": text})
    cases.run(made, **SECTION, b_text="name", gallery_queries=2)
    to_image = cases.artifact(tmp_path, "retrieval_text_to_image")
    assert to_image["kind"] == "retrieval_gallery" and to_image["data"] == "test"
    first, last = to_image["queries"]
    assert (first["text"], first["example_id"], first["rank"]) == ("cat", 10, 1)
    assert (last["text"], last["rank"]) == ("car", 4)
    assert [r["example_id"] for r in first["results"]] == [10, 11, 12, 13]
    assert [r["correct"] for r in first["results"]] == [True, False, False, False]
    assert first["results"][0]["score"] == pytest.approx(0.9)
    to_text = cases.artifact(tmp_path, "retrieval_image_to_text")["queries"][0]
    assert "text" not in to_text and to_text["results"][0]["text"] == "cat"
    none = tmp_path / "none"
    cases.run(context(none, np.eye(4), TEXTS), **SECTION, gallery_queries=0)
    assert not none.exists()


def test_nan_does_not_earn_rank_one(tmp_path):
    with pytest.raises(NonFiniteError, match="text_embedding"):
        cases.run(context(tmp_path, np.eye(4), np.full((4, 4), np.nan)), **SECTION)


def test_what_is_no_embedding_is_told(tmp_path):
    with pytest.raises(ConfigError, match="'image_embedding' has shape"):
        cases.run(context(tmp_path, np.zeros((4, 2, 3)), np.zeros((4, 3))), **SECTION)
