import base64
import io

import numpy as np
import pytest
from evaluation import eval_cases as cases
from PIL import Image

from mmjax.errors import ConfigError


def pixels(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("channels", [1, 3])
def test_images(tmp_path, channels):
    rng = np.random.default_rng(0)
    image, rebuilt = rng.normal(size=(2, 6, 2, 3, channels)).astype(np.float32)
    present = np.arange(6) != 2
    split = cases.Split({"image": image, "image_present": present})
    context = cases.make_context(tmp_path, {"test": split}, {"rebuilt": rebuilt})
    found = cases.run(
        context, type="reconstruction", data="test", output="rebuilt", target="image", examples=2
    )
    expected = np.mean((image[present].astype(np.float64) - rebuilt[present]) ** 2)
    assert found == pytest.approx({"reconstruction/rebuilt/mse": expected})
    pairs = cases.artifact(tmp_path, "reconstruction_rebuilt")
    assert pairs["kind"] == "reconstruction"
    assert [pair["example_id"] for pair in pairs["examples"]] == [0, 5]
    low, high = image[[0, 5]].min(), image[[0, 5]].max()
    for pair, row in zip(pairs["examples"], (0, 5), strict=True):
        for key, values in (("original", image[row]), ("reconstruction", rebuilt[row])):
            shown = pixels(pair[key]).reshape(2, 3, channels)
            np.testing.assert_allclose(
                shown, 255 * (values - low).clip(0, high - low) / (high - low), atol=0.51
            )


def test_hidden_positions_do_not_count(tmp_path):
    rng = np.random.default_rng(0)
    audio, rebuilt = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    mask = rng.random((6, 5)) < 0.6
    split = cases.Split({"audio": audio, "audio_mask": mask, "audio_present": np.ones(6, bool)})
    context = cases.make_context(tmp_path, {"test": split}, {"rebuilt": rebuilt})
    found = cases.run(context, type="reconstruction", data="test", output="rebuilt", target="audio")
    assert found["reconstruction/rebuilt/mse"] == pytest.approx(np.mean((audio[mask] - rebuilt[mask]) ** 2))
    assert not (tmp_path / "artifacts").exists()


def test_another_shape_is_told(tmp_path):
    split = cases.Split({"image": np.zeros((4, 2, 2, 1), np.float32), "image_present": np.ones(4, bool)})
    context = cases.make_context(tmp_path, {"test": split}, {"rebuilt": np.zeros((4, 3, 2, 1))})
    with pytest.raises(ConfigError, match=r"'rebuilt' has shape \(4, 3, 2, 1\), the target 'image'"):
        cases.run(context, type="reconstruction", data="test", output="rebuilt", target="image")
