"""Encoders of a config that start from published weights."""

import copy

import jax
import numpy as np
import pytest
import tiny

from mmjax import components, interop, schema
from mmjax import config as config_lib
from mmjax.errors import ConfigError
from mmjax.interop.init import check_architectures, published_start
from mmjax.interop.pretrained import normalise_section
from mmjax.layers.stacking import stack_blocks
from mmjax.model import assemble, init_model
from mmjax.parallel.placement import named_leaves
from mmjax.training import loop

SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
CONFIGS = {
    "bert": {"model_type": "bert", "vocab_size": 11, "max_position_embeddings": 6, **SIZES},
    "vit": {"model_type": "vit", "image_size": 8, "patch_size": 4, **SIZES},
    "clip": {
        "model_type": "clip",
        "projection_dim": 8,
        "text_config": {"vocab_size": 11, "max_position_embeddings": 6, "eos_token_id": 10, **SIZES},
        "vision_config": {"image_size": 8, "patch_size": 4, **SIZES},
    },
}
KEYS = {"pooler.dense.weight", "visual_projection.weight", "text_projection.weight"}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """name -> (directory, section, variables) of published models."""
    root, found = tmp_path_factory.mktemp("published"), {}
    for name, config in CONFIGS.items():
        family = interop.FAMILIES[name]
        section = normalise_section(family.section(config, KEYS))
        spec = {key: (shape, dtype) for key, (shape, dtype) in family.inputs(config).items()}
        model = assemble(section)
        variables = init_model(model, spec, jax.random.key(1))
        interop.save_pretrained(model, variables, root / name, family=name)
        found[name] = (root / name, section, variables)
    return found


def stream_of(published, name, stream):
    directory, section, _ = published[name]
    kind = stream
    return {
        "kind": kind,
        "encoder": copy.deepcopy(section["streams"][stream]["encoder"]),
        "init": f"hf:{directory}",
    }


def build(streams, spec, whole="", heads=None, **settings):
    section = components.normalise({"streams": streams, "heads": heads or {}}, schema.Model, "model")
    check_architectures(section, whole)
    model = assemble(section, **settings)
    variables = init_model(model, {**spec}, jax.random.key(2))
    return section, variables


TEXT = {"caption": ((4,), "int32")}


def test_an_encoder_starts_from_its_tower_of_a_published_model(published):
    streams = {
        "caption": stream_of(published, "clip", "text"),
        "photo": stream_of(published, "clip", "image"),
    }
    streams["caption"]["encoder"] |= {"dropout": 0.1, "pooling": "mean"}
    section, variables = build(streams, TEXT | {"photo": ((8, 8, 3), "float32")})
    got, reports = published_start(section, variables)
    theirs = published["clip"][2]["params"]
    jax.tree.map(np.testing.assert_array_equal, got["params"]["caption_encoder"], theirs["text_encoder"])
    jax.tree.map(np.testing.assert_array_equal, got["params"]["photo_encoder"], theirs["image_encoder"])
    caption, photo = reports["stream caption"], reports["stream photo"]
    assert not caption.fresh and not caption.left and not photo.resized
    assert str(photo).endswith("arrays loaded")


def test_positions_are_resized_and_what_is_new_is_fresh(published):
    stream = stream_of(published, "vit", "image")
    stream["encoder"] |= {"pooling": "map", "pooler": False}
    section, variables = build({"image": stream}, {"image": ((12, 16, 3), "float32")})
    got, reports = published_start(section, variables)
    report = reports["stream image"]
    assert report.resized == ["params/positions/table"]
    assert got["params"]["image_encoder"]["positions"]["table"].shape == (3, 4, 8)
    assert {path.split("/")[1] for path in report.fresh} == {"pool"}
    assert {path.split("/")[1] for path in report.left} == {"cls", "pooler"}
    assert "1 resized (params/positions/table)" in str(report)


def test_fewer_positions_are_cut_and_more_are_refused(published):
    stream = stream_of(published, "bert", "text")
    stream["encoder"]["max_length"] = 4
    section, variables = build({"caption": stream}, TEXT)
    got, reports = published_start(section, variables)
    table = got["params"]["caption_encoder"]["positions"]["table"]
    np.testing.assert_array_equal(
        table, published["bert"][2]["params"]["text_encoder"]["positions"]["table"][:4]
    )
    assert reports["stream caption"].resized
    stream["encoder"]["max_length"] = 7
    with pytest.raises(ConfigError, match="max_length: is 7, the weights of init have positions for 6"):
        build({"caption": stream}, TEXT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"activation": "relu"},
            "encoder.activation: is 'relu', the weights of init have 'gelu'; set it to that",
        ),
        ({"eps": 1e-6}, "encoder.eps: is 1e-06, the weights of init have 1e-12"),
        ({"width": 16}, "encoder.width: is 16, the weights of init have 8"),
        ({"norm_position": "pre"}, "encoder.norm_position: is 'pre'"),
        ({"vocab_size": 12}, "encoder.vocab_size: is 12, the weights of init have 11"),
    ],
)
def test_another_architecture_is_named(published, changes, message):
    stream = stream_of(published, "bert", "text")
    stream["encoder"] |= changes
    with pytest.raises(ConfigError, match=message):
        build({"caption": stream}, TEXT)


def test_another_modality_is_refused(published):
    stream = stream_of(published, "bert", "text") | {"kind": "audio"}
    with pytest.raises(ConfigError, match="init: .* encodes text, this stream is audio"):
        build({"caption": stream}, TEXT)


def whole(published):
    """('hf:...', streams, heads) of a model like the published CLIP, nothing of which names weights."""
    directory, section, _ = published["clip"]
    streams = {name: stream_of(published, "clip", name) | {"init": ""} for name in section["streams"]}
    return f"hf:{directory}", streams, copy.deepcopy(section["heads"])


BOTH = {"text": ((4,), "int32"), "image": ((8, 8, 3), "float32")}


def test_a_whole_model_starts_from_published_weights(published):
    source, streams, heads = whole(published)
    section, variables = build(streams, BOTH, source, heads)
    got, reports = published_start(section, variables, source)
    jax.tree.map(np.testing.assert_array_equal, got["params"], published["clip"][2]["params"])
    assert jax.tree.structure(got["params"]) == jax.tree.structure(variables["params"])
    assert set(reports) == {"stream image", "stream text", "heads"}
    assert not any(report.fresh or report.left for report in reports.values())
    assert str(reports["heads"]) == f"{source}: 3 arrays loaded"


def test_heads_of_other_names_are_told(published):
    source, streams, heads = whole(published)
    heads["temperature"] = heads.pop("scale")
    section, variables = build(streams, BOTH, source, heads)
    got, reports = published_start(section, variables, source)
    assert reports["heads"].fresh == ["temperature/params/log_scale"] and reports["heads"].left == [
        "scale/params/log_scale"
    ]
    assert set(got["params"]) == set(variables["params"]) - {"temperature_head"}


def test_a_head_of_another_size_is_named(published):
    source, streams, heads = whole(published)
    heads["text_embedding"]["width"] = 6
    section, variables = build(streams, BOTH, source, heads)
    with pytest.raises(ConfigError, match=r"heads.text_embedding: .* is \[8, 6\], .* have \[8, 8\]; make it"):
        published_start(section, variables, source)


def test_a_stream_may_name_other_weights_than_the_whole(published):
    source, streams, heads = whole(published)
    other = stream_of(published, "vit", "image")
    section, variables = build(streams | {"image": other}, BOTH, source, heads)
    got, reports = published_start(section, variables, source)
    assert reports["stream image"].source == other["init"] and reports["stream text"].source == source
    theirs = published["vit"][2]["params"]["image_encoder"]
    jax.tree.map(np.testing.assert_array_equal, got["params"]["image_encoder"], theirs)


def test_a_whole_model_is_read_as_it_was_trained(published):
    source, streams, heads = whole(published)
    streams["text"]["encoder"]["pooling"] = "mean"
    with pytest.raises(ConfigError, match="text.encoder.pooling: is 'mean', the weights of init have 'eos'"):
        build(streams, BOTH, source, heads)
    streams["text"] |= {"kind": "audio"}
    with pytest.raises(ConfigError, match="init.weights: '.*' encodes image, text, this stream is audio"):
        build(streams, BOTH, source, heads)


def test_stacked_layers_start_from_weights_too(published):
    stream = stream_of(published, "bert", "text")
    section, variables = build({"caption": stream}, TEXT, scan=True)
    got, reports = published_start(section, variables)
    stacked = stack_blocks(got["params"])["caption_encoder"]
    shapes = jax.tree.map(np.shape, variables["params"]["caption_encoder"])
    assert jax.tree.map(np.shape, stacked) == shapes
    assert not reports["stream caption"].fresh


@pytest.mark.slow
def test_a_run_starts_from_published_weights(tmp_path):
    """The whole way: a locked encoder is what was published, at the end of training too."""
    plain = tiny.without_fusion(tiny.plain_config(tiny.write_data(tmp_path / "images"), tmp_path / "data"))
    plain |= {"total_steps": 3, "checkpoint": {}, "evals": {}}
    text = plain["model"]["streams"]["text"]
    text["encoder"] |= {"norm_position": "post", "segments": 2, "dropout": 0.0}
    with tiny.on_devices(1):
        setup = tiny.make_setup(tiny.resolved(plain))
        encoder = config_lib.to_dict(setup.config)["model"]["streams"]["text"]["encoder"]
        section = normalise_section({"streams": {"text": {"kind": "text", "encoder": encoder}}})
        model = assemble(section)
        variables = init_model(model, {"text": ((4,), "int32")}, jax.random.key(7))
        assert interop.save_pretrained(model, variables, tmp_path / "published") == "bert"

        text["init"] = f"hf:{tmp_path / 'published'}"
        loop.train(tiny.resolved(plain, optimizer__frozen=["text_encoder/.*"]), tmp_path / "run")
    _, state = tiny.saved(tmp_path / "run")
    for name, leaf in named_leaves(variables["params"]):
        np.testing.assert_array_equal(state[f"params/{name}"], leaf)

    text["encoder"]["activation"] = "relu"
    with pytest.raises(
        ConfigError, match="text.encoder.activation: is 'relu', the weights of init have 'gelu'"
    ):
        loop.train(tiny.resolved(plain), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_names_of_all_arrays_are_told(published):
    _, _, variables = published["bert"]
    section, fresh = build({"caption": stream_of(published, "bert", "text")}, TEXT)
    _, reports = published_start(section, fresh)
    names = {f"params/{name}" for name, _ in named_leaves(variables["params"]["text_encoder"])}
    assert set(reports["stream caption"].loaded) == names
