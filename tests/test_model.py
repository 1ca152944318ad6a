"""The model: names and shapes, missing streams, shared encoders, and what a config is refused for."""

from __future__ import annotations

import copy
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mmjax import components, schema
from mmjax.errors import ConfigError
from mmjax.model import build_model, fill_from_data, init_model, output_shapes
from mmjax.parallel.placement import named_leaves
from mmjax.types import Features


class Rows(nn.Module):
    """Each row of pixels is a token."""

    width: int = 6
    dtype: Any = jnp.float32
    remat: Any = None

    @nn.compact
    def __call__(self, x, mask=None, *, train=False):
        tokens = nn.Dense(self.width, dtype=self.dtype)(x.reshape(*x.shape[:2], -1))
        tokens = nn.BatchNorm(not train, name="norm")(tokens)
        return Features(tokens, jnp.ones(tokens.shape[:2], bool), tokens.mean(axis=1))


class Words(nn.Module):
    """An embedding per word."""

    width: int = 5
    vocab_size: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, mask=None, *, train=False):
        tokens = nn.Embed(self.vocab_size, self.width, dtype=self.dtype)(x)
        mask = jnp.ones(x.shape, bool) if mask is None else mask
        return Features(tokens, mask, (tokens * mask[:, :, None]).sum(axis=1))


class Around(nn.Module):
    """Another encoder, held in a field."""

    inner: components.component("encoders")

    @nn.compact
    def __call__(self, x, mask=None, *, train=False):
        return self.inner(x, mask, train=train)


ENCODERS = {"rows": Rows, "words": Words, "around": Around}

IMAGE = {"kind": "image", "encoder": {"type": "rows"}}
TEXT = {"kind": "text", "encoder": {"type": "around", "inner": {"type": "words"}}}
SPEC = {
    "image": ((4, 3, 1), np.float32),
    "image_present": ((), np.bool_),
    "text": ((3,), np.int32),
    "text_mask": ((3,), np.bool_),
    "text_present": ((), np.bool_),
    "group_id": ((), np.int32),
    "example_mask": ((), np.bool_),
}


@pytest.fixture(autouse=True)
def toy_encoders(monkeypatch):
    monkeypatch.setitem(components.ROOMS, "encoders", f"{__name__}:ENCODERS")


def make_config(**model):
    """A whole config, as far as the model looks at it, before sizes are filled."""
    heads = {
        "group": {"type": "classifier", "label": "group_id"},
        "image_embedding": {"type": "projection", "reads": "image", "width": 4},
        "text_embedding": {"type": "projection", "reads": "text", "width": 4},
        "scale": {"type": "learned_scale"},
        "words": {"type": "token_logits", "stream": "text"},
    }
    sections = {
        "streams": {"image": IMAGE, "text": TEXT},
        "fusion": {"type": "concat", "width": 8},
        "heads": heads,
    }
    section = components.normalise(sections | model, schema.Model, "model")
    numerics = {"dtype": "float32", "remat": False, "scan": False}
    data = {"labels": {"group_id": "group"}, "eval": {"test": {"labels": {"genus": "genus"}}}}
    return {"model": section, "data": data, **numerics}


def build(spec=SPEC, dtype="float32", remat=False, **model):
    config = fill_from_data(make_config(**model), {"text": 11}, {"group_id": 3})
    return build_model(config | {"dtype": dtype, "remat": remat}, spec)


def make_batch(batch=8, seed=0):
    """Rows: everything; no text; no image; nothing; and everything again."""
    keys = jax.random.split(jax.random.key(seed), 2)
    return {
        "image": jax.random.normal(keys[0], (batch, 4, 3, 1)),
        "image_present": jnp.ones(batch, bool).at[jnp.array([2, 3])].set(False),
        "text": jax.random.randint(keys[1], (batch, 3), 0, 11),
        "text_mask": jnp.ones((batch, 3), bool).at[0, 2].set(False),
        "text_present": jnp.ones(batch, bool).at[jnp.array([1, 3])].set(False),
        "group_id": jnp.zeros(batch, jnp.int32),
        "example_mask": jnp.ones(batch, bool),
    }


def assert_close(a, b, **tolerances):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerances), a, b)


SHAPES = {
    "image/tokens": (8, 4, 6),
    "image/mask": (8, 4),
    "image/pooled": (8, 6),
    "text/tokens": (8, 3, 5),
    "text/mask": (8, 3),
    "text/pooled": (8, 5),
    "fused/tokens": (8, 7, 8),
    "fused/mask": (8, 7),
    "fused/pooled": (8, 8),
    "group": (8, 3),
    "image_embedding": (8, 4),
    "text_embedding": (8, 4),
    "scale": (),
    "words": (8, 3, 11),
}


def test_names_and_shapes_of_outputs_and_parameters():
    model = build()
    variables = init_model(model, SPEC, jax.random.key(0))
    outputs = jax.jit(model.apply)(variables, make_batch())
    assert {name: value.shape for name, value in outputs.items()} == SHAPES
    assert {name: s.shape for name, s in output_shapes(model, SPEC, batch=8).items()} == SHAPES
    assert set(variables) == {"params", "batch_stats"}
    assert set(variables["params"]) == {
        "image_encoder",
        "text_encoder",
        "fusion",
        "group_head",
        "image_embedding_head",
        "text_embedding_head",
        "scale_head",
        "words_head",
    }
    assert "text_encoder/inner/Embed_0/embedding" in dict(named_leaves(variables["params"]))


def test_variables_are_strong_float32_and_depend_on_the_key_alone():
    model = build()
    variables = init_model(model, SPEC, jax.random.key(0))
    for leaf in jax.tree.leaves(variables):
        assert leaf.dtype == jnp.float32 and not leaf.weak_type
    assert_close(init_model(model, SPEC, jax.random.key(0), batch=5), variables, rtol=0)
    other = init_model(model, SPEC, jax.random.key(1))["params"]["fusion"]["text_projection"]["kernel"]
    assert np.abs(other - variables["params"]["fusion"]["text_projection"]["kernel"]).max() > 0.01


def test_what_stands_in_a_missing_stream_changes_nothing():
    model, batch = build(), make_batch()
    variables = init_model(model, SPEC, jax.random.key(0))
    missing = {stream: ~batch[f"{stream}_present"] for stream in ("image", "text")}
    spoilt = batch | {
        "image": jnp.where(missing["image"][:, None, None, None], jnp.nan, batch["image"]),
        "text": jnp.where(missing["text"][:, None], 10, batch["text"]),
    }

    @jax.jit
    def step(params, batch):
        def loss(params):
            outputs = model.apply(variables | {"params": params}, batch)
            return sum((x**2).sum() for name, x in outputs.items() if "mask" not in name), outputs

        return jax.grad(loss, has_aux=True)(params)

    gradient, outputs = step(variables["params"], batch)
    assert_close(step(variables["params"], spoilt), (gradient, outputs), rtol=0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    for stream, rows in missing.items():
        for part in ("tokens", "mask", "pooled"):
            assert not outputs[f"{stream}/{part}"][rows].any()
        assert not outputs[f"{stream}_embedding"][rows].any()


def test_a_stream_without_presence_is_there_in_every_row():
    model, batch = build(), make_batch()
    variables = init_model(model, SPEC, jax.random.key(0))
    for stream in ("image", "text"):
        batch[f"{stream}_present"] = jnp.ones(8, bool)
    without = {name: value for name, value in batch.items() if not name.endswith("_present")}
    apply = jax.jit(model.apply)
    assert_close(apply(variables, without), apply(variables, batch), rtol=1e-6)


def test_encode_runs_some_streams_and_the_heads_that_read_only_them():
    model, batch = build(), make_batch()
    variables = init_model(model, SPEC, jax.random.key(0))
    texts = {name: batch[name] for name in ("text", "text_mask")}
    outputs = model.apply(variables, texts, ["text"], method="encode")
    assert set(outputs) == {"text/tokens", "text/mask", "text/pooled", "text_embedding", "scale"}
    whole = model.apply(variables, batch)
    present = batch["text_present"]
    assert_close(outputs["text_embedding"][present], whole["text_embedding"][present], rtol=1e-6)


def test_streams_that_share_an_encoder_share_its_parameters():
    config = make_config(
        streams={"left": {"kind": "image", "share": "right"}, "right": IMAGE}, fusion=None, heads={}
    )
    spec = {"left": SPEC["image"], "right": SPEC["image"]}
    model = build_model(config, spec)
    variables = init_model(model, spec, jax.random.key(0))
    assert set(variables["params"]) == {"right_encoder"}
    batch = make_batch()
    outputs = model.apply(variables, {"left": batch["image"], "right": batch["image"]})
    np.testing.assert_array_equal(outputs["left/pooled"], outputs["right/pooled"])

    def gradient(streams):
        def loss(params):
            images = {"left": batch["image"], "right": 2 * batch["image"]}
            outputs = model.apply(variables | {"params": params}, images)
            return sum((outputs[f"{stream}/tokens"] ** 2).sum() for stream in streams)

        return jax.grad(loss)(variables["params"])

    parts = jax.tree.map(jnp.add, gradient(["left"]), gradient(["right"]))
    assert_close(gradient(["left", "right"]), parts, rtol=1e-4, atol=1e-5)


def test_dtype_and_remat_reach_the_parts():
    model = build(dtype="bfloat16", remat=True, fusion={"type": "co_attention", "width": 8, "heads": 2})
    parts = [*model.encoders.values(), model.fusion, *model.heads.values()]
    dtypes = [part.dtype for part in parts if hasattr(part, "dtype")]
    assert dtypes == [jnp.bfloat16] * 6
    assert model.encoders["text"].inner.dtype == jnp.bfloat16
    assert model.encoders["image"].remat is True and model.fusion.remat is True
    shapes = output_shapes(model, SPEC)
    assert shapes["fused/tokens"].dtype == jnp.bfloat16
    assert shapes["group"].dtype == shapes["text_embedding"].dtype == jnp.float32


def test_attention_of_the_fusion_can_be_asked_for():
    model = build(fusion={"type": "co_attention", "width": 8, "heads": 2, "depth": 1})
    variables = jax.eval_shape(lambda: init_model(model, SPEC, jax.random.key(0)))
    asked = jax.eval_shape(lambda v: model.apply(v, make_batch(), mutable=["intermediates"])[1], variables)
    maps = {path: leaf.shape for path, leaf in named_leaves(asked["intermediates"]) if "_to_" in path}
    assert maps == {
        "fusion/layers_0/image_to_text/attention/0": (8, 2, 4, 3),
        "fusion/layers_0/text_to_image/attention/0": (8, 2, 3, 4),
    }


def test_batch_statistics_move_in_training_only():
    model = build()
    variables = init_model(model, SPEC, jax.random.key(0))
    before = variables["batch_stats"]
    for train in (False, True):
        _, state = model.apply(variables, make_batch(), train=train, mutable=["batch_stats"])
        moved = jax.tree.map(lambda a, b: bool(np.abs(a - b).max() > 0), state["batch_stats"], before)
        assert jax.tree.leaves(moved) == [train, train]


def test_sharded_over_eight_devices_equals_one():
    model, batch = build(), make_batch()
    variables = init_model(model, SPEC, jax.random.key(0))

    @jax.jit
    def step(variables, batch):
        def loss(params):
            outputs = model.apply(variables | {"params": params}, batch)
            similarity = outputs["scale"] * outputs["image_embedding"] @ outputs["text_embedding"].T
            return (outputs["group"] ** 2).mean() + nn.log_softmax(similarity).trace()

        return jax.value_and_grad(loss)(variables["params"])

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    placed = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    assert_close(step(replicated, placed), step(variables, batch), rtol=1e-4, atol=1e-5)


def test_sizes_are_filled_in_a_copy():
    config = make_config()
    filled = fill_from_data(config, {"text": 11, "image": 3}, {"group_id": 3, "unused": 7})
    assert filled["model"]["streams"]["text"]["encoder"]["inner"]["vocab_size"] == 11
    assert filled["model"]["heads"]["group"]["num_classes"] == 3
    assert filled["model"]["heads"]["words"]["vocab_size"] == 11
    assert config["model"]["heads"]["group"]["num_classes"] == 0
    assert fill_from_data(filled, {}, {}) == filled  # nothing left to fill, what is set stays
    assert fill_from_data(ConfigDict(config), {"text": 11}, {"group_id": 3}).to_dict() == filled


@pytest.mark.parametrize(
    ("vocab_sizes", "class_counts", "fragments"),
    [
        (
            {},
            {"group_id": 3},
            ["model.streams.text.encoder.inner.vocab_size: is 0", "tokenizer of stream 'text'"],
        ),
        ({"text": 11}, {"group_ids": 3}, ["model.heads.group.num_classes: is 0", "did you mean 'group_ids'"]),
    ],
)
def test_sizes_that_the_data_does_not_give_are_errors(vocab_sizes, class_counts, fragments):
    with pytest.raises(ConfigError) as error:
        fill_from_data(make_config(), vocab_sizes, class_counts)
    assert all(fragment in str(error.value) for fragment in fragments)
    with pytest.raises(ConfigError, match="vocab_size: is 0"):
        build_model(make_config(), SPEC)


def test_only_text_has_a_vocabulary():
    # An `rnn` that reads vectors keeps its vocab_size at 0.
    streams = {"image": {"kind": "image", "encoder": {"type": "words"}}}
    config = make_config(streams=streams, heads={})
    assert fill_from_data(config, {}, {}) == config


def test_a_shared_encoder_needs_one_vocabulary():
    words = {"kind": "text", "encoder": {"type": "words"}}
    config = make_config(streams={"de": {"kind": "text", "share": "en"}, "en": words}, heads={})
    filled = fill_from_data(config, {"de": 11, "en": 11}, {})
    assert filled["model"]["streams"]["en"]["encoder"]["vocab_size"] == 11
    with pytest.raises(ConfigError, match="model.streams.de.share: 'de' has a vocabulary of 12, 'en' of 11"):
        fill_from_data(config, {"de": 12, "en": 11}, {})


@pytest.mark.parametrize(
    ("path", "value", "fragments"),
    [
        ("streams", {}, ["model.streams: is empty"]),
        ("streams.fused", IMAGE, ["model.streams.fused: 'fused' cannot be a name"]),
        ("streams.a/b", IMAGE, ["'a/b' cannot be a name"]),
        ("streams.images", IMAGE, ["model.streams.images: 'images' is not there (did you mean 'image'?)"]),
        ("streams.image", {"kind": "image"}, ["model.streams.image: has no encoder"]),
        ("streams.image", IMAGE | {"share": "text"}, ["both encoder and share"]),
        ("streams.image", {"kind": "image", "share": "txt"}, ["streams.image.share", "did you mean 'text'"]),
        ("streams.image", {"kind": "image", "share": "image"}, ["streams.image.share: 'image' is not there"]),
        ("streams.image", {"kind": "image", "share": "text"}, ["'text' is text and 'image' is image"]),
        ("streams.image", IMAGE | {"kind": "audio"}, ["float32 [4, 3, 1]", "floats [T, C] for kind 'audio'"]),
        (
            "streams.image",
            IMAGE | {"kind": "text"},
            ["the data gives float32 [4, 3, 1]", "whole numbers [L]"],
        ),
        (
            "heads.group.reads",
            "txt",
            ["model.heads.group.reads: 'txt'", "did you mean 'text'", "image, text"],
        ),
        ("fusion", None, ["reads: is 'fused', but the model has no fusion", "image, text"]),
        ("heads.group.label", "groups", ["model.heads.group.label: 'groups'", "did you mean 'group_id'"]),
        ("heads.group_id", {"type": "learned_scale"}, ["model.heads.group_id: a label has this name too"]),
        ("heads.genus", {"type": "learned_scale"}, ["model.heads.genus: a label has this name too"]),
        ("heads.text", {"type": "learned_scale"}, ["model.heads.text: a stream has this name too"]),
        (
            "heads.words.stream",
            "image",
            ["heads.words.stream: 'image' is of kind 'image', expected kind 'text'"],
        ),
        ("heads.words.stream", "caption", ["heads.words.stream: 'caption' is not there"]),
        (
            "heads.late",
            {"type": "late_classifier", "label": "group_id", "reads": []},
            ["late.reads: is empty"],
        ),
        (
            "heads.late",
            {"type": "late_classifier", "label": "group_id", "reads": ["text", "text"]},
            ["late.reads: names 'text' twice"],
        ),
    ],
)
def test_models_that_do_not_fit_together_are_refused(path, value, fragments):
    raw = copy.deepcopy(make_config()["model"])
    *parents, last = path.split(".")
    node = raw
    for parent in parents:
        node = node[parent]
    node[last] = value
    with pytest.raises(ConfigError) as error:
        build(**raw)
    assert "\n" not in str(error.value)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_a_shared_encoder_is_named_where_it_stands():
    streams = {
        "a": IMAGE,
        "b": {"kind": "image", "share": "a"},
        "c": {"kind": "image", "share": "b"},
    }
    with pytest.raises(ConfigError, match="model.streams.c.share: 'b' has no encoder of its own; name 'a'"):
        build(dict.fromkeys(streams, SPEC["image"]), streams=streams, heads={})
