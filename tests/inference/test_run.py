from __future__ import annotations

import base64
import io
import json
import shutil

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import run_cases
from PIL import Image

import mmjax
from mmjax.__main__ import dispatch
from mmjax.data import loading
from mmjax.data.pipeline import EvalPipeline
from mmjax.errors import ConfigError, DataError
from mmjax.inference.files import embed_to_file, predict_to_file, write_gallery
from mmjax.inference.heads import classes, is_multi_label
from mmjax.inference.search import Index, make_index
from mmjax.reports import gallery_picture
from mmjax.reports.attention import attention_artifact


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_cases.write_images(folder / "images")
    run_cases.save_run(folder / "run", run_cases.config(folder))
    return folder


@pytest.fixture(scope="module")
def run(root):
    """A batch of 3, so that five images are two batches with padding."""
    return mmjax.load(root / "run", batch_size=3)


@pytest.fixture(scope="module")
def test_batch(run):
    """The five records of the data set 'test' as arrays, as an evaluator gets them."""
    data = run.config["data"]
    source = loading.load(data).eval["test"]
    pipeline = EvalPipeline(source, data, name="test", batch_size=5, tokenizers=run.tokenizers)
    return next(iter(pipeline.batches()))


@pytest.fixture(scope="module")
def expected(run, test_batch):
    """What the whole model gives for them."""
    return jax.device_get(jax.jit(run.model.apply)(run.variables, test_batch))


def paths(root, count=5):
    return [root / "images" / f"{i}.png" for i in range(15, 15 + count)]


TEXTS = [f"a {colour} square" for colour in ("red", "green", "blue", "red", "green")]


def test_embeddings_are_those_of_evaluation(root, run, expected):
    """From files and texts, one encoder at a time, in padded batches of another size."""
    found = run.embed(image=paths(root), text=TEXTS)
    assert set(found) == {"image_embedding", "text_embedding"}
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)


def test_predictions_are_those_of_evaluation(root, run, expected):
    found = run.predict(image=paths(root), text=TEXTS, top_k=2)
    assert set(found) == {"hue", "late", "extent"}
    probabilities = np.asarray(jax.nn.softmax(expected["hue"]))
    for row, entry in enumerate(found["hue"]):
        best = int(probabilities[row].argmax())
        assert entry["label"] == run.class_names["colour"][best]
        assert entry["probability"] == pytest.approx(probabilities[row, best], abs=1e-5)
        assert len(entry["top_k"]) == 2 and entry["top_k"][0]["label"] == entry["label"]
    np.testing.assert_allclose([e["values"] for e in found["extent"]], expected["extent"], atol=1e-5)


def test_a_data_set_of_the_run_gives_the_same(run, expected, test_batch):
    chunks = list(run.outputs("test", ("projection",)))
    names = [name for chunk in chunks for name in chunk.names]
    assert names == test_batch["example_id"].tolist()
    found = np.concatenate([chunk.outputs["image_embedding"] for chunk in chunks])
    np.testing.assert_allclose(found, expected["image_embedding"], atol=1e-5)


def test_an_image_is_the_same_however_it_is_given(root, run):
    path = paths(root)[0]
    image = Image.open(path)
    given = [str(path), path, path.read_bytes(), image, np.asarray(image)]
    found = run.embed(image=given)["image_embedding"]
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), atol=1e-6)
    np.testing.assert_allclose(run.embed(image=path)["image_embedding"], found[:1], atol=1e-6)


def test_what_is_missing_does_not_matter_and_is_told(root, run):
    """A text alone: the classifier on both streams predicts as if no image were there."""
    found = run.predict(image=[None, paths(root)[0]], text=[TEXTS[0], TEXTS[1]])
    alone = run.predict(text=TEXTS[0])
    assert found["extent"][0] is None and found["extent"][1] is not None
    for head in ("hue", "late"):
        assert found[head][0]["probability"] == pytest.approx(alone[head][0]["probability"], abs=1e-5)
    assert "extent" not in alone  # it reads only the image
    vectors = run.embed(image=[None, paths(root)[0]], text=[TEXTS[0], None])
    assert not vectors["image_embedding"][0].any() and vectors["image_embedding"][1].any()
    assert not vectors["text_embedding"][1].any() and vectors["text_embedding"][0].any()


def test_only_what_is_asked_for_is_read(root, run):
    assert list(run.embed(text="red")) == ["text_embedding"]


def test_search_ranks_by_dot_product(root, run):
    hits = run.search(root / "images", text="a red square", k=4)
    images = run.embed(image=[root / "images" / hit.name for hit in hits])["image_embedding"]
    query = run.embed(text="a red square")["text_embedding"][0]
    np.testing.assert_allclose([hit.score for hit in hits], images @ query, atol=1e-5)
    every = make_index(run, root / "images").embeddings["image_embedding"] @ query
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(every)[::-1][:4], atol=1e-5)
    assert hits[0].values["image"] == root / "images" / hits[0].name


def test_search_by_an_image_finds_itself(root, run):
    path = paths(root)[2]
    hit = run.search(root / "images", image=path, k=1)[0]
    assert hit.score == pytest.approx(1.0, abs=1e-5)


def test_search_in_a_data_set_prefers_the_other_stream(run, expected, test_batch):
    query = run.embed(text="blue")["text_embedding"][0]
    for find, head in ((None, "image_embedding"), ("text", "text_embedding")):
        hits = run.search("test", text="blue", find=find)
        order = np.argsort(-(expected[head] @ query), kind="stable")
        np.testing.assert_allclose([h.score for h in hits], (expected[head] @ query)[order], atol=1e-5)
    assert sorted(hit.name for hit in run.search("test", text="blue")) == test_batch["example_id"].tolist()


def test_items_without_the_stream_are_not_found(run):
    index = Index(["a", "b", "c"], {"image_embedding": np.array([[1, 0], [0, 0], [-1, 0]], np.float32)})
    assert [hit.name for hit in index.best("image_embedding", np.array([1, 0], np.float32), 5)] == ["a", "c"]


@pytest.mark.parametrize(
    "query, find, message",
    [
        ({}, None, "a query of 0 streams"),
        ({"text": "a", "image": "b"}, None, "a query of 2 streams"),
        ({"txt": "a"}, None, "did you mean 'text'"),
        ({"text": "a"}, "imag", "did you mean 'image'"),
        ({"text": "a"}, "text", "cannot be compared with items of text"),
        ({"text": ["a", "b"]}, None, "got 2 queries"),
    ],
)
def test_wrong_queries_are_told(run, query, find, message):
    index = Index(["a"], {"image_embedding": np.ones((1, 8), np.float32)})
    with pytest.raises(ConfigError) as error:
        run.search(index, find=find, **query)
    assert message in str(error.value)


def test_embeddings_as_parquet_are_an_index(root, run, tmp_path):
    out = tmp_path / "vectors.parquet"
    assert embed_to_file(run, root / "images", out) == 20
    table = pq.read_table(out)
    assert table.column_names == ["item", "image_embedding"]
    assert str(table.schema.field("image_embedding").type) == "fixed_size_list<element: float>[8]"
    index = make_index(run, out)
    fresh = make_index(run, root / "images")
    assert index.names == fresh.names
    np.testing.assert_array_equal(index.embeddings["image_embedding"], fresh.embeddings["image_embedding"])
    assert [h.name for h in run.search(out, text="red")] == [h.name for h in run.search(fresh, text="red")]


def test_embeddings_of_a_data_set_have_both_heads(run, tmp_path, expected):
    assert embed_to_file(run, "test", tmp_path / "test.parquet") == 5
    table = pq.read_table(tmp_path / "test.parquet")
    assert table["item"].to_pylist() == [15, 16, 17, 18, 19]
    np.testing.assert_allclose(table["text_embedding"].to_pylist(), expected["text_embedding"], atol=1e-5)


def test_embeddings_as_npy(run, tmp_path, expected):
    assert embed_to_file(run, "test", tmp_path / "a.npy", head="image_embedding") == 5
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected["image_embedding"], atol=1e-5)


def test_predictions_as_json_lines(root, run, tmp_path):
    assert predict_to_file(run, root / "images", tmp_path / "out.jsonl", top_k=1) == 20
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["item"] for line in lines] == [f"{i:02d}.png" for i in range(20)]
    direct = run.predict(image=root / "images" / "07.png", top_k=1)
    assert lines[7]["hue"]["label"] == direct["hue"][0]["label"]


def test_files_are_never_replaced(run, tmp_path):
    def embed(out):
        return embed_to_file(run, "test", out)

    for name, write in (("a.parquet", embed), ("a.jsonl", lambda out: predict_to_file(run, "test", out))):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ConfigError, match="is there already"):
            write(tmp_path / name)
        assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_appears_meanwhile_is_not_replaced_either(run, tmp_path, monkeypatch):
    out = tmp_path / "a.jsonl"
    decide = run.decide

    def slow(chunk, top_k):
        out.write_text("theirs")
        return decide(chunk, top_k)

    monkeypatch.setattr(run, "decide", slow)
    with pytest.raises(ConfigError, match="is there already"):
        predict_to_file(run, "test", out)
    assert out.read_text() == "theirs" and [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_wrong_outputs_are_told_and_leave_nothing(root, run, tmp_path):
    for write, message in (
        (lambda: embed_to_file(run, "test", tmp_path / "a.csv"), "ends in .parquet or .npy"),
        (lambda: embed_to_file(run, "test", tmp_path / "a.npy"), "name the head"),
        (lambda: embed_to_file(run, "test", tmp_path / "a.npy", head="image"), "no projection head 'image'"),
        (lambda: embed_to_file(run, "test", tmp_path / "no" / "a.npy"), "there is no directory"),
        (lambda: predict_to_file(run, "test", tmp_path / "a.json"), "ends in .jsonl"),
    ):
        with pytest.raises(ConfigError, match=message):
            write()
    assert not list(tmp_path.iterdir())


def test_a_bad_file_is_named_and_leaves_nothing(root, run, tmp_path):
    shutil.copytree(root / "images", tmp_path / "images")
    (tmp_path / "images" / "03.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="item 03.png: stream 'image': decode_image"):
        embed_to_file(run, tmp_path / "images", tmp_path / "a.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    with pytest.raises(DataError, match=r"item 0 \(.*03\.png\): stream 'image': decode_image"):
        run.embed(image=[tmp_path / "images" / "03.png"])


def test_gallery_of_a_search(root, run, tmp_path):
    query = {"text": "<script>red"}
    hits = run.search(root / "images", k=3, **query)
    write_gallery(run, query, hits, tmp_path / "found.html", source="images")
    text = (tmp_path / "found.html").read_text()
    assert text.count("data:image/webp;base64,") == 3 and "<script" not in text
    assert all(hit.name in text for hit in hits)
    hits = run.search("test", text="red")
    write_gallery(run, {"image": paths(root)[0]}, hits, tmp_path / "b.html", "test")
    text = (tmp_path / "b.html").read_text()
    assert text.count("data:image/webp;base64,") == 6
    assert all(hit.title in text for hit in hits)


def test_hits_are_called_by_what_people_read(root, run, tmp_path):
    """Records by their text, files by their names, lines of a manifest by both."""
    assert sorted(hit.title for hit in run.search("test", text="blue")) == [
        f"{text} ({number})" for text, number in sorted(zip(TEXTS, range(15, 20), strict=True))
    ]
    assert {hit.title for hit in run.search(root / "images", text="blue", k=99)} == {
        f"{i:02d}.png" for i in range(20)
    }
    (tmp_path / "lines.jsonl").write_text('{"text": "a\\nred   ball", "name": "ball"}\n{"text": "blue"}')
    hits = run.search(tmp_path / "lines.jsonl", image=paths(root)[0])
    assert sorted(hit.title for hit in hits) == ["a red ball (ball)", "blue (2)"]


def test_picture_of_a_search(root, run, tmp_path, monkeypatch):
    """The cards that are drawn: the query and the hits with their images, titles and scores."""
    drawn = []
    draw = gallery_picture.draw
    monkeypatch.setattr(gallery_picture, "draw", lambda *cards: drawn.append(cards) or draw(*cards))
    for source, query in (("test", {"text": "red"}), (str(root / "images"), {"image": str(paths(root)[0])})):
        hits = run.search(source, k=3, **query)
        out = tmp_path / f"{len(drawn)}.png"
        write_gallery(run, query, hits, out, source)
        with Image.open(out) as picture:
            assert picture.format == "PNG" and picture.size == draw(*drawn[-1]).size
        _, asked, cards = drawn[-1]
        assert [(card.title, card.score) for card in cards] == [(hit.title, hit.score) for hit in hits]
        assert all(card.image.size == (24, 20) for card in cards)
    assert drawn[0][1].title == "red" and drawn[0][1].image is None
    assert drawn[1][1].title == "15.png" and drawn[1][1].image.size == (24, 20)
    assert np.asarray(drawn[1][2][0].image)[-1, -1].tolist() == list(run_cases.COLOURS["red"])  # found itself


def test_a_gallery_replaces_nothing(run, tmp_path):
    for name in ("a.png", "a.html"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ConfigError, match="is there already"):
            write_gallery(run, {"text": "red"}, [], tmp_path / name)
        assert (tmp_path / name).read_text() == "mine"
    with pytest.raises(ConfigError, match="ends in .png or .html"):
        write_gallery(run, {"text": "red"}, [], tmp_path / "a.jpg")


def test_the_verb_prints_what_it_finds_and_writes_a_picture_of_it(root, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmjax.inference.run.load", lambda *_: run)
    arguments = ["search", f"--workdir={tmp_path}", "--source=test", "--input=text=a red/.. thing", "--k=2"]
    hits = run.search("test", text="a red/.. thing", k=2)
    expected = [f"{rank:>4}  {hit.score:+.4f}  {hit.title}" for rank, hit in enumerate(hits, start=1)]
    for name in ("a-red-thing-in-test.png", "a-red-thing-in-test-2.png"):  # a second search, a second file
        assert dispatch(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines == [*expected, f"gallery: {tmp_path / 'searches' / name}"]
        Image.open(tmp_path / "searches" / name).verify()
    (tmp_path / "mine.png").write_text("mine")
    monkeypatch.setattr("mmjax.inference.run.load", None)  # refused before the run is loaded
    with pytest.raises(ConfigError, match="mine.png: is there already"):
        dispatch([*arguments, f"--gallery={tmp_path / 'mine.png'}"])
    assert (tmp_path / "mine.png").read_text() == "mine"


def test_streams_that_do_not_suffice_are_told(root, run, tmp_path):
    """A model whose only head reads the image."""
    without = {name: run.heads[name] for name in ("extent",)}
    config = {**run.config, "model": {**run.config["model"], "heads": without}}
    shutil.copytree(root / "run", tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "objectives": {}}))
    small = mmjax.load(tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"nothing can be computed from text alone; there is: extent \(reads image"
    ):
        small.predict(text="a")
    with pytest.raises(ConfigError, match="has no head of type projection"):
        small.embed(text="a")


def test_directories_that_are_no_whole_run_are_told(root, tmp_path):
    with pytest.raises(DataError, match="config.json: is missing"):
        mmjax.load(tmp_path)
    with pytest.raises(DataError, match="9"):
        mmjax.load(root / "run", step=9)
    shutil.copytree(root / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(DataError, match="no checkpoint"):
        mmjax.load(tmp_path / "run")


def test_a_run_from_before_a_key_existed_is_read_with_its_default(root, run, tmp_path):
    shutil.copytree(root / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["model"]["streams"]["text"]["encoder"]["dropout"], config["model"]["heads"]["hue"]["reads"]
    path.write_text(json.dumps(config))
    older = mmjax.load(tmp_path / "run", batch_size=run.batch_size)
    assert older.config == run.config
    np.testing.assert_array_equal(
        older.embed(text="red")["text_embedding"], run.embed(text="red")["text_embedding"]
    )
    path.write_text(json.dumps(config | {"speed": 9}))
    with pytest.raises(ConfigError, match="run/config.json: speed: unknown key.*another version of mmjax"):
        mmjax.load(tmp_path / "run")


def test_damaged_weights_are_refused(root, tmp_path):
    shutil.copytree(root / "run", tmp_path / "run")
    files = [
        p for p in (tmp_path / "run" / "checkpoints").rglob("*") if p.is_file() and p.stat().st_size > 1000
    ]
    largest = max(files, key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with pytest.raises(DataError):
        mmjax.load(tmp_path / "run")


def test_several_labels_at_once():
    objectives = {
        "a": {"logits": "x", "multi_label": True},
        "b": {"logits": "y", "multi_label": False},
        "c": {},
    }
    assert is_multi_label("x", objectives) and not is_multi_label("y", objectives)
    found = classes(np.array([[2.0, -1.0, 0.5]]), ["a", "b", "c"], 2, several=True)
    assert found[0]["labels"] == ["a", "c"]
    assert [entry["label"] for entry in found[0]["top_k"]] == ["a", "c"]
    assert found[0]["top_k"][0]["probability"] == pytest.approx(1 / (1 + np.exp(-2)))


def test_nothing_cannot_be_asked_for(run):
    with pytest.raises(ConfigError, match="top_k: got 0"):
        run.predict(text="a", top_k=0)
    with pytest.raises(ConfigError, match="k: got 0"):
        run.search("test", text="a", k=0)


def test_classes_without_names_are_numbered():
    assert classes(np.array([[0.0, 1.0]]), None, 1, several=False)[0]["label"] == "1"


def test_probabilities_of_large_logits():
    (found,) = classes(np.array([[1e4, -1e4]], np.float32), ["a", "b"], 1, several=False)
    assert found == {"label": "a", "probability": 1.0, "top_k": [{"label": "a", "probability": 1.0}]}


def test_attention_of_a_run(run, test_batch):
    """Every example, its words without [CLS] and padding, and the image as it was before `normalise`."""
    artifact = attention_artifact(run.config, run.model, run.variables, test_batch, run.tokenizers)
    assert len(artifact["examples"]) == 5
    example = artifact["examples"][0]
    assert example["tokens"] == ["a", "red", "square"]
    assert np.shape(example["weights"])[1:] == (4, 4)
    np.testing.assert_allclose(np.sum(example["weights"], axis=(1, 2)), 1.0, atol=1e-3)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(example["image"]))))
    assert tuple(pixels[-1, -1]) == run_cases.COLOURS["red"]
