"""Embedding tables and logits over a vocabulary that is split over devices."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import components
from mmjax.heads.token_logits import TokenLogits
from mmjax.layers.embedding import TokenEmbedding
from mmjax.parallel.mesh import AXES, activation_rules, batch_sharding, make_mesh
from mmjax.parallel.placement import named_leaves, param_shardings
from mmjax.training.gradients import make_gradient_function
from mmjax.types import Features

BATCH, LENGTH, WIDTH, VOCABULARY = 8, 6, 16, 40
MESHES = [{"data": 2, "tensor": 4}, {"data": 2, "fsdp": 2, "tensor": 2}, {"tensor": 4, "sequence": 2}]


class Words(nn.Module):
    """Scores of every word from the word that stands there."""

    @nn.compact
    def __call__(self, batch, *, train=False):
        tokens = TokenEmbedding(VOCABULARY, WIDTH, name="embedding")(jnp.asarray(batch["text"]))
        features = {"text": Features(tokens, batch["text_mask"], tokens[:, 0])}
        head = TokenLogits("text", reads="text", vocab_size=VOCABULARY, name="word_head")
        return {"words": head(features, train=train)}


OBJECTIVES = {
    "words": components.build("objectives", {"type": "cross_entropy", "logits": "words", "label": "text"})
}


def make_batch():
    words = np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, LENGTH)).astype(np.int32)
    mask = np.arange(LENGTH) < np.arange(1, BATCH + 1)[:, None]
    return {"text": words, "text_mask": mask, "example_mask": np.ones(BATCH, bool)}


def compiled(sizes, devices=8):
    """(the compiled loss and gradients, their arguments) on a mesh."""
    mesh = make_mesh(dict.fromkeys(AXES, 1) | sizes, jax.devices()[:devices])
    params = Words().init(jax.random.key(0), make_batch())["params"]
    shardings = param_shardings(params, mesh, min_size=64)
    function = make_gradient_function(Words(), OBJECTIVES, shardings)

    def run(params, batch):
        with activation_rules(mesh):
            result = function(params, {}, batch, jax.random.key(0))
        return result.loss, result.metrics, result.gradients

    run = jax.jit(run, in_shardings=(shardings, batch_sharding(mesh)), out_shardings=(None, None, shardings))
    return run.lower(params, make_batch()).compile(), (params, make_batch()), shardings


def placed(run, arguments):
    return jax.tree.map(np.array, run(*jax.device_put(arguments, run.input_shardings[0])))


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_equals_one_device_and_gathers_no_table(sizes):
    run, arguments, shardings = compiled(sizes)
    split = {name for name, s in named_leaves(shardings) if "tensor" in s.spec}
    assert split == {"embedding/embedding", "word_head/logits/kernel", "word_head/logits/bias"}
    expected = placed(*compiled({}, devices=1)[:2])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, placed(run, arguments), expected)

    # Neither the table nor the logits are ever whole along the words; vectors of them may be.
    shapes = [tuple(map(int, found.split(","))) for found in re.findall(r"\w\[([\d,]+)\]", run.as_text())]
    assert any(VOCABULARY // sizes["tensor"] in shape for shape in shapes)
    assert not [shape for shape in shapes if len(shape) > 1 and VOCABULARY in shape]
