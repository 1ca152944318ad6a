"""Heads: shapes, values worked out by hand, and what a missing stream gives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import components
from mmjax.errors import ConfigError
from mmjax.heads import HEADS, entries
from mmjax.heads.classifier import Classifier, LateClassifier
from mmjax.heads.projection import Projection
from mmjax.heads.regressor import Regressor
from mmjax.heads.scalars import LearnedBias, LearnedScale
from mmjax.heads.token_logits import TokenLogits
from mmjax.types import Features

SIZES = {"image": (4, 6), "text": (3, 5), "fused": (7, 8)}
# Rows: everything, text only, image only, nothing.
MISSING = {"image": (1, 3), "text": (2, 3), "fused": (3,)}


def make_features(seed=0):
    made = {}
    for i, (name, (length, width)) in enumerate(SIZES.items()):
        tokens = jax.random.normal(jax.random.fold_in(jax.random.key(seed), i), (4, length, width))
        mask = jnp.ones((4, length), bool).at[jnp.array(MISSING[name])].set(False)
        tokens = jnp.where(mask[:, :, None], tokens, 0)
        made[name] = Features(tokens, mask, tokens.mean(axis=1))
    return made


def run(head):
    """(output, variables) of a fresh head on `make_features()`."""
    return jax.jit(head.init_with_output)(jax.random.key(1), make_features())


EXAMPLES = {
    "classifier": ({"label": "kind", "num_classes": 3, "hidden": [4]}, (4, 3)),
    "image_decoder": ({"height": 4, "width": 6, "filters": [2]}, (4, 4, 6, 3)),
    "late_classifier": ({"label": "kind", "reads": ["image", "text"], "num_classes": 3}, (4, 3)),
    "learned_bias": ({}, ()),
    "learned_scale": ({}, ()),
    "projection": ({"width": 5, "hidden": [4]}, (4, 5)),
    "regressor": ({"outputs": 2, "hidden": [4]}, (4, 2)),
    "token_logits": ({"stream": "text", "vocab_size": 11, "hidden": [4]}, (4, 3, 11)),
}


@pytest.mark.parametrize("name", HEADS)
def test_shape_dtype_and_gradients(name):
    settings, shape = EXAMPLES[name]
    spec = components.normalise({"type": name, **settings}, components.component("heads"), "head")
    head = components.build("heads", spec, dtype=jnp.bfloat16)
    output, variables = run(head)
    assert output.shape == shape and output.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    factors = jax.random.normal(jax.random.key(2), shape)
    gradient = jax.jit(jax.grad(lambda v: (head.apply(v, make_features()) * factors).sum()))(variables)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


def test_projection_with_hidden_layers_and_biases():
    head = Projection("text", 5, hidden=(4,), activation="relu", use_bias=True, normalise=False)
    embedding, variables = run(head)
    params = jax.tree.map(lambda x: x + 0.1, variables["params"])
    hidden, last = params["hidden"]["layers_0"], params["embedding"]
    pooled = make_features()["text"].pooled
    expected = nn.relu(pooled @ hidden["kernel"] + hidden["bias"]) @ last["kernel"] + last["bias"]
    got = head.apply({"params": params}, make_features())
    present = make_features()["text"].present
    np.testing.assert_allclose(got[present], expected[present], rtol=1e-5, atol=1e-6)
    assert embedding.shape == got.shape


def test_entries_of_modules_and_configs():
    assert entries(Classifier("kind")) == entries({"type": "classifier", "reads": "fused"}) == ["fused"]
    assert entries(LateClassifier("kind", ["image", "text"])) == ["image", "text"]
    assert entries(LearnedScale()) == entries({"type": "learned_scale"}) == []


def test_classifier_is_linear_in_the_entry_it_reads():
    logits, variables = run(Classifier("kind", "text", 3))
    dense = variables["params"]["logits"]
    np.testing.assert_allclose(logits, make_features()["text"].pooled @ dense["kernel"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "head",
    [Classifier("kind", "text", 3, [16], 0.5), Regressor("text", 2, [16], 0.5)],
    ids=["classifier", "regressor"],
)
def test_dropout_acts_in_training_only(head):
    quiet, variables = run(head)
    rngs = {"dropout": jax.random.key(0)}
    np.testing.assert_allclose(head.apply(variables, make_features(), rngs=rngs), quiet, rtol=1e-5, atol=1e-6)
    noisy = head.apply(variables, make_features(), train=True, rngs=rngs)
    assert np.abs(noisy - quiet).max() > 0.01


COMBINATIONS = ["mean_probability", "mean_logit", "product", "weighted_probability", "weighted_product"]


def late(combine, image, text, *, image_present=True, text_present=True, probability="softmax", weights=None):
    """The combined logits of one row whose two classifiers give `image` and `text`."""

    def entry(logits, present):
        mask = jnp.full((1, 1), present)
        return Features(jnp.array([[logits]]), mask, jnp.array([logits]))

    n = len(image)
    head = LateClassifier("kind", ["image", "text"], n, combine, probability)
    identity = {"kernel": jnp.eye(n), "bias": jnp.zeros(n)}
    features = {"image": entry(image, image_present), "text": entry(text, text_present)}
    params = {"image_logits": identity, "text_logits": identity}
    if combine.startswith("weighted"):
        image_weight, text_weight = weights or (0.25, 0.75)
        params |= {"image_weight": jnp.log(image_weight), "text_weight": jnp.log(text_weight)}
    return head.apply({"params": params}, features)[0]


IMAGE, TEXT = [2.0, 0.0, -1.0], [-1.0, 1.0, 0.5]


def _softmax(x):
    return np.exp(x) / np.exp(x).sum()


def test_late_fusion_of_probabilities_logits_and_experts():
    image, text = _softmax(IMAGE), _softmax(TEXT)
    mean = late("mean_probability", IMAGE, TEXT)
    np.testing.assert_allclose(_softmax(mean), (image + text) / 2, rtol=1e-5)
    np.testing.assert_allclose(late("mean_logit", IMAGE, TEXT), [0.5, 0.5, -0.25], rtol=1e-6)
    product = late("product", IMAGE, TEXT)
    np.testing.assert_allclose(_softmax(product), image * text / (image * text).sum(), rtol=1e-5)


def test_late_fusion_with_weights():
    image, text = _softmax(IMAGE), _softmax(TEXT)
    mean = late("weighted_probability", IMAGE, TEXT)
    np.testing.assert_allclose(_softmax(mean), 0.25 * image + 0.75 * text, rtol=1e-5)
    product = image**0.25 * text**0.75
    weighted = late("weighted_product", IMAGE, TEXT)
    np.testing.assert_allclose(_softmax(weighted), product / product.sum(), rtol=1e-5)


def test_weights_start_equal():
    for weighted, equal in (("weighted_probability", "mean_probability"), ("weighted_product", "mean_logit")):
        logits, variables = run(LateClassifier("kind", ["image", "text"], 3, weighted))
        params = {name: p for name, p in variables["params"].items() if not name.endswith("_weight")}
        expected = LateClassifier("kind", ["image", "text"], 3, equal).apply(
            {"params": params}, make_features()
        )
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("combine", ["weighted_probability", "weighted_product"])
def test_weights_are_trained(combine):
    head = LateClassifier("kind", ["image", "text"], 3, combine)
    _, variables = run(head)
    loss = jax.jit(jax.grad(lambda v: (head.apply(v, make_features()) ** 2).sum()))
    gradient = loss(variables)["params"]
    assert gradient["image_weight"] != 0 and gradient["text_weight"] != 0


def test_late_fusion_of_independent_labels():
    def sigmoid(x):
        return 1 / (1 + np.exp(-np.asarray(x)))

    mean = late("mean_probability", IMAGE, TEXT, probability="sigmoid")
    np.testing.assert_allclose(sigmoid(mean), (sigmoid(IMAGE) + sigmoid(TEXT)) / 2, rtol=1e-5)
    weighted = late("weighted_probability", IMAGE, TEXT, probability="sigmoid")
    np.testing.assert_allclose(sigmoid(weighted), 0.25 * sigmoid(IMAGE) + 0.75 * sigmoid(TEXT), rtol=1e-5)
    extreme = late("mean_probability", [90.0], [90.0], probability="sigmoid")
    np.testing.assert_allclose(extreme, [90.0], rtol=1e-5)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_late_fusion_leaves_out_what_is_missing(combine):
    alone = late(combine, IMAGE, [np.nan] * 3, text_present=False)
    np.testing.assert_allclose(_softmax(alone), _softmax(IMAGE), rtol=1e-5)
    nothing = late(combine, IMAGE, TEXT, image_present=False, text_present=False)
    assert nothing.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_late_fusion_does_not_depend_on_the_order_of_its_entries(combine):
    head = LateClassifier("kind", ["image", "text"], 3, combine)
    logits, variables = run(head)
    turned = LateClassifier("kind", ["text", "image"], 3, combine)
    np.testing.assert_allclose(turned.apply(variables, make_features()), logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("combine", ["mean_probability", "weighted_probability"])
def test_gradients_of_late_fusion_are_finite_where_all_is_missing(combine):
    head = LateClassifier("kind", ["image", "text"], 3, combine)
    _, variables = run(head)
    gradient = jax.grad(lambda v: (head.apply(v, make_features()) ** 2).sum())(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_embeddings_have_length_one_and_are_zero_where_the_stream_is_missing():
    embeddings, variables = run(Projection("text", 5))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), [1, 1, 0, 0], rtol=1e-5)
    raw = Projection("text", 5, normalise=False).apply(variables, make_features())
    expected = make_features()["text"].pooled @ variables["params"]["embedding"]["kernel"]
    np.testing.assert_allclose(raw, expected, rtol=1e-5, atol=1e-6)

    def total(pooled):
        text = make_features()["text"].replace(pooled=pooled)
        return Projection("text", 5).apply(variables, {"text": text}).sum()

    gradient = jax.grad(total)(jnp.zeros((4, 5)))  # a vector of zeros in rows that are present
    assert np.isfinite(gradient).all() and not gradient[2:].any()


def test_learned_scale_starts_where_it_is_told_and_has_a_bound():
    scale, variables = run(LearnedScale())
    np.testing.assert_allclose(scale, 1 / 0.07, rtol=1e-6)
    np.testing.assert_allclose(variables["params"]["log_scale"], np.log(1 / 0.07), rtol=1e-6)
    above = {"params": {"log_scale": jnp.float32(5.0)}}
    np.testing.assert_allclose(LearnedScale().apply(above, {}), 100.0, rtol=1e-5)
    np.testing.assert_allclose(LearnedScale(maximum=None).apply(above, {}), np.exp(5.0), rtol=1e-5)


def test_a_scale_above_its_bound_can_come_back_but_not_rise():
    def gradient(log_scale, sign):
        def loss(x):
            return sign * LearnedScale().apply({"params": {"log_scale": x}}, {})

        return jax.grad(loss)(jnp.float32(log_scale))

    np.testing.assert_allclose(gradient(1.0, -1.0), -np.exp(1.0), rtol=1e-5)  # below: as if unbounded
    np.testing.assert_allclose(gradient(5.0, 1.0), 100.0, rtol=1e-5)  # descent lowers it
    assert gradient(5.0, -1.0) == 0  # descent would raise it


def test_scale_settings_are_checked():
    with pytest.raises(ConfigError, match="learned_scale: got initial 200.0 and maximum 100.0"):
        LearnedScale(200.0).init(jax.random.key(0), {})
    with pytest.raises(ConfigError, match="0 < initial"):
        LearnedScale(0.0).init(jax.random.key(0), {})


def test_learned_bias_starts_at_minus_ten():
    bias, variables = run(LearnedBias())
    assert bias == -10.0 and variables["params"]["bias"].shape == ()


@pytest.mark.parametrize("reads", ["text", "fused"])
def test_token_logits_are_those_of_the_streams_tokens(reads):
    features = make_features()
    logits, variables = run(TokenLogits("text", reads, 11))
    # The fused tokens are the image's four, then the text's three.
    tokens = features["text"].tokens if reads == "text" else features["fused"].tokens[:, 4:]
    dense = variables["params"]["logits"]
    np.testing.assert_allclose(logits, tokens @ dense["kernel"] + dense["bias"], rtol=1e-5, atol=1e-6)
