import pickle

import numpy as np
import pytest

from mmjax.data.source import (
    HeldSource,
    ListSource,
    MixtureSource,
    Source,
    SubsetSource,
    digest,
    feature,
    flat_names,
)
from mmjax.errors import DataError


def letters(names="abc", **kwargs):
    return ListSource([{"name": name, "names": {"de": name.upper()}} for name in names], **kwargs)


def test_list_source_numbers_its_records_and_keeps_given_ids():
    source = ListSource([{"x": 1}, {"x": 2, "example_id": 7}])
    assert [record["example_id"] for record in source] == [0, 7]
    with pytest.raises(IndexError):
        source[2]
    with pytest.raises(IndexError):
        source[-1]


def test_fingerprint_follows_the_content():
    assert letters().fingerprint == letters(name="other").fingerprint
    assert letters().fingerprint != letters("abd").fingerprint
    assert letters().fingerprint != letters(class_names={"name": ["a", "b", "c"]}).fingerprint
    array = np.arange(4, dtype=np.float32)
    assert digest(array) != digest(array.astype(np.float64))
    assert digest(array) != digest(array.reshape(2, 2))
    assert digest(array) == digest(array.astype(">f4"))
    assert digest(b"a") != digest("a")


def test_feature_reads_dotted_names_and_suggests_the_nearest():
    record = letters()[0]
    assert feature(record, "names.de") == "A"
    assert feature({"names": None}, "names.de") is None
    with pytest.raises(DataError, match=r"no feature 'names.dee' \(did you mean 'names.de'\?\)"):
        feature(record, "names.dee")
    with pytest.raises(DataError, match="no feature 'name.de'"):
        feature(record, "name.de")
    assert flat_names(record) == ["example_id", "name", "names.de"]


def test_column():
    assert letters().column("names.de") == ["A", "B", "C"]
    assert letters("").column("names.de") == []
    with pytest.raises(DataError, match="did you mean 'name'"):
        letters().column("nam")


def test_subset():
    subset = SubsetSource(letters(), [2, 0])
    assert [record["name"] for record in subset] == ["c", "a"]
    assert [record["example_id"] for record in subset] == [2, 0]
    assert subset.column("name") == ["c", "a"]
    assert subset.fingerprint == SubsetSource(letters(), np.array([2, 0])).fingerprint
    assert len({SubsetSource(letters(), chosen).fingerprint for chosen in ([2, 0], [0, 2], [0])}) == 3


def test_mixture_concatenates_and_fills_missing_features():
    other = ListSource([{"name": "z", "sound": b"1"}], name="sounds")
    mixture = MixtureSource([letters(), other], [1, 3])
    assert mixture.offsets == [0, 3, 4] and mixture.weights == [1.0, 3.0]
    assert [record["name"] for record in mixture] == ["a", "b", "c", "z"]
    assert [record["example_id"] for record in mixture] == [0, 1, 2, 3]
    assert [record["part"] for record in mixture] == [0, 0, 0, 1]
    assert mixture.column("sound") == [None, None, None, b"1"]
    assert mixture.column("names.de") == ["A", "B", "C", None]
    assert all(record.keys() == mixture[0].keys() for record in mixture)
    assert mixture.fingerprint != MixtureSource([letters(), other], [1, 1]).fingerprint


def test_mixture_needs_equal_classes():
    one, two = letters(class_names={"kind": ["a"]}), letters(class_names={"kind": ["b"]}, name="two")
    with pytest.raises(DataError, match="'kind' has 1 classes in 'two'"):
        MixtureSource([one, two], [1, 1])
    with pytest.raises(DataError, match="'list' is empty"):
        MixtureSource([letters(""), one], [1, 1])
    merged = MixtureSource([one, letters(class_names={"other": ["x"]})], [1, 1])
    assert merged.class_names == {"kind": ["a"], "other": ["x"]}


@pytest.mark.parametrize("source", [SubsetSource(letters(), [1]), MixtureSource([letters()], [1])])
def test_sources_pickle(source: Source):
    copy = pickle.loads(pickle.dumps(source))
    assert copy[0] == source[0] and copy.fingerprint == source.fingerprint


def test_verify_reaches_every_part():
    class Checked(ListSource):
        verified = 0

        def verify(self):
            Checked.verified += 1

    parts = [Checked([{"x": i}]) for i in range(3)]
    MixtureSource([SubsetSource(part, [0]) for part in parts], [1, 1, 1]).verify()
    assert Checked.verified == 3


def test_held_records_are_read_once_and_handed_out_as_copies():
    reads = []

    class Counted(ListSource):
        def read(self, index):
            reads.append(index)
            return super().read(index)

    inner = Counted([{"name": name} for name in "abc"], class_names={"name": ["a", "b", "c"]})
    held = HeldSource(inner)
    held[1]["name"] = "changed"
    assert [record["name"] for record in held] == ["a", "b", "c"] and sorted(reads) == [0, 1, 2]
    assert (len(held), held.name, held.fingerprint) == (3, inner.name, inner.fingerprint)
    assert held.class_names == inner.class_names and held.column("name") == ["a", "b", "c"]
    assert [record["name"] for record in pickle.loads(pickle.dumps(HeldSource(letters())))] == ["a", "b", "c"]
