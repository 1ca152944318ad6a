import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.layers.patch import PatchEmbed


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
