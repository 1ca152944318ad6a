"""The textbook systems in configs/: each resolves, and its parts fit each other and its data."""

import pathlib

import numpy as np
import pytest

from mmjax import components, config
from mmjax.errors import ConfigError
from mmjax.model import build_model, fill_from_data, output_shapes
from mmjax.objectives import check

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
TEXT = {"text": ((24,), np.int32), "text_mask": ((24,), np.bool_)}


@pytest.mark.parametrize(
    ("reference", "image", "outputs"),
    [
        ("cnn_lstm_concat.py", (48, 48, 3), {"fused/pooled": (64, 128), "group": (64, 10)}),
        ("cnn_lstm_concat.py:fusion=gated", (48, 48, 3), {"fused/pooled": (64, 128), "group": (64, 10)}),
        ("cnn_lstm_concat.py:fusion=late", (48, 48, 3), {"text/pooled": (64, 128), "group": (64, 10)}),
        ("cnn_rnn_logistic.py", (48, 48, 3), {"image/pooled": (64, 64), "flag": (64, 2)}),
        (
            "autoencoder.py",
            (32, 32, 1),
            {"image/tokens": (64, 16, 8), "reconstruction": (64, 32, 32, 1)},
        ),
    ],
)
def test_the_parts_fit(reference, image, outputs):
    resolved = config.resolve(f"{CONFIGS}/{reference}")
    streams = {"image": (image, np.float32), **TEXT}
    streams = {name: value for name, value in streams.items() if name.split("_")[0] in resolved.data.streams}
    labels = {label: ((), np.int32) for label in resolved.data.labels}
    presence = {f"{name}_present": ((), np.bool_) for name in resolved.data.streams}
    spec = streams | labels | presence

    filled = fill_from_data(config.to_dict(resolved), {"text": 1000}, {"group_id": 10, "digit": 10})
    shapes = output_shapes(build_model(filled, spec), spec, batch=64)
    assert {name: shapes[name].shape for name in outputs} == outputs
    check({n: components.build("objectives", s) for n, s in filled["objectives"].items()}, shapes, spec)

    for name, section in filled["evals"].items():
        for data, entries in components.build("evaluators", section).needs().items():
            assert data in ("train", *filled["data"]["eval"]), name
            assert entries <= {*shapes, *spec}, name


def test_an_unknown_fusion_is_refused():
    with pytest.raises(ConfigError, match="argument fusion: got 'sum', expected one of: concat, gated, late"):
        config.resolve(f"{CONFIGS}/cnn_lstm_concat.py:fusion=sum")
