"""NaFlex: positions of every grid, and how its arrays reach it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import SMALL

from mmjax import components
from mmjax.encoders.naflex_vit import NaflexViT, _GridPositions
from mmjax.errors import ConfigError
from mmjax.interop.pretrained import normalise_section
from mmjax.model import assemble, init_model
from mmjax.model_checks import check_data

GRIDS = jnp.array([[2, 5], [7, 1], [1, 1], [3, 3], [1, 12]], jnp.int32)
MASK = jnp.arange(12) < GRIDS.prod(axis=1)[:, None]


def encoder(**fields):
    fields = {key: value for key, value in {**SMALL, "grid_size": 4, **fields}.items()}
    return NaflexViT(**fields)


def batch(length=12, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(len(GRIDS), length, 2 * 2 * 3)), jnp.float32)


def test_positions_are_a_grid_resized_for_each_image():
    layer = _GridPositions(4)
    tokens = jnp.zeros((len(GRIDS), 12, 6))
    added, variables = layer.init_with_output(jax.random.key(0), tokens, jnp.asarray(GRIDS))
    table = variables["params"]["table"]
    for row, (height, width) in zip(np.asarray(added), GRIDS, strict=True):
        expected = jax.image.resize(table, (height, width, 6), "linear", antialias=True)
        np.testing.assert_allclose(row[: height * width], expected.reshape(-1, 6), atol=1e-6)


def test_each_image_is_what_it_is_alone():
    module = encoder()
    x = batch()
    variables = module.init(jax.random.key(0), x, MASK, grid=GRIDS)
    together = jax.jit(module.apply)(variables, x, MASK, grid=GRIDS)
    for i, grid in enumerate(GRIDS):
        count = int(np.prod(grid))
        alone = module.apply(variables, x[i : i + 1, :count], grid=grid[None])
        np.testing.assert_allclose(together.tokens[i, :count], alone.tokens[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(together.pooled[i], alone.pooled[0], rtol=1e-4, atol=1e-5)
    assert not np.asarray(together.tokens)[~MASK].any()


def test_the_same_patches_in_another_grid_are_another_image():
    module, x = encoder(), batch()[:1]
    variables = module.init(jax.random.key(0), x)
    wide, high = (module.apply(variables, x, grid=jnp.array([grid])) for grid in ((3, 4), (4, 3)))
    assert np.abs(wide.pooled - high.pooled).max() > 1e-3
    row = module.apply(variables, x, grid=jnp.array([[1, 12]]))
    np.testing.assert_array_equal(module.apply(variables, x).pooled, row.pooled)


def model_section():
    part = {"kind": "image", "encoder": {"type": "naflex_vit", **SMALL, "grid_size": 4}}
    return normalise_section({"streams": {"photo": part}, "heads": {}})


def test_a_model_hands_the_grid_on_and_ignores_missing_images():
    spec = {"photo": ((12, 12), "float32"), "photo_mask": ((12,), "bool"), "photo_grid": ((2,), "int32")}
    model = assemble(model_section())
    variables = init_model(model, spec, jax.random.key(0))
    present = np.array([True, False, True, True, True])
    given = {"photo": batch(), "photo_mask": MASK, "photo_grid": GRIDS, "photo_present": present}
    outputs = model.apply(variables, given)
    direct = encoder().apply({"params": variables["params"]["photo_encoder"]}, batch(), MASK, grid=GRIDS)
    np.testing.assert_allclose(outputs["photo/pooled"][present], direct.pooled[present], atol=1e-6)
    pixels = jnp.where(present[:, None, None], batch(), 1e3)
    blank = {**given, "photo": pixels, "photo_grid": GRIDS * present[:, None]}
    for name, value in model.apply(variables, blank).items():
        np.testing.assert_array_equal(value, outputs[name])
    assert not outputs["photo/pooled"][1].any()
    assert model.inputs("photo") == ["photo", "photo_mask", "photo_present", "photo_grid"]


def test_data_without_a_grid_is_refused_before_anything_is_compiled():
    config = {"model": model_section()}
    spec = {"photo": ((12, 12), "float32")}
    with pytest.raises(ConfigError, match="'naflex_vit' needs 'photo_grid', which the data does not give"):
        check_data(config, spec)
    check_data(config, spec | {"photo_grid": ((2,), "int32")})
    with pytest.raises(ConfigError, match=r"expected floats \[L, p \* p \* C\] for kind 'image'"):
        check_data(config, {"photo": ((8, 8, 3), "float32")})


def test_its_transforms_make_its_stream():
    def run(name, value, **fields):
        spec = components.normalise({"type": name, **fields}, components.component("transforms"), "t")
        return components.build("transforms", spec)(value, np.random.default_rng(0))

    image = np.random.default_rng(0).integers(0, 255, (30, 61, 3), np.uint8)
    resized = run("resize_to_patches", image, max_patches=12, patch_size=4)
    assert resized.shape == (8, 20, 3)
    made = run("naflex_patches", resized, length=12, patch_size=4)
    assert made["value"].shape == (12, 48) and made["mask"].sum() == 10
    np.testing.assert_array_equal(made["grid"], [2, 5])
    np.testing.assert_array_equal(made["value"][7], resized[4:8, 8:12].reshape(-1))
