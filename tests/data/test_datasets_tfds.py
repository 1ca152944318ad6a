import io
import multiprocessing
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from mmjax.data import prepared, tfds_source
from mmjax.data.datasets.public import Tfds
from mmjax.errors import DataError

LABELS = [0, -1, 1]
TAGS = [[], [2, 0], [1]]


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Registered by TFDS under `tiny_pictures`; has one feature of every kind that is read."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3), encoding_format="png"),
            "video": tfds.features.Sequence(tfds.features.Image(shape=(4, 4, 3), encoding_format="png")),
            "texts": {"en": tfds.features.Text(), "de": tfds.features.Text()},
            "words": tfds.features.Sequence(tfds.features.Text()),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["x", "y", "z"])),
            "frames": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "boxes": tfds.features.Sequence(
                {
                    "size": np.int64,
                    "caption": tfds.features.Text(),
                    "kind": tfds.features.ClassLabel(num_classes=3),
                }
            ),
            "score": np.float32,
            "good": np.bool_,
        }
        return self.dataset_info_from_features(features)

    def dataset_info_from_features(self, features):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(3)), "test": self._generate_examples([2])}

    def _generate_examples(self, numbers):
        for i in numbers:
            yield (
                i,
                {
                    "image": picture(i),
                    "video": [picture(0), picture(i)],
                    "texts": {"en": f"one {i}", "de": f"ä {i}"},
                    "words": ["a", "b"][:i],
                    "label": LABELS[i],
                    "tags": TAGS[i],
                    "frames": np.full((i + 1, 2), i, np.float32),
                    "boxes": [{"size": i + j, "caption": f"ö{j}", "kind": 2 - j} for j in range(2)],
                    "score": i / 2,
                    "good": i == 1,
                },
            )


class BrokenPictures(TinyPictures):
    """Fails in the middle."""

    def _generate_examples(self, numbers):
        yield from super()._generate_examples([0])
        raise RuntimeError("the archive\nis gone")


def picture(value):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    Tfds("tiny_pictures").prepare(path)
    return path


def by_number(source):
    return {int(record["score"] * 2): record for record in source}


def test_records(data_dir):
    source = Tfds("tiny_pictures:1.*.*").open(data_dir)
    assert len(source) == 3 and source.name == "tiny_pictures/1.2.0/train"
    assert source.class_names == {"label": ["cat", "dog"], "tags": ["x", "y", "z"]}
    for number, record in by_number(source).items():
        assert record["image"] == picture(number).getvalue()
        assert record["video"].shape == (2, 4, 4, 3) and record["video"].dtype == np.uint8
        assert record["video"][:, 0, 0, 0].tolist() == [0, number]
        assert record["texts"] == {"en": f"one {number}", "de": f"ä {number}"}
        assert record["words"] == ["a", "b"][:number]
        assert record["label"] == (LABELS[number] if LABELS[number] >= 0 else None)
        multi_hot = [float(i in TAGS[number]) for i in range(3)]
        np.testing.assert_array_equal(record["tags"], np.array(multi_hot, np.float32), strict=True)
        np.testing.assert_array_equal(
            record["frames"], np.full((number + 1, 2), number, np.float32), strict=True
        )
        assert record["boxes"]["caption"] == ["ö0", "ö1"]
        assert record["boxes"]["size"].tolist() == [number, number + 1]
        assert record["boxes"]["kind"].tolist() == [2, 1]
        assert record["score"] == number / 2 and isinstance(record["score"], float)
        assert record["good"] == (number == 1)
    assert [record["example_id"] for record in source] == [0, 1, 2]


def test_splits(data_dir):
    assert len(Tfds("tiny_pictures", "test").open(data_dir)) == 1
    assert len(Tfds("tiny_pictures", "train[:2]").open(data_dir)) == 2
    both = Tfds("tiny_pictures", "train+test").open(data_dir)
    assert len(both) == 4 and len(set(both.column("example_id"))) == 4
    fingerprints = {
        Tfds("tiny_pictures", s).open(data_dir).fingerprint for s in ("train", "test", "train[:2]")
    }
    assert len(fingerprints) == 3
    with pytest.raises(DataError, match=r"tiny_pictures/1.2.0/dev: no such split .* it has: train, test"):
        Tfds("tiny_pictures", "dev").open(data_dir)


def test_select_keeps_nesting_and_identity(data_dir):
    source = Tfds("tiny_pictures").open(data_dir)
    view = source.select(["texts.de", "label"])
    assert set(view[0]) == {"texts", "label", "example_id"} and set(view[0]["texts"]) == {"de"}
    assert view.select(["texts"])[0]["texts"].keys() == {"de"}
    assert source.select(["texts"])[0]["texts"].keys() == {"de", "en"}
    assert sorted(source.column("texts.de")) == ["ä 0", "ä 1", "ä 2"]
    assert pickle.loads(pickle.dumps(view))[1] == view[1]


def test_what_tfds_prepared_is_taken_as_it_is(data_dir, tmp_path):
    builder = TinyPictures(data_dir=tfds_source.root(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    with pytest.raises(DataError, match="not prepared"):
        Tfds("tiny_pictures").open(tmp_path)
    Tfds("tiny_pictures").prepare(tmp_path)
    taken = Tfds("tiny_pictures").open(tmp_path)
    taken.verify()
    assert taken.fingerprint == Tfds("tiny_pictures").open(data_dir).fingerprint


def test_failures_are_one_line_and_leave_nothing(tmp_path):
    with pytest.raises(DataError) as caught:
        Tfds("broken_pictures").prepare(tmp_path)
    assert str(caught.value) == "broken_pictures/1.2.0: RuntimeError: the archive is gone"
    assert not list(tmp_path.rglob("*array_record*")) and not list(tmp_path.rglob(".scratch*"))
    with pytest.raises(DataError, match=r"no data set 'tiny_picture' \(did you mean 'tiny_pictures'\?\)"):
        Tfds("tiny_picture").prepare(tmp_path)
    with pytest.raises(DataError, match="no data set 'nothing_like_it' in the catalogue"):
        Tfds("nothing_like_it").open(tmp_path)


def test_builders_that_need_tensorflow_say_so(tmp_path, monkeypatch):
    def generate(self, numbers):
        raise ModuleNotFoundError("No module named 'tensorflow'")
        yield

    monkeypatch.setattr(BrokenPictures, "_generate_examples", generate)
    with pytest.raises(DataError, match=r"tfds build NAME --file_format=array_record --data_dir=.*/tfds"):
        Tfds("broken_pictures").prepare(tmp_path)


def test_damage(tmp_path):
    Tfds("tiny_pictures").prepare(tmp_path)
    source = Tfds("tiny_pictures").open(tmp_path)
    shard = next(source.directory.glob("*train.array_record*"))
    content = bytearray(shard.read_bytes())
    end = max(i for i, byte in enumerate(content[: len(content) // 2]) if byte)  # of the records
    for i in range(end - 100, end):
        content[i] ^= 0xFF
    shard.write_bytes(content)
    damaged = Tfds("tiny_pictures").open(tmp_path)
    with pytest.raises(DataError, match="does not have its recorded SHA-256"):
        damaged.verify()
    with pytest.raises(DataError, match=r"tiny_pictures/1.2.0/train: record \d cannot be read"):
        list(damaged)
    shard.write_bytes(content[:100])
    with pytest.raises(DataError, match="has 100 bytes, expected"):
        Tfds("tiny_pictures").open(tmp_path)


def _prepare_together(path, barrier):
    barrier.wait()
    Tfds("tiny_pictures").prepare(path)


def test_two_processes_prepare_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")  # TFDS and ArrayRecord have threads
    barrier = context.Barrier(2)
    workers = [context.Process(target=_prepare_together, args=(tmp_path, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    source = Tfds("tiny_pictures").open(tmp_path)
    source.verify()
    assert len(list(source)) == 3
    assert prepared.is_published(source.directory)
    assert not list(tmp_path.rglob(".scratch*"))
