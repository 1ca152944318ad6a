"""Images from features: sizes, masking, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.decoders.image import ImageDecoder
from mmjax.errors import ConfigError
from mmjax.types import Features


def _features(length=6, width=5):
    tokens = jax.random.normal(jax.random.key(0), (3, length, width))
    mask = jnp.ones((3, length), bool).at[2].set(False)
    return {"image": Features(tokens, mask, jnp.where(mask.any(1)[:, None], tokens.mean(axis=1), 0))}


def _run(decoder, features):
    return jax.jit(decoder.init_with_output)(jax.random.key(1), features)


@pytest.mark.parametrize("upsample", ["transposed", "resize"])
@pytest.mark.parametrize("source", ["pooled", "tokens"])
def test_size_of_the_image(source, upsample):
    decoder = ImageDecoder(8, 12, "image", source, channels=1, filters=[4, 3], upsample=upsample)
    image, variables = _run(decoder, _features())
    assert image.shape == (3, 8, 12, 1) and image.dtype == jnp.float32
    assert ("grid" in variables["params"]) == (source == "pooled")
    factors = jax.random.normal(jax.random.key(2), image.shape)
    gradient = jax.jit(jax.grad(lambda v: (decoder.apply(v, _features()) * factors).sum()))(variables)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.abs(leaf).max() > 0, path


def test_tokens_are_the_grid_row_by_row():
    decoder = ImageDecoder(3, 5, "image", "tokens", channels=1, filters=[])
    features = _features(length=15)
    image, variables = _run(decoder, features)
    features["image"] = features["image"].replace(tokens=features["image"].tokens.at[0, 9].add(5.0))
    changed = np.abs(decoder.apply(variables, features) - image)[0, :, :, 0] > 1e-4
    # Token 9 is row 1, column 4; a 3x3 convolution spreads it to its neighbours.
    assert changed[:, 3:].all() and not changed[:, :3].any()


def test_masked_tokens_do_not_matter():
    decoder = ImageDecoder(4, 6, "image", "tokens", filters=[2])
    features = _features()
    image, variables = _run(decoder, features)
    features["image"] = features["image"].replace(tokens=features["image"].tokens.at[2].set(jnp.nan))
    np.testing.assert_array_equal(decoder.apply(variables, features), image)


@pytest.mark.parametrize("settings", [{"filters": [4, 4]}, {"height": 6}])
def test_sizes_that_do_not_fit_are_refused(settings):
    decoder = ImageDecoder(**{"height": 4, "width": 6, "reads": "image", "filters": [4, 2, 2], **settings})
    with pytest.raises(ConfigError, match=r"image_decoder: got .x6 with . filters.*multiples of"):
        jax.eval_shape(decoder.init, jax.random.key(0), _features())


def test_the_number_of_tokens_must_fit():
    decoder = ImageDecoder(4, 4, "image", "tokens", filters=[2])
    with pytest.raises(ConfigError, match="got 6 tokens from 'image', expected 2x2"):
        jax.eval_shape(decoder.init, jax.random.key(0), _features())
