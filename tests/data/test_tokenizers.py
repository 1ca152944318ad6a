import hashlib
import os
import pickle
import subprocess
import sys

import pytest
import tokenizers as hf

from mmjax import components
from mmjax.data import tokenizers
from mmjax.data.source import ListSource
from mmjax.data.tokenizers import SPECIAL_TOKENS, Bpe, File, Tokenizer, WordPiece, Words
from mmjax.errors import ConfigError, DataError

NAMES = [
    "grinning face",
    "winking face",
    "red heart",
    "face with tears of joy",
    "Straße in Zürich",
    "日本の旗",
]


def names(count=200):
    records = [
        {
            "name": f"{NAMES[i % 6]} {i % 17}",
            "all": {"de": f"das {NAMES[i % 4]}", "fr": None},
            "more": ["le", "la"],
        }
        for i in range(count)
    ]
    return ListSource([{**record, "number": 3} for record in records])


def train(component, folder, source=None):
    return Tokenizer.load(component.prepare(folder, source or names()))


@pytest.mark.parametrize("kind", [WordPiece, Bpe, Words])
def test_special_tokens(kind, tmp_path):
    tokenizer = train(kind(["name"], 400), tmp_path)
    ids = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id]
    ids += [tokenizer.mask_id, tokenizer.bos_id, tokenizer.eos_id]
    assert ids == list(range(7))
    assert [tokenizer.token(i) for i in ids] == list(SPECIAL_TOKENS)
    encoded = tokenizer.encode("[PAD] face [EOS]")
    assert min(encoded) >= (7 if kind is Bpe else 1)  # special tokens cannot be written in a text
    assert tokenizer.decode([tokenizer.bos_id, *tokenizer.encode("face"), tokenizer.pad_id]) == "face"


@pytest.mark.parametrize("text", ["grinning face 3", "never seen: xq!", "ein 日本 Zürich", ""])
def test_bpe_gives_any_text_back(text, tmp_path):
    tokenizer = train(Bpe(["name"], 400), tmp_path)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unk_id not in tokenizer.encode(text)


def test_wordpiece(tmp_path):
    tokenizer = train(WordPiece(["name"], 400), tmp_path)
    assert tokenizer.encode("Grinning FACE") == tokenizer.encode("grinning face")
    assert len(tokenizer.encode("grinning face")) == 2
    assert tokenizer.decode(tokenizer.encode("Straße in Zürich")) == "straße in zürich"
    assert tokenizer.encode("ж") == [tokenizer.unk_id]
    cased = train(WordPiece(["name"], 400, lowercase=False), tmp_path)
    assert cased.encode("Zürich") != cased.encode("zürich")
    merged = {tokenizer.token(i) for i in range(tokenizer.vocab_size)}
    assert {"face", "heart", "日", "##ü"} <= merged


@pytest.mark.parametrize(("kind", "sizes"), [(WordPiece, (90, 100)), (Bpe, (270, 300))])
def test_sizes(kind, sizes, tmp_path):
    for size in sizes:
        tokenizer = train(kind(["name"], size), tmp_path)
        assert tokenizer.vocab_size == size
        assert len({tokenizer.token(i) for i in range(size)}) == size


def test_wordpiece_keeps_all_characters(tmp_path):
    tokenizer = train(WordPiece(["name"], 20), tmp_path)
    assert tokenizer.vocab_size > 20
    assert tokenizer.unk_id not in tokenizer.encode(" ".join(NAMES))


def test_words(tmp_path):
    tokenizer = train(Words(["name"]), tmp_path)
    assert tokenizer.encode("Grinning-FACE!") == tokenizer.encode("grinning face")
    assert tokenizer.decode(tokenizer.encode("Straße in Zürich")) == "straße in zürich"
    unseen = tokenizer.encode("grinning faces")
    assert unseen == [*tokenizer.encode("grinning"), tokenizer.unk_id]  # no pieces of the unseen word
    cased = train(Words(["name"], lowercase=False), tmp_path)
    assert cased.encode("zürich") == [cased.unk_id] != cased.encode("Zürich")


def test_words_keeps_the_most_frequent(tmp_path):
    rare = ListSource([{"name": text} for text in ("a cat", "a dog", "a cat and a bird")])
    special = len(SPECIAL_TOKENS)
    tokenizer = train(Words(["name"], special + 2), tmp_path, rare)
    assert [tokenizer.token(i) for i in range(special, tokenizer.vocab_size)] == ["a", "cat"]
    tokenizer = train(Words(["name"], min_frequency=2), tmp_path, rare)
    assert tokenizer.vocab_size == special + 2
    with pytest.raises(ConfigError, match="words.vocab_size"):
        Words(["name"], special)


def test_nested_and_listed_texts_are_trained_on(tmp_path):
    tokenizer = train(WordPiece(["all", "more"], 400), tmp_path)
    for word in ("das", "le", "la"):
        assert len(tokenizer.encode(word)) == 1 and tokenizer.encode(word) != [tokenizer.unk_id]


@pytest.mark.parametrize("kind", [WordPiece, Bpe, Words])
def test_the_same_data_gives_the_same_bytes_in_every_process(kind, tmp_path):
    """The library's trainers number some tokens in the order of a hash table that each process shuffles."""
    code = (
        "import hashlib, pathlib, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_tokenizers import *\n"
        f"path = {kind.__name__}(['name', 'all'], 330).prepare(pathlib.Path(sys.argv[1]), names(5000))\n"
        "print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())\n"
        "assert 'jax' not in sys.modules\n"
    )
    path = kind(["name", "all"], 330).prepare(tmp_path / "here", names(5000))
    here = f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    for threads in ("1", "4"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / threads), os.path.dirname(__file__)],
            capture_output=True,
            text=True,
            env=os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == here


def test_trained_once_for_each_data_and_setting(tmp_path, monkeypatch):
    component = WordPiece(["name"], 300)
    path = component.prepare(tmp_path, names())
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(tokenizers, "_texts", lambda *_: pytest.fail("trained again"))
    assert component.prepare(tmp_path, names()) == path and path.stat().st_mtime_ns == before
    monkeypatch.undo()
    others = [WordPiece(["name"], 301), WordPiece(["all"], 300), Bpe(["name"], 300)]
    paths = {other.prepare(tmp_path, names()) for other in others} | {component.prepare(tmp_path, names(100))}
    assert len(paths | {path}) == 5


def test_save_load_and_pickle(tmp_path):
    tokenizer = train(Bpe(["name"], 300), tmp_path)
    tokenizer.save(tmp_path / "run" / "text.json")
    for copy in (Tokenizer.load(tmp_path / "run" / "text.json"), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.encode("winking face") == tokenizer.encode("winking face")
        assert copy.fingerprint == tokenizer.fingerprint and copy.eos_id == tokenizer.eos_id
    assert hf.Tokenizer.from_file(str(tmp_path / "run" / "text.json")).encode("face").ids == tokenizer.encode(
        "face"
    )


def file_of(tokens, tmp_path, template=None):
    model = hf.models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=tokens[0])
    backend = hf.Tokenizer(model)
    backend.pre_tokenizer = hf.pre_tokenizers.Whitespace()
    backend.add_special_tokens([token for token in tokens if not token.isalpha()])
    if template:
        backend.post_processor = hf.processors.TemplateProcessing(
            single=template, special_tokens=[(token, tokens.index(token)) for token in ("[CLS]", "[SEP]")]
        )
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    path = tmp_path / "tokenizer.json"
    backend.save(str(path))
    return Tokenizer.load(File(str(path)).prepare(tmp_path, names(1)))


def test_files_in_the_style_of_bert(tmp_path):
    tokens = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    tokenizer = file_of(tokens, tmp_path, "[CLS] $A [SEP]")
    assert tokenizer.encode("a b a") == [5, 6, 5]
    assert tokenizer.encode("a b a", special=True) == [2, 5, 6, 5, 3]
    assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (1, 2, 3, 4)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (2, 3, 7)


def test_files_in_the_style_of_gpt2_and_clip(tmp_path):
    gpt2 = file_of(["a", "b", "<|endoftext|>"], tmp_path)
    assert (gpt2.pad_id, gpt2.bos_id, gpt2.eos_id, gpt2.mask_id, gpt2.cls_id) == (2, 2, 2, None, None)
    clip = file_of(["a", "<|startoftext|>", "<|endoftext|>"], tmp_path)
    assert (clip.pad_id, clip.bos_id, clip.eos_id) == (2, 1, 2)
    plain = file_of(["a", "b"], tmp_path)
    assert (plain.pad_id, plain.eos_id, plain.vocab_size) == (0, None, 2)


def test_errors(tmp_path):
    with pytest.raises(DataError, match="tokenizer: no file .*none.json"):
        File(str(tmp_path / "none.json")).prepare(tmp_path, names(1))
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match="bad.json is not a tokenizer.json"):
        File(str(tmp_path / "bad.json")).prepare(tmp_path, names(1))
    with pytest.raises(ConfigError, match="bpe.vocab_size: got 100, expected at least 263"):
        Bpe(["name"], 100)
    with pytest.raises(DataError, match="no feature 'nmae' .did you mean 'name'"):
        WordPiece(["nmae"]).prepare(tmp_path, names())
    with pytest.raises(ConfigError, match="'number' holds int, expected text"):
        WordPiece(["number"]).prepare(tmp_path, names())
    with pytest.raises(DataError, match=r"has no text in \['all.fr'\]"):
        WordPiece(["all.fr"]).prepare(tmp_path, names())


def test_config():
    spec = {"type": "wordpiece", "features": ["name"]}
    normal = components.normalise(spec, components.component("tokenizers"), "data.tokenizers.default")
    assert components.build("tokenizers", normal) == WordPiece(["name"])
