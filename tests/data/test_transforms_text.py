"""Text transforms: cleaning, tokenizing, masking."""

import numpy as np
import pytest
import tokenizers as hf
from transform_cases import make, run

from mmjax.data.tokenizers import Tokenizer
from mmjax.errors import ConfigError, DataError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]"]
WORDS = [f"w{i}" for i in range(93)]


def words_tokenizer(special=SPECIAL):
    vocabulary = {token: i for i, token in enumerate([*special, *WORDS])}
    backend = hf.Tokenizer(hf.models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = hf.pre_tokenizers.Whitespace()
    return Tokenizer(backend)


TOKENIZERS = {"default": words_tokenizer(), "plain": words_tokenizer(["[PAD]", "[UNK]"])}


def bound(name, **fields):
    return make(name, **fields).bind(TOKENIZERS)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("  a\t\tb\n c ", {}, "a b c"),
        ("ﬁne ２ Å", {}, "fine 2 Å"),
        ("Grün ÄÖ", {"lower": True}, "grün äö"),
        ("<p>One</p><p>two &amp; three</p>", {"strip_html": True}, "One two & three"),
        ("a<script>x = '<b>'</script>b<style>p{}</style>c", {"strip_html": True}, "a b c"),
        ("2 < 3 and <b>bold", {"strip_html": True}, "2 < 3 and bold"),
        ("2 < 3", {}, "2 < 3"),
        ("", {}, ""),
    ],
)
def test_clean_text(text, options, expected):
    assert run("clean_text", text, **options) == expected


@pytest.mark.parametrize("name", ["clean_text", "tokenize"])
def test_text_transforms_refuse_what_is_no_text(name):
    transform = make(name, max_length=4).bind(TOKENIZERS) if name == "tokenize" else make(name)
    with pytest.raises(DataError, match=rf"{name}: got bytes \(2\), expected text"):
        transform(b"ab", rng())
    with pytest.raises(DataError, match=rf"{name}: got a list of 2, .* choose or first"):
        transform(["a", "b"], rng())


def test_tokenize_adds_special_tokens_and_cuts_the_text_not_them():
    ids = bound("tokenize", max_length=10, start="cls", end="sep")("w0 w1 zzz", rng())
    np.testing.assert_array_equal(ids, [2, 7, 8, 1, 3])
    assert ids.dtype == np.int32
    ids = bound("tokenize", max_length=4, start="bos", end="eos")("w0 w1 w2 w3", rng())
    np.testing.assert_array_equal(ids, [5, 7, 8, 6])
    np.testing.assert_array_equal(bound("tokenize", max_length=2)("w0 w1 w2", rng()), [7, 8])
    assert bound("tokenize", max_length=2)("", rng()).shape == (0,)
    ids = bound("tokenize", max_length=4, start="bos", end="eos", cut="start")("w0 w1 w2 w3", rng())
    np.testing.assert_array_equal(ids, [5, 9, 10, 6])
    np.testing.assert_array_equal(bound("tokenize", max_length=2, cut="start")("w0", rng()), [7])


def test_padding_can_stand_on_the_left():
    made = run("pad", np.array([5, 6], np.int32), length=4, value=1, side="left")
    np.testing.assert_array_equal(made["value"], [1, 1, 5, 6])
    np.testing.assert_array_equal(made["mask"], [False, False, True, True])


def test_binding_names_what_is_missing():
    with pytest.raises(ConfigError, match=r"tokenize.tokenizer: got 'defualt' \(did you mean 'default'\?\)"):
        bound("tokenize", max_length=4, tokenizer="defualt")
    with pytest.raises(ConfigError, match="tokenize.start: the tokenizer 'plain' has no cls token"):
        bound("tokenize", max_length=4, start="cls", tokenizer="plain")
    with pytest.raises(ConfigError, match="mask_tokens.tokenizer: the tokenizer 'plain' has no mask token"):
        bound("mask_tokens", tokenizer="plain")
    with pytest.raises(ConfigError, match="tokenize.max_length: got 2, expected 3 or more"):
        make("tokenize", max_length=2, start="cls", end="sep")


def padded(ids, length=None):
    return run("pad", np.asarray(ids, np.int32), length=length or len(ids))


def test_mask_tokens_hides_the_rate_in_the_proportions_of_bert():
    given = padded([2, *rng(1).integers(7, 100, 198), 3], 220)
    mask_tokens = bound("mask_tokens")
    masked = changed = same = 0
    for seed in range(300):
        made = mask_tokens(given, rng(seed))
        is_target = made["targets"] >= 0
        assert is_target.sum() == round(0.15 * 198)
        np.testing.assert_array_equal(made["targets"][is_target], given["value"][is_target])
        np.testing.assert_array_equal(made["value"][~is_target], given["value"][~is_target])
        assert not is_target[[0, 199]].any() and not is_target[200:].any()
        assert made["targets"].dtype == np.int32
        np.testing.assert_array_equal(made["mask"], given["mask"])
        hidden = made["value"][is_target] == 4
        kept = made["value"][is_target] == given["value"][is_target]
        masked, same = masked + hidden.sum(), same + kept.sum()
        changed += (~hidden & ~kept).sum()
    total = 300 * 30
    # A random token is by chance the true one in 1 of 93.
    assert abs(masked / total - 0.8) < 0.015
    assert abs(changed / total - 0.1 * 92 / 93) < 0.012
    assert abs(same / total - (0.1 + 0.1 / 93)) < 0.012


def test_mask_tokens_replaces_by_every_token_that_is_not_special():
    given = padded([50] * 400)
    mask_tokens = bound("mask_tokens", rate=1.0)
    seen = set()
    for seed in range(30):
        seen |= set(mask_tokens(given, rng(seed))["value"].tolist())
    assert seen == {4, *range(7, 100)}


def test_mask_tokens_hides_at_least_one_and_only_real_tokens():
    made = bound("mask_tokens")(padded([2, 30, 3], 6), rng())
    np.testing.assert_array_equal(made["targets"], [-1, 30, -1, -1, -1, -1])
    made = bound("mask_tokens")(padded([2, 3], 4), rng())
    np.testing.assert_array_equal(made["targets"], [-1] * 4)
    np.testing.assert_array_equal(made["value"], [2, 3, 0, 0])


def test_spans_fill_the_budget_with_runs_of_tokens():
    given = padded(np.arange(100) % 93 + 7)
    mask_tokens = bound("mask_tokens", max_span=10)
    runs = []
    for seed in range(200):
        is_target = mask_tokens(given, rng(seed))["targets"] >= 0
        assert is_target.sum() == 15
        edges = np.flatnonzero(np.diff(np.r_[0, is_target, 0]))
        runs += list(edges[1::2] - edges[::2])
    # Single tokens would make about 13 runs of 15 targets; spans of mean 3.8 make far fewer.
    assert 2.5 < np.mean(runs) < 5.5
    assert bound("mask_tokens", max_span=10, rate=1.0)(given, rng())["targets"].min() >= 7


def test_a_span_is_hidden_as_one():
    given = padded(np.arange(100) % 93 + 7)
    mask_tokens = bound("mask_tokens", max_span=15)
    single = 0
    for seed in range(100):
        made = mask_tokens(given, rng(seed))
        is_target = made["targets"] >= 0
        edges = np.flatnonzero(np.diff(np.r_[0, is_target, 0])).reshape(-1, 2)
        for start, stop in edges:
            hidden = made["value"][start:stop] == 4
            single += hidden.all() or not hidden.any()  # neighbouring spans may differ
    assert single > 0.7 * 100 * 3


def test_mask_tokens_comes_after_pad_and_depends_on_the_generator_alone():
    with pytest.raises(DataError, match="mask_tokens: got an array .* put tokenize and pad before"):
        bound("mask_tokens")(np.arange(3), rng())
    given = padded(np.arange(7, 60))
    before = given["value"].copy()
    first, again, other = (bound("mask_tokens")(given, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["value"], again["value"])
    assert not np.array_equal(first["targets"], other["targets"])
    np.testing.assert_array_equal(given["value"], before)


def test_join_texts_leaves_out_what_is_missing_and_takes_lists_apart():
    assert run("join_texts", ["a cat", ["kitty", None], None, "Katze"]) == "a cat kitty Katze"
    assert run("join_texts", ["a", "b"], separator=", ") == "a, b"


def test_join_texts_keeps_some_in_order_and_at_least_one():
    parts = list("abcdef")
    joined = {run("join_texts", parts, seed=seed, keep=0.3) for seed in range(200)}
    assert all(text and text.split() == sorted(text.split()) for text in joined)
    kept = np.mean([len(run("join_texts", parts, seed=seed, keep=0.3).split()) for seed in range(500)])
    assert 1.6 < kept < 2.2  # 6 x 0.3, and never none
    assert {run("join_texts", ["x"], seed=seed, keep=0.01) for seed in range(20)} == {"x"}


def test_join_texts_refuses_what_is_no_list_of_texts():
    with pytest.raises(DataError, match="join_texts"):
        run("join_texts", "a cat")
    with pytest.raises(DataError, match="a list of texts"):
        run("join_texts", ["a", 3])
    with pytest.raises(ConfigError, match="join_texts.keep"):
        make("join_texts", keep=0.0)
