from __future__ import annotations

import base64
import io
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmjax.fusion.co_attention import CoAttention
from mmjax.reports.attention import attention_examples, on_grid, text_to_image_weights, words_of
from mmjax.reports.gallery import attention
from mmjax.types import Features


class TinyModel(nn.Module):
    """Words and the pixels of a 2 x 3 image as tokens, fused by `depth` layers of co-attention."""

    depth: int = 2

    @nn.compact
    def __call__(self, batch, *, train: bool = False):
        words = nn.Embed(11, 8, name="words")(batch["text"])
        patches = batch["image"].reshape(batch["image"].shape[0], 6, 3)
        fusion = CoAttention(width=8, depth=self.depth, heads=2, name="fusion")
        text_mask = batch["text_mask"] & batch["text_present"][:, None]
        image_mask = jnp.ones((3, 6), bool) & batch["image_present"][:, None]
        return fusion(
            {
                "text": Features(words, text_mask, words.mean(axis=1)),
                "image": Features(patches, image_mask, patches.mean(axis=1)),
            },
            train=train,
        ).pooled


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "text": rng.integers(0, 11, (3, 4)),
        "text_mask": np.array([[1, 1, 1, 0]] * 3, bool),
        "text_present": np.array([True, True, False]),
        "image": rng.normal(size=(3, 2, 3, 3)).astype(np.float32),
        "image_present": np.array([True, True, True]),
    }


@pytest.fixture(scope="module")
def variables(batch):
    return jax.jit(TinyModel().init)(jax.random.key(0), batch)


PIXELS = np.zeros((3, 8, 12, 3), np.uint8)


def test_weights_are_those_of_the_last_layer(batch, variables):
    """They differ from those of a model that stops one layer before, and sum to one."""
    found = text_to_image_weights(TinyModel(), variables, batch, "text", "image")
    first = text_to_image_weights(TinyModel(depth=1), variables, batch, "text", "image")
    assert found.shape == (3, 4, 6)
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, rtol=1e-5)
    assert np.abs(found - first).max() > 1e-3


def test_artifact_holds_the_words_and_examples_that_are_there(batch, variables):
    words = [[("a", [0]), ("red", [1, 2])], [("dog", [0])], [("gone", [0])]]
    artifact = attention_examples(TinyModel(), variables, batch, words, PIXELS)
    assert [example["tokens"] for example in artifact["examples"]] == [["a", "red"], ["dog"]]
    weights = text_to_image_weights(TinyModel(), variables, batch, "text", "image")
    expected = np.stack([weights[0, 0], weights[0, 1:3].mean(axis=0)]).reshape(2, 2, 3)
    np.testing.assert_allclose(artifact["examples"][0]["weights"], expected, atol=1e-5)
    picture = Image.open(io.BytesIO(base64.b64decode(artifact["examples"][0]["image"])))
    assert picture.size == (12, 8)
    assert "dog" in attention(json.loads(json.dumps(artifact)))


class Pieces:
    """Tokens of WordPiece, whose ids are their places; 0 is padding and 1 the class token."""

    TOKENS = ("[PAD]", "[CLS]", "a", "fi", "##st", "don", "'", "##t")
    pad_id, cls_id = 0, 1

    def decode(self, ids):
        text = " ".join(self.TOKENS[i] for i in ids)
        return text.replace(" ##", "").replace(" '", "'")


def test_words_are_made_of_their_tokens():
    ids = np.array([[1, 2, 3, 4, 0], [1, 5, 6, 7, 2]])
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 0]], bool)
    assert words_of(ids, mask, Pieces()) == [
        [("a", [1]), ("fist", [2, 3])],
        [("don't", [1, 2, 3])],
    ]
    assert words_of(ids[:1], None, Pieces())[0][-1] == ("fist", [2, 3])


def test_rows_of_the_map_are_rows_of_the_image():
    weights = np.arange(6.0).reshape(1, 1, 6)
    np.testing.assert_array_equal(on_grid(weights, (8, 12))[0, 0], [[0, 1, 2], [3, 4, 5]])


def test_a_class_token_is_left_out():
    weights = np.arange(10.0).reshape(1, 1, 10)
    assert on_grid(weights, (32, 32))[0, 0, 0, 0] == 1


def test_tokens_that_are_no_grid_have_no_map(batch, variables):
    assert on_grid(np.ones((1, 1, 8)), (8, 12)) is None
    assert attention_examples(TinyModel(), variables, batch, [[("a", [0])]] * 3, PIXELS[:, :, :5]) is None


def test_a_fusion_without_this_attention_has_no_artifact(batch, variables):
    assert attention_examples(TinyModel(), variables, batch, [[("a", [0])]] * 3, PIXELS, text="audio") is None


def test_no_words_no_artifact(batch, variables):
    assert attention_examples(TinyModel(), variables, batch, [[], [], []], PIXELS) is None
