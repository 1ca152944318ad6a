import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.layers.patch import PatchEmbed, TubeletEmbed


def test_equals_the_convolution_with_the_same_kernel():
    image = jax.random.normal(jax.random.key(0), (2, 6, 9, 3))
    module = PatchEmbed(width=5, patch_size=3)
    variables = jax.jit(module.init)(jax.random.key(1), image)
    variables["params"]["bias"] += 0.5
    expected = jax.lax.conv_general_dilated(
        image, variables["params"]["kernel"], (3, 3), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(module.apply(variables, image), expected + 0.5, rtol=1e-5, atol=1e-5)


def test_image_must_divide_into_patches():
    with pytest.raises(
        ConfigError, match="patch_size: got 4, expected a divisor of the image's 8 x 6 pixels"
    ):
        PatchEmbed(width=5, patch_size=4).init(jax.random.key(0), jnp.zeros((1, 8, 6, 3)))


def test_tubelets_equal_the_convolution_with_the_same_kernel():
    video = jax.random.normal(jax.random.key(0), (2, 4, 6, 9, 3))
    module = TubeletEmbed(width=5, tubelet_size=2, patch_size=3)
    variables = jax.jit(module.init)(jax.random.key(1), video)
    variables["params"]["bias"] += 0.5
    layout = ("NDHWC", "DHWIO", "NDHWC")
    expected = jax.lax.conv_general_dilated(
        video, variables["params"]["kernel"], (2, 3, 3), "VALID", dimension_numbers=layout
    )
    np.testing.assert_allclose(module.apply(variables, video), expected + 0.5, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 8, 8, 3), "tubelet_size: got 2, expected a divisor of the video's 3 frames"),
        ((1, 2, 8, 6, 3), "patch_size: got 4, expected a divisor of the video's 8 x 6 pixels"),
    ],
)
def test_video_must_divide_into_tubelets(shape, message):
    with pytest.raises(ConfigError, match=message):
        TubeletEmbed(width=5, tubelet_size=2, patch_size=4).init(jax.random.key(0), jnp.zeros(shape))
