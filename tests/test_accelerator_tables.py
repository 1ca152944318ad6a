"""Tables that need an accelerator: their data is read, and makes a step, from stand-ins with its features."""

import io
import json
import string
import wave

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny
import tokenizers
from PIL import Image
from tokenizers import models, pre_tokenizers, processors

from mmjax import components, load, schema
from mmjax import config as config_lib
from mmjax.data import loading, prepared
from mmjax.data.prefetch import prefetch
from mmjax.evaluation import prompts
from mmjax.interop import from_pretrained, save_pretrained
from mmjax.interop.pretrained import normalise_section
from mmjax.model import assemble, init_model
from mmjax.parallel.mesh import batch_sharding
from mmjax.parallel.placement import named_leaves
from mmjax.reproduce import experiment
from mmjax.training import loop
from mmjax.training.evaluate import evaluate_checkpoint
from mmjax.training.loop import initial_state
from mmjax.training.setup import fill_sizes, load_data, set_up
from mmjax.training.step import pop_non_finite
from mmjax.training.workdir import read_config

VOCABULARY = 128
SMALL = {"variant": "custom", "width": 16, "depth": 2, "heads": 2, "mlp_width": 32}


def picture(seed, height=40, width=52):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    file.seek(0)
    return file


class Imagenet2012(tfds.core.GeneratorBasedBuilder):
    """The features of the catalogue's builder, which reads the archives of ImageNet."""

    VERSION = tfds.core.Version("5.1.0")
    name = "imagenet2012"
    pkg_dir_path = None

    def _info(self):
        features = {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=[f"n{i:08d}" for i in range(1000)]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(200), "validation": self._generate_examples(8)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"file_name": f"{i}.JPEG", "image": picture(i), "label": i * 37 % 1000}


class CocoCaptions(tfds.core.GeneratorBasedBuilder):
    """The features of the catalogue's builder, as far as captions go."""

    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2014", version=tfds.core.Version("1.1.0"))]
    name = "coco_captions"
    pkg_dir_path = None

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
            "image/id": np.int64,
            "captions": tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()}),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(n) for name, n in {"train": 16, "val": 4, "test": 4}.items()}

    def _generate_examples(self, count):
        for i in range(count):
            captions = [{"id": 5 * i + k, "text": f"picture {i} as person {k} saw it"} for k in range(5)]
            yield i, {"image": picture(i), "image/filename": f"{i}.jpg", "image/id": i, "captions": captions}


class Laion400m(tfds.core.GeneratorBasedBuilder):
    """The features of the catalogue's builder, as far as they are read."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="images", version=tfds.core.Version("1.0.0"))]
    name = "laion400m"
    pkg_dir_path = None

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "caption": tfds.features.Text(),
            "similarity": np.float64,
            "url": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(16)}

    def _generate_examples(self, count):
        for i in range(count):
            text = {"caption": f"a thing for sale, number {i}", "url": f"https://example.org/{i}"}
            yield i, {"image": picture(i), "similarity": 0.3, **text}


def prepare(builder, data_dir):
    made = builder(data_dir=str(data_dir / "tfds"), file_format="array_record")
    made.download_and_prepare()


def audioset(folder):
    """A manifest of frames, sounds of AudioSet's length and several labels each."""
    rows = []
    for i in range(12):
        (folder / f"{i}.jpg").write_bytes(picture(i).getvalue())
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", "NONE"))
            noise = np.random.default_rng(i).integers(-3000, 3000, 10 * 16000, dtype=np.int16)
            file.writeframes(noise.tobytes())
        labels = "|".join(f"sound {k:03d}" for k in range(527) if k % 12 == i)
        split = "train" if i < 8 else "test"
        rows.append({"image": f"{i}.jpg", "audio": f"{i}.wav", "labels": labels, "split": split})
    rows[0]["labels"] = "|".join(f"sound {k:03d}" for k in range(527))
    manifest = folder / "audioset_mini.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def small(node):
    """Encoders of two narrow blocks, without published weights; transforms stay as they are."""
    if isinstance(node, list):
        for item in node:
            small(item)
    if isinstance(node, dict):
        for item in node.values():
            small(item)
        if "variant" in node:
            node.update(SMALL)
        if node.get("init") and "encoder" in node:
            node["init"] = ""
        if node.get("type") == "bottleneck":
            node["fusion_layer"] = 0


def makes_a_step(row, data_dir, train_path=None, tokenizer=""):
    """Loads the row's data, makes one step, and gives the number of training examples."""
    plain = config_lib.to_dict(row.resolve(0))
    small(plain["model"])
    plain["data"] |= {"dir": str(data_dir), "num_workers": 0}
    if train_path is not None:
        for part in (plain["data"]["train"], *(e["dataset"] for e in plain["data"]["eval"].values())):
            part["path"] = str(train_path)
    if tokenizer:
        plain["data"]["tokenizers"]["default"]["path"] = tokenizer
    plain["batch_size"] = 4
    plain["optimizer"]["schedule"] |= {"warmup_steps": None, "warmup_epochs": None, "warmup_percent": 10.0}
    config = config_lib.check(components.normalise(plain, schema.Config, ""))
    loading.prepare(config.data)
    with tiny.on_devices(1):
        data = load_data(config, None)
        setup = set_up(fill_sizes(config, data), data)
        with prefetch(setup.pipeline.batches(0), batch_sharding(setup.mesh)) as batches:
            state, metrics = setup.make_train_step()(initial_state(setup), next(batches))
    assert pop_non_finite(metrics) == [] and np.isfinite(float(metrics["loss"][0]))
    assert int(jax.device_get(state.step)) == 1
    return len(data.train)


@pytest.mark.slow
def test_imagenet(tmp_path):
    prepare(Imagenet2012, tmp_path)
    row = experiment.load("plain_vit").rows[0]
    assert makes_a_step(row, tmp_path) == 198  # of 200; the last percent is for validation


@pytest.mark.slow
def test_coco_captions(tmp_path):
    prepare(CocoCaptions, tmp_path)
    prepare(Imagenet2012, tmp_path)
    assert makes_a_step(experiment.load("lit_coco").rows[0], tmp_path) == 16


def write_tokenizer(folder):
    """A small tokenizer.json, with an end of text; 'hf:...'."""
    words = dict.fromkeys(["<pad>", "a", "photo", "picture", "person", *string.printable])
    words = {word: i for i, word in enumerate(words)} | {"<end>": VOCABULARY - 1}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", VOCABULARY - 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return f"hf:{folder}"


def published(folder, model):
    """A directory as the hub has it: the model's architecture with small encoders, and a small tokenizer."""
    section = normalise_section(model)
    for stream in section["streams"].values():
        if "vocab_size" in stream["encoder"]:
            stream["encoder"]["vocab_size"] = VOCABULARY
            stream["encoder"]["eos_id"] = stream["encoder"]["eos_id"] and VOCABULARY - 1
    made = assemble(section)
    inputs = {"image": ((224, 224, 3), "float32"), "text": ((8,), "int32")}
    save_pretrained(made, init_model(made, inputs, jax.random.key(0)), folder)
    write_tokenizer(folder)
    return f"hf:{folder}"


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 3], ids=["clip", "siglip2"])
def test_published_weights_are_judged_without_a_step(tmp_path, monkeypatch, index):
    """The whole run, with 2 of 80 templates; its parameters are those of the weights, and `eval` reads it."""
    whole = prompts.published("imagenet1k", prepared.default_dir())
    monkeypatch.setattr(prompts, "published", lambda *_: whole._replace(templates=whole.templates[:2]))
    prepare(Imagenet2012, tmp_path / "data")
    prepare(CocoCaptions, tmp_path / "data")
    row = experiment.load("zero_shot").rows[index]
    plain = config_lib.to_dict(row.resolve(0))
    small(plain["model"])
    weights = published(tmp_path / "weights", plain["model"])
    for stream in plain["model"]["streams"].values():
        if stream["kind"] == "text" and stream["encoder"]["pooling"] == "eos":
            stream["encoder"]["eos_id"] = VOCABULARY - 1
    plain["init"]["weights"] = plain["data"]["tokenizers"]["default"]["path"] = weights
    plain["data"] |= {"dir": str(tmp_path / "data"), "num_workers": 0}
    plain |= {"batch_size": 4, "dtype": "float32", "remat": False}
    config = config_lib.check(components.normalise(plain, schema.Config, ""))
    with tiny.on_devices(1):
        result = loop.train(config, tmp_path / "run")
        assert loop.train(config, tmp_path / "run") == result  # it is finished
        again = evaluate_checkpoint(config_lib.check(read_config(tmp_path / "run")), tmp_path / "run")
    metrics = result["metrics"]
    assert result["steps"] == 0 and set(row.expected) <= set(metrics)
    examples = json.loads((tmp_path / "run" / "data.json").read_text())["examples"]
    assert examples == {"train": 4, "test": 20, "imagenet": 8}
    found = load(tmp_path / "run")
    theirs = from_pretrained(weights)
    for name, leaf in named_leaves(theirs.variables["params"]):
        np.testing.assert_array_equal(dict(named_leaves(found.variables["params"]))[name], leaf)
    assert again == (0, pytest.approx(metrics, abs=1e-6))


@pytest.mark.slow
def test_laion400m(tmp_path):
    prepare(Laion400m, tmp_path)
    prepare(Imagenet2012, tmp_path)
    row = experiment.load("clip_laion400m").rows[0]
    assert makes_a_step(row, tmp_path, tokenizer=write_tokenizer(tmp_path)) == 16


@pytest.mark.slow
@pytest.mark.parametrize("index", range(3))
def test_audioset(tmp_path, index):
    row = experiment.load("mbt_audioset").rows[index]
    assert makes_a_step(row, tmp_path, audioset(tmp_path)) == 8
