"""Views: the same model on other arrays, or without some streams."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import components, schema
from mmjax.errors import ConfigError
from mmjax.model import assemble, build_model, fill_from_data, init_model

STREAM = {"features": ["x"]}
VECTORS = {"kind": "audio", "encoder": {"type": "audio_cnn", "widths": [8]}}
SPEC = {
    "left": ((6, 3), np.float32),
    "left_mask": ((6,), np.bool_),
    "right": ((4, 3), np.float32),
    "left_2": ((6, 3), np.float32),
    "left_2_mask": ((6,), np.bool_),
}


def config(fusion="merged_attention", views=None):
    views = views or {
        "second": {"streams": {"left": "left_2"}},
        "left_alone": {"drop": ["right"]},
        "second_alone": {"streams": {"left": "left_2"}, "drop": ["right"]},
    }
    fusion = {"type": fusion, **({"width": 8, "depth": 1, "heads": 2} if fusion != "bottleneck" else {})}
    plain = {
        "data": {
            "train": {"type": "mnist1d"},
            "streams": {name: STREAM for name in ("left", "right", "left_2")},
        },
        "model": {
            "streams": {"left": VECTORS, "right": VECTORS},
            "fusion": fusion,
            "heads": {"embedding": {"type": "projection", "width": 5}},
            "views": views,
        },
        "objectives": {
            "contrast": {"type": "nt_xent", "a": "embedding", "b": "second/embedding", "streams": ["left"]}
        },
        "optimizer": {"method": {"type": "adamw"}, "schedule": {"type": "constant", "peak": 1e-3}},
        "total_steps": 1,
    }
    return components.normalise(plain, schema.Config, "")


def batch(rows=4):
    rng = np.random.default_rng(0)
    made = {
        name: rng.normal(size=(rows, *shape)).astype(dtype)
        if dtype == np.float32
        else np.ones((rows, *shape), bool)
        for name, (shape, dtype) in SPEC.items()
    }
    made["left_mask"][0, -2:] = made["left_2_mask"][1, -1:] = False
    return {**made, **{f"{name}_present": np.ones(rows, bool) for name in ("left", "right", "left_2")}}


@pytest.fixture(scope="module")
def model_and_variables():
    model = build_model(fill_from_data(config(), {}, {}), SPEC)
    return model, init_model(model, SPEC, jax.random.key(0))


def test_a_view_is_the_model_on_other_arrays(model_and_variables):
    model, variables = model_and_variables
    given = batch()
    outputs = jax.jit(model.apply)(variables, given)
    other = given | {f"left{part}": given[f"left_2{part}"] for part in ("", "_mask", "_present")}
    expected = jax.jit(model.apply)(variables, other)
    for name in ("embedding", "left/pooled", "left/mask", "fused/pooled"):
        np.testing.assert_allclose(outputs[f"second/{name}"], expected[name], rtol=1e-5, atol=1e-6)
        assert (np.asarray(outputs[f"second/{name}"]) != outputs[name]).any()


def test_a_dropped_stream_is_as_if_it_were_missing(model_and_variables):
    model, variables = model_and_variables
    given = batch()
    outputs = jax.jit(model.apply)(variables, given)
    missing = jax.jit(model.apply)(variables, given | {"right_present": np.zeros(4, bool)})
    for name in ("embedding", "fused/pooled", "fused/tokens", "right/pooled"):
        np.testing.assert_allclose(outputs[f"left_alone/{name}"], missing[name], rtol=1e-5, atol=1e-6)
    assert not outputs["second_alone/right/pooled"].any()


def test_views_have_no_parameters_of_their_own(model_and_variables):
    model, variables = model_and_variables
    assert set(variables["params"]) == {"left_encoder", "right_encoder", "fusion", "embedding_head"}
    plain = init_model(model.clone(views={}), SPEC, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, variables, plain)


def test_they_are_left_out_where_their_arrays_are_not_there(model_and_variables):
    model, variables = model_and_variables
    outputs = model.apply(variables, {k: v for k, v in batch().items() if not k.startswith("left_2")})
    assert "embedding" in outputs and "left_alone/embedding" in outputs
    assert not any(name.startswith("second") for name in outputs)


def test_an_encoder_that_several_views_read_is_computed_once(model_and_variables):
    """Its products are common subexpressions; only the fusion differs."""
    model, variables = model_and_variables

    def flops(model):
        step = jax.jit(lambda v, b: {k: x for k, x in model.apply(v, b).items() if k.endswith("left/pooled")})
        return step.lower(variables, batch()).compile().cost_analysis()["flops"]

    with_drop = model.clone(views={"left_alone": {"streams": {}, "drop": ["right"]}})
    assert flops(with_drop) < 1.2 * flops(model.clone(views={}))


def test_a_fusion_inside_the_encoders_takes_them_too():
    vit = {
        "type": "audio_transformer",
        "variant": "custom",
        "width": 8,
        "depth": 2,
        "heads": 2,
        "frames_per_token": 1,
    }
    plain = config("bottleneck", {"left_alone": {"drop": ["right"]}})
    plain["model"]["streams"] = {name: {**VECTORS, "encoder": vit} for name in ("left", "right")}
    plain["model"]["fusion"] |= {"bottlenecks": 2, "fusion_layer": 0}
    model = assemble(components.normalise(plain, schema.Config, "")["model"])
    given = batch()
    variables = model.init(jax.random.key(0), given)
    outputs = model.apply(variables, given)
    missing = model.apply(variables, given | {"right_present": np.zeros(4, bool)})
    np.testing.assert_allclose(outputs["left_alone/embedding"], missing["embedding"], rtol=1e-5, atol=1e-6)
    assert jnp.abs(outputs["left_alone/embedding"] - outputs["embedding"]).max() > 1e-3


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (
            {"streams": {"lef": "left_2"}},
            r"model.views.second.streams: 'lef' is not there \(did you mean 'left'",
        ),
        ({"streams": {"left": "left_3"}}, "model.views.second.streams.left: 'left_3' is not there"),
        ({"drop": ["left", "right"]}, "model.views.second.drop: drops every stream; leave at least one"),
        ({"drop": ["middle"]}, "model.views.second.drop: 'middle' is not there"),
        ({}, "model.views.second: is the model as it is; set streams, drop, or both"),
    ],
)
def test_wrong_views(view, message):
    with pytest.raises(ConfigError, match=message):
        fill_from_data(config(views={"second": view}), {}, {})


def test_a_view_cannot_have_the_name_of_a_stream():
    with pytest.raises(ConfigError, match="model.views.left: a stream has this name too"):
        fill_from_data(config(views={"left": {"drop": ["right"]}}), {}, {})


def test_the_arrays_of_a_view_have_the_shape_of_the_streams():
    spec = copy.deepcopy(SPEC) | {"left_2": ((5, 3), np.float32)}
    message = r"second.streams.left: 'left_2' is float32 \[5, 3\] per example, expected float32 \[6, 3\]"
    with pytest.raises(ConfigError, match=message):
        build_model(config(), spec)
