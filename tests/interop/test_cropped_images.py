"""Images as ResNet's and ConvNeXt's processor prepares them."""

import numpy as np
import pytest
import reference
from reference_cases import CASES

from mmjax import interop
from mmjax.interop.families.resnet import cropped_share


@pytest.fixture(scope="module")
def image():
    """A picture with edges and slopes, of two different sides."""
    rows, columns = np.mgrid[:301, :398]
    planes = [
        rows % 256,
        (rows * 3 + columns) // 2 % 256,
        np.where((rows // 20 + columns // 30) % 2, 230, 20),
    ]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
        {"size": {"shortest_edge": 224}, "crop_pct": 0.95, "resample": 2},
        {"size": {"shortest_edge": 95}, "crop_pct": 0.875},
        {"size": {"shortest_edge": 384}, "crop_pct": 1.0},
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_are_theirs(settings, turned, image, hf, tmp_path):
    if turned:
        image = np.ascontiguousarray(image.swapaxes(0, 1))
    processor = hf.ConvNextImageProcessorPil(
        **settings, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    )
    directory = reference.save(CASES["resnet"](hf), tmp_path)
    processor.save_pretrained(directory)
    expected = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    preprocess = interop.from_pretrained(directory).preprocess
    got = preprocess(image=[image])["image"][0]
    assert got.shape == expected.shape
    # Both resize with Pillow: no pixel differs by more than rounding in float32.
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_without_a_file_as_published(image, hf, tmp_path):
    preprocess = interop.from_pretrained(reference.save(CASES["convnext"](hf), tmp_path)).preprocess
    assert preprocess(image=[image])["image"].shape == (1, 224, 224, 3)
    resize, crop = preprocess.transforms["image"][1:3]
    assert (resize["size"], crop["size"]) == (256, 224)


def test_another_processor():
    chain = cropped_share({"size": {"height": 20, "width": 30}, "resample": 2})
    assert chain[1] == {"type": "resize", "size": 20, "width": 30, "resampler": "bilinear"}
