"""From a record to an example: streams, labels, missing values, specs."""

import json
import pickle

import numpy as np
import pytest
from pipeline_cases import SIZE, frames_stream, image_stream, png, record, section, source

from mmjax.data.preprocessing import Preprocessor
from mmjax.data.source import ListSource
from mmjax.errors import ConfigError, DataError


def preprocessor(data, records=None, train=False, spec=None, **options):
    made = Preprocessor(data["streams"], data["labels"], {}, train=train, spec=spec, **options)
    if spec is None:
        made.spec = made.find_spec(ListSource(records) if records else source(8))
    return made


def test_an_example_holds_streams_masks_presence_labels_and_ids():
    example = preprocessor(section())(record(2, example_id=17))
    assert list(example) == [
        *("image", "image_present", "frames", "frames_mask", "frames_present"),
        *("label", "example_id", "example_mask"),
    ]
    np.testing.assert_allclose(example["image"], np.full((SIZE, SIZE, 3), 6 / 255), rtol=1e-5)
    np.testing.assert_array_equal(example["frames"], [[2, 2], [2, 2], [2, 2], [0, 0]])
    np.testing.assert_array_equal(example["frames_mask"], [True, True, True, False])
    assert example["image_present"] and example["frames_present"] and example["example_mask"]
    assert example["label"] == 2 and example["label"].dtype == np.int32
    assert example["example_id"] == 17 and example["example_id"].dtype == np.int32


def test_the_spec_is_what_examples_hold_and_survives_json():
    made = preprocessor(section())
    assert made.spec == {
        "image": ((SIZE, SIZE, 3), "float32"),
        "image_present": ((), "bool"),
        "frames": ((4, 2), "float32"),
        "frames_mask": ((4,), "bool"),
        "frames_present": ((), "bool"),
        "label": ((), "int32"),
        "example_id": ((), "int32"),
        "example_mask": ((), "bool"),
    }
    again = preprocessor(section(), spec=json.loads(json.dumps(made.spec)))
    assert again.spec == made.spec
    for name, array in again(record(1)).items():
        assert (array.shape, array.dtype.name) == made.spec[name]


def test_a_missing_stream_is_zeros_and_not_present():
    made = preprocessor(section())
    example = made(record(2, image=None))
    assert not example["image"].any() and not example["image_present"] and example["frames_present"]
    example = made(record(2, frames=None))
    assert not example["frames_mask"].any() and not example["frames_present"]


def test_the_spec_is_found_where_most_records_lack_a_stream():
    records = [record(i, image=png(i) if i == 150 else None, label=None) for i in range(200)]
    records[7]["label"] = 3
    made = preprocessor(section(), records)
    assert made.spec["image"] == ((SIZE, SIZE, 3), "float32")
    assert made(records[0])["label"] == -1


def test_what_no_record_has_is_an_error_unless_known_from_elsewhere():
    records = [record(i, image=None) for i in range(120)]
    with pytest.raises(DataError, match=r"list: no record has the stream 'image' \(feature image\)"):
        preprocessor(section(), records)
    known = preprocessor(section()).spec
    data = section()
    made = Preprocessor(data["streams"], data["labels"], {}, train=False)
    assert made.find_spec(ListSource(records), fallback=known) == known
    with pytest.raises(DataError, match="no record has the label 'label'"):
        preprocessor(section(), [record(i, label=None) for i in range(3)], train=True)


def test_evaluation_data_may_lack_a_label():
    records = [{k: v for k, v in record(i).items() if k != "label"} for i in range(3)]
    assert "label" not in preprocessor(section(), records)(records[0])
    data = section()
    made = Preprocessor(data["streams"], data["labels"], {}, train=False)
    made.spec = made.find_spec(ListSource(records), fallback=preprocessor(data).spec)
    assert made(records[0])["label"] == -1
    with pytest.raises(DataError, match="no feature 'label'; it has"):
        preprocessor(section(), records, train=True)


def test_labels_of_every_kind():
    data = section(labels={"index": "a", "hot": "b", "number": "c", "flags": "d"})
    values = {"a": 4, "b": [1, 0, 1], "c": 0.25, "d": np.array([True, False])}
    records = [record(0, **values), record(1, **dict.fromkeys("abcd"))]
    made = preprocessor(data, records, train=True)
    example, unlabelled = made(records[0]), made(records[1])
    assert [made.spec[n] for n in ("index", "hot", "number", "flags")] == [
        *(((), "int32"), ((3,), "int32"), ((), "float32"), ((2,), "int32"))
    ]
    assert example["index"] == 4 and example["number"] == 0.25
    np.testing.assert_array_equal(example["hot"], [1, 0, 1])
    np.testing.assert_array_equal(example["flags"], [1, 0])
    assert unlabelled["index"] == -1 and (unlabelled["hot"] == -1).all()
    assert np.isnan(unlabelled["number"]) and (unlabelled["flags"] == -1).all()


@pytest.mark.parametrize("value", ["cat", 2**31, b"x"])
def test_labels_that_are_no_numbers_are_refused(value):
    with pytest.raises(DataError, match="label 'label': got .* expected"):
        preprocessor(section(), [record(0, label=value)])


def test_a_label_may_not_take_a_name_that_is_used():
    with pytest.raises(ConfigError, match="data.labels.image: the batch has another 'image'"):
        preprocessor(section(labels={"image": "label"}))
    with pytest.raises(ConfigError, match="both make 'frames_mask'"):
        preprocessor(section(labels={"frames_mask": "label"}))


def test_nested_and_several_features():
    class Ids:
        def encode(self, text):
            return [len(word) for word in text.split()]

    tokenize = [{"type": "tokenize", "max_length": 4}, {"type": "pad", "length": 4}]
    first = [{"type": "first"}, *tokenize]
    data = section(
        {
            "de": {"features": ["names.de"], "train": tokenize, "eval": tokenize},
            "any": {"features": ["names.en", "names.de"], "train": first, "eval": first},
        }
    )
    made = Preprocessor(data["streams"], {}, {"default": Ids()}, train=False)
    made.spec = made.find_spec(source(3))
    example = made(record(12))
    np.testing.assert_array_equal(example["de"], [4, 2, 0, 0])
    np.testing.assert_array_equal(example["any"], [3, 2, 0, 0])
    assert made(record(1, names={"en": None, "de": "acht"}))["any"].tolist() == [4, 0, 0, 0]
    absent = made(record(1, names={"en": None, "de": None}))
    assert not absent["any_present"] and not absent["de_present"] and not absent["any_mask"].any()


def test_an_unknown_feature_is_named_unless_records_may_be_partial():
    data = section({"image": image_stream(features=["imgae"])})
    with pytest.raises(DataError, match=r"no feature 'imgae' \(did you mean 'image'\?\)"):
        preprocessor(data)
    known = preprocessor(section()).spec
    example = preprocessor(section(), spec=known, partial=True)({"image": png(1)}, number=9)
    assert example["image_present"] and not example["frames_present"]
    assert example["label"] == -1 and example["example_id"] == 9
    with pytest.raises(DataError, match="no feature 'frames'"):
        preprocessor(section(), spec=known)({"image": png(1)})


def test_dropped_streams_are_missing_and_may_be_absent():
    known = preprocessor(section()).spec
    made = preprocessor(section(), drop=["frames"])
    example = made(record(1))
    assert example["image_present"] and not example["frames_present"] and not example["frames"].any()
    assert made.spec == known
    assert preprocessor(section(), spec=known, drop=["frames"])({"image": png(1)})["image_present"]
    with pytest.raises(ConfigError, match=r"drop: 'frame' is no stream \(did you mean 'frames'\?\)"):
        preprocessor(section(), drop=["frame"])


def test_modality_dropout_hides_streams_at_their_rates_but_never_the_last():
    rates = {"image": 0.6, "frames": 0.3}
    data = section({"image": image_stream(drop_rate=0.6), "frames": frames_stream(drop_rate=0.3)})
    made = preprocessor(data, train=True)
    examples = [made(record(1), seed=4, number=i) for i in range(1500)]
    image = np.array([e["image_present"] for e in examples])
    frames = np.array([e["frames_present"] for e in examples])
    assert (image | frames).all()
    both = rates["image"] * rates["frames"]  # then one of them stays, either alike
    assert abs((~image).mean() - (0.6 - both / 2)) < 0.045
    assert abs((~frames).mean() - (0.3 - both / 2)) < 0.045
    alone = [made(record(1, frames=None), seed=4, number=i)["image_present"] for i in range(50)]
    assert all(alone)
    evaluated = preprocessor(data)
    assert all(evaluated(record(1), number=i)["image_present"] for i in range(20))


def test_a_further_stream_does_not_change_the_augmentation_of_another():
    alone = preprocessor(section({"image": image_stream(drop_rate=0.5)}), train=True)
    beside = preprocessor(
        section({"frames": frames_stream(), "image": image_stream(drop_rate=0.5)}), train=True
    )
    again = preprocessor(section({"image": image_stream()}), train=True)
    for number in range(10):
        a, b, c = (p(record(5), seed=1, number=number) for p in (alone, beside, again))
        np.testing.assert_array_equal(a["image"], c["image"])
        if b["image_present"]:
            np.testing.assert_array_equal(a["image"], b["image"])
    different = [alone(record(5), seed=s, number=n)["image"] for s in range(2) for n in range(2)]
    assert len({image.tobytes() for image in different}) == 4


def test_targets_of_a_missing_stream_are_no_targets():
    class WithTargets:
        def __call__(self, value, rng):
            return {**value, "targets": np.array([5, 6, 7, 8], np.int64)}

    data = section({"frames": frames_stream(), "image": image_stream()})
    data["streams"]["frames"]["eval"].append(WithTargets())
    made = preprocessor(data)
    assert made.spec["frames_targets"] == ((4,), "int32")
    np.testing.assert_array_equal(made(record(0))["frames_targets"], [5, 6, 7, 8])
    np.testing.assert_array_equal(made(record(0, frames=None))["frames_targets"], [-1] * 4)


def test_errors_name_the_stream_and_the_transform():
    made = preprocessor(section())
    with pytest.raises(DataError, match="stream 'image': decode_image: 3 bytes that are no readable image"):
        made(record(0, image=b"abc"))
    with pytest.raises(DataError, match=r"stream 'frames': pad: got an array \[5, 2\] .* at most 4"):
        made(record(0, frames=np.zeros((5, 2), np.float32)))


def test_chains_must_end_in_an_array_of_one_shape():
    free = section({"frames": frames_stream(train=[], eval=[])})
    made = preprocessor(free, [record(0)])
    with pytest.raises(DataError, match=r"'frames' is \[3, 2\] float32, expected \[1, 2\] float32 as"):
        made(record(2))
    with pytest.raises(DataError, match=r"stream 'image': its transforms end in bytes \(\d+\), expected"):
        preprocessor(section({"image": image_stream(eval=[])}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": []}, "data.streams.image.features: is empty"),
        ({"drop_rate": 1.5}, "data.streams.image.drop_rate: got 1.5, expected 0 to 1"),
    ],
)
def test_streams_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        preprocessor(section({"image": image_stream(**changes)}))


def test_it_pickles():
    made = preprocessor(section(), train=True)
    again = pickle.loads(pickle.dumps(made))
    for name, array in made(record(3), seed=2, number=5).items():
        np.testing.assert_array_equal(array, again(record(3), seed=2, number=5)[name])


def test_blank_rows():
    blank = preprocessor(section()).blank()
    assert blank["example_id"] == -1 and not blank["example_mask"] and blank["label"] == -1
    assert not blank["image_present"] and not blank["frames_mask"].any()
