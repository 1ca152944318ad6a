"""Losses and gradients of whole models on every kind of mesh equal those of one device."""

import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import components
from mmjax.encoders.text_transformer import TextTransformer
from mmjax.encoders.vit import ViT
from mmjax.layers.transformer import BlockSettings, Transformer
from mmjax.model import Model
from mmjax.parallel import placement
from mmjax.parallel.mesh import AXES, activation_rules, batch_sharding, make_mesh, replicated
from mmjax.parallel.placement import named_leaves, param_shardings
from mmjax.training.gradients import make_gradient_function

BATCH, WIDTH, VOCABULARY, LENGTH = 8, 8, 12, 6
SIZE = {"variant": "custom", "width": WIDTH, "depth": 1, "heads": 2}

# Devices along data, fsdp, tensor and sequence.
MESHES = [(8, 1, 1, 1), (2, 4, 1, 1), (2, 2, 2, 1), (2, 1, 2, 2), (1, 2, 2, 2), (4, 1, 1, 2), (2, 1, 1, 4)]


def part(room, **section):
    name = section.pop("name")
    return components.build(room, section).clone(name=name)


def encoders():
    """Of 17 and 6 tokens: the class token makes a length that no mesh divides."""
    return {
        "image": ViT(**SIZE, patch_size=4, pooling="cls", name="image_encoder"),
        "text": TextTransformer(**SIZE, vocab_size=VOCABULARY, max_length=LENGTH, name="text_encoder"),
    }


def two_towers(loss):
    """Embeddings that are contrasted."""
    heads = {
        f"{stream}_embedding": part(
            "heads", type="projection", reads=stream, width=WIDTH, name=f"{stream}_embedding_head"
        )
        for stream in ("image", "text")
    }
    model = Model({"image": "image", "text": "text"}, encoders(), None, heads)
    section = {"type": loss, "a": "image_embedding", "b": "text_embedding", "streams": []}
    return model, {"contrastive": components.build("objectives", section)}


def fused():
    """Text tokens that look at image tokens, and a classifier of what comes out."""
    fusion = part(
        "fusions", type="cross_attention", query="text", width=WIDTH, depth=1, heads=2, name="fusion"
    )
    logits = part("heads", type="classifier", label="label", num_classes=3, reads="fused", name="logits_head")
    model = Model({"image": "image", "text": "text"}, encoders(), fusion, {"logits": logits})
    section = {"type": "cross_entropy", "logits": "logits", "label": "label"}
    return model, {"class": components.build("objectives", section)}


class Captioner(nn.Module):
    """Image tokens, and a causal decoder of words that looks at them; logits of the next word."""

    @nn.compact
    def __call__(self, batch, *, train=False):
        image = encoders()["image"](batch["image"], train=train)
        tokens = nn.Embed(VOCABULARY, WIDTH, name="embedding")(batch["text"])
        settings = BlockSettings(WIDTH, heads=2, causal=True, cross_attention=True, rotary=True)
        decoder = Transformer(1, settings, name="decoder")
        tokens = decoder(tokens, batch["text_mask"], train, image.tokens, image.mask)
        return {"words": nn.Dense(VOCABULARY, name="logits")(tokens)}


def encoder_decoder():
    section = {"type": "cross_entropy", "logits": "words", "label": "next"}
    return Captioner(), {"words": components.build("objectives", section)}


MODELS = {
    "two towers, infonce": functools.partial(two_towers, "infonce"),
    "two towers, sigmoid": functools.partial(two_towers, "sigmoid"),
    "fused": fused,
    "encoder-decoder": encoder_decoder,
}


def make_batch():
    rng = np.random.default_rng(0)
    words = rng.integers(1, VOCABULARY, (BATCH, LENGTH + 1)).astype(np.int32)
    real = np.arange(LENGTH) < rng.integers(2, LENGTH + 1, BATCH)[:, None]
    present = np.arange(BATCH) != 5
    return {
        "image": rng.normal(size=(BATCH, 16, 16, 3)).astype(np.float32),
        "text": words[:, :-1],
        "text_mask": real & present[:, None],
        "next": np.where(real & present[:, None], words[:, 1:], -1).astype(np.int32),
        "label": rng.integers(0, 3, BATCH).astype(np.int32),
        "example_mask": np.arange(BATCH) != 2,
    }


@functools.cache
def initial(name):
    model, _ = MODELS[name]()
    params = jax.jit(model.init)(jax.random.key(1), make_batch())["params"]
    # No parameter is at its initial zero, where a wrong gradient of another may hide.
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda x: np.asarray(x + 0.1 * rng.normal(size=x.shape), np.float32), params)


@functools.cache
def loss_and_gradients(name, sizes=(1, 1, 1, 1), accumulate_steps=1):
    model, objectives = MODELS[name]()
    mesh = make_mesh(dict(zip(AXES, sizes, strict=True)), jax.devices()[: math.prod(sizes)])
    shardings = param_shardings(initial(name), mesh, min_size=16)
    function = make_gradient_function(model, objectives, shardings, accumulate_steps=accumulate_steps)

    def run(params, batch):
        with activation_rules(mesh):
            result = function(params, {}, batch, jax.random.key(0))
        return result.loss, jax.lax.with_sharding_constraint(result.gradients, shardings)

    run = jax.jit(
        run, in_shardings=(shardings, batch_sharding(mesh)), out_shardings=(replicated(mesh), shardings)
    )
    return jax.tree.map(np.array, run(initial(name), make_batch()))


def assert_close(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    size = max(np.abs(x).max() for x in jax.tree.leaves(expected[1]))
    assert size > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * size), found[1], expected[1]
    )


CASES = [
    (name, sizes) for name in MODELS for sizes in MESHES if "sigmoid" not in name or sizes == (2, 1, 2, 2)
]


@pytest.mark.parametrize(("name", "sizes"), CASES, ids=str)
def test_equals_one_device(name, sizes):
    assert_close(loss_and_gradients(name, sizes), loss_and_gradients(name))


@pytest.mark.parametrize("remat", [False, True])
def test_blocks_that_gather_their_parameters_equal_one_device(monkeypatch, remat):
    """As those of large models do under `fsdp`, scanned and one by one."""
    monkeypatch.setattr(placement, "FSDP_MIN_SIZE", 16)
    mesh = make_mesh(dict(zip(AXES, (1, 4, 2, 1), strict=True)))
    x = np.random.default_rng(0).normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    for scan in (False, True):
        model = Transformer(2, BlockSettings(WIDTH, heads=2), remat=remat, scan=scan)
        variables = jax.jit(model.init)(jax.random.key(0), x)
        shardings = param_shardings(variables, mesh, min_size=16)
        assert any("fsdp" in s.spec for s in jax.tree.leaves(shardings))

        def total(variables, x, model=model):
            return jnp.sin(model.apply(variables, x)).sum()

        def on_mesh(variables, x, total=total):
            with activation_rules(mesh):
                return jax.value_and_grad(total)(variables, x)

        run = jax.jit(
            on_mesh,
            in_shardings=(shardings, batch_sharding(mesh)),
            out_shardings=(replicated(mesh), shardings),
        )
        text = run.lower(variables, x).compile().as_text()
        shapes = re.findall(r"= f32\[([\d,]+)\][^=]* all-gather", text)
        gathered = [sorted(int(n) for n in shape.split(",") if n != "1") for shape in shapes]
        assert [WIDTH, 2 * WIDTH] in gathered  # the kernels of the MLP: whole along fsdp, split over tensor
        assert_close(
            jax.tree.map(np.array, run(variables, x)), jax.jit(jax.value_and_grad(total))(variables, x)
        )


@pytest.mark.parametrize("name", ["two towers, sigmoid", "encoder-decoder"])
def test_microbatches_on_split_tokens_equal_one_device(name):
    assert_close(loss_and_gradients(name, (2, 1, 2, 2), accumulate_steps=2), loss_and_gradients(name))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_compared_is_not_zero(name):
    _, gradients = loss_and_gradients(name)
    for path, gradient in named_leaves(gradients):
        # A vector that all keys have in common changes no softmax.
        assert path.endswith("key/bias") or np.abs(gradient).max() > 1e-6, path
