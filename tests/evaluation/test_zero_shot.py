import numpy as np
import outside
import pytest
from evaluation import eval_cases as cases

from mmjax.data import prepared
from mmjax.errors import ConfigError, DataError
from mmjax.evaluation import prompts

SECTION = {
    "type": "zero_shot",
    "data": "test",
    "embedding": "image_embedding",
    "text_embedding": "text_embedding",
    "label": "animal",
}
WORDS = {"cat": [2.0, 0.0], "dog": [0.0, 1.0], "a photo of cat": [0.0, 4.0], "a photo of dog": [-1.0, 0.0]}


def context(tmp_path, labels, embeddings, seen=None, names=("cat", "dog")):
    def encode(stream, texts, output):
        assert (stream, output) == ("text", "text_embedding")
        if seen is not None:
            seen.extend(texts)
        return np.array([WORDS[text] for text in texts])

    split = cases.Split({"animal": np.asarray(labels, np.int32), "image_present": np.ones(len(labels), bool)})
    return cases.make_context(
        tmp_path,
        {"test": split},
        {"image_embedding": np.asarray(embeddings, np.float32)},
        class_names={"animal": list(names)},
        encode=encode,
    )


def test_nearest_name_wins(tmp_path):
    made = context(tmp_path, [0, 1, 1, -1, 0], [[1, 0.9], [0.1, 1], [1, 0], [0, 1], [1, 0]])
    found = cases.run(made, **SECTION)
    assert found["zero_shot/animal/accuracy"] == 3 / 4
    assert found["zero_shot/animal/accuracy_low"] < 3 / 4 < found["zero_shot/animal/accuracy_high"]
    matrix = cases.artifact(tmp_path, "zero_shot_animal_confusion_matrix")
    assert matrix["labels"] == ["cat", "dog"] and matrix["matrix"] == [[2, 0], [1, 1]]


def test_templates_are_averaged_at_length_one(tmp_path):
    # cat: mean of (1, 0) and (0, 1), whatever their lengths were; dog: mean of (0, 1) and (-1, 0).
    seen = []
    made = context(tmp_path, [0, 0, 1], [[1, 0.1], [0.1, 1], [-1, 0.1]], seen)
    found = cases.run(made, **SECTION, templates=["{}", "a photo of {}"])
    assert seen == ["cat", "a photo of cat", "dog", "a photo of dog"]
    assert found["zero_shot/animal/accuracy"] == 1.0


def test_classes_may_be_named_otherwise(tmp_path):
    made = context(tmp_path, [0, 1], [[1, 0], [0, 1]], names=("felis", "canis"))
    assert cases.run(made, **SECTION, classes=["cat", "dog"])["zero_shot/animal/accuracy"] == 1.0


@pytest.fixture(scope="module")
def published():
    place = prepared.default_dir()
    try:
        prompts.published("imagenet1k", place)
    except DataError as error:
        outside.missing(str(error))
    return lambda benchmark: prompts.published(benchmark, place)


def test_prompts_of_papers(published):
    imagenet, cifar = published("imagenet1k"), published("cifar10")
    assert len(imagenet.classes) == len(set(imagenet.classes)) + 2 == 1000  # two cranes, two maillots
    assert len(imagenet.templates) == 80 and all(text.count("{}") == 1 for text in imagenet.templates)
    assert not cifar.classes and "a photo of a {}." in cifar.templates  # its names are the data's
    assert published("caltech101").classes[:2] == ["accordion", "airplane"]  # in the order of TFDS
    with pytest.raises(
        ConfigError, match="got 'imagenet' .did you mean 'imagenet1k'.., expected one of: cal"
    ):
        published("imagenet")


def test_a_benchmark_brings_templates(tmp_path, published):
    seen = []
    made = context(tmp_path, [0, 1], [[1, 0], [0, 1]], seen)
    with pytest.raises(KeyError):  # no vectors for these texts
        cases.run(made, **SECTION, benchmark="cifar10")
    templates = published("cifar10").templates
    assert seen == [text.replace("{}", name) for name in ("cat", "dog") for text in templates]


def test_another_number_of_classes_than_the_benchmark_has(tmp_path, published):
    made = context(tmp_path, [0, 1], [[1, 0], [0, 1]])
    with pytest.raises(ConfigError, match="'pets' has 37 classes, 'animal' of 'test' has 2"):
        cases.run(made, **SECTION, benchmark="pets")


def test_bad_settings_are_told(tmp_path):
    with pytest.raises(ConfigError, match="zero_shot.templates"):
        cases.build(**SECTION, templates=["a photo"])
    with pytest.raises(ConfigError, match="zero_shot.benchmark: brings templates and classes"):
        cases.build(**SECTION, benchmark="cifar10", classes=["cat"])
    with pytest.raises(ConfigError, match="goes up to class 2, but 2 names are known"):
        cases.run(context(tmp_path, [2], [[1, 0]]), **SECTION)
    with pytest.raises(ConfigError, match="'image_embedding' has 3 numbers, 'text_embedding' has 2"):
        cases.run(context(tmp_path, [1], [[1, 0, 0]]), **SECTION)
