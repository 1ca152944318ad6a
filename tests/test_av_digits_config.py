"""The audio-visual digits: each row of the table is a config whose parts fit each other."""

import pathlib

import numpy as np
import pytest

from mmjax import config
from mmjax.errors import ConfigError
from mmjax.model import build_model, fill_from_data, output_shapes
from mmjax.reproduce import experiment

INSIDE = ("bottleneck", "gated_cross_attention")
EVERY = [
    *("concat", "gated", "film", "tensor", "low_rank", "bilinear", "co_attention", "merged_attention"),
    *("cross_attention", "perceiver_resampler", "q_former", "late", "late_weighted", "late_product"),
    *INSIDE,
    *("image", "audio"),
]
FILE = pathlib.Path(__file__).parent.parent / "configs" / "av_digits.py"
SPEC = {
    "image": ((28, 28, 1), np.float32),
    "audio": ((96, 13), np.float32),
    "audio_mask": ((96,), np.bool_),
    "digit_id": ((), np.int32),
}


def resolve(fusion: str) -> dict:
    encoders = ",encoders=transformer" if fusion in INSIDE else ""
    return config.to_dict(config.resolve(f"{FILE}:fusion={fusion}{encoders}"))


@pytest.mark.parametrize("fusion", EVERY)
def test_the_parts_fit(fusion):
    resolved = fill_from_data(resolve(fusion), {}, {"digit_id": 10})
    streams = {fusion} & {"image", "audio"} or {"image", "audio"}
    assert set(resolved["model"]["streams"]) == set(resolved["data"]["streams"]) == streams
    spec = {name: value for name, value in SPEC.items() if name.split("_")[0] in {*streams, "digit"}}
    assert output_shapes(build_model(resolved, spec), spec, batch=4)["digit"].shape == (4, 10)


@pytest.mark.parametrize(("stream", "other"), [("image", "audio"), ("audio", "image")])
def test_one_stream_alone_is_never_evaluated_without_it(stream, other):
    resolved = resolve(stream)
    assert f"{stream}_missing" not in resolved["evals"]
    assert resolved["data"]["eval"][f"{other}_missing"]["drop"] == []
    assert set(resolved["data"]["eval"]["degraded"]["streams"]) == {stream}


def test_rows_share_encoders_and_training():
    whole = resolve("concat")
    for fusion in [name for name in EVERY if name not in INSIDE]:
        other = resolve(fusion)
        assert other["optimizer"] == whole["optimizer"] and other["total_epochs"] == whole["total_epochs"]
        for name, stream in other["model"]["streams"].items():
            assert stream == whole["model"]["streams"][name]
            assert other["data"]["streams"][name] == whole["data"]["streams"][name]


def test_corruptions_are_never_trained_on():
    data = resolve("concat")["data"]
    for name, stream in data["streams"].items():
        trained = [transform["type"] for transform in stream["train"]]
        degraded = [transform["type"] for transform in data["eval"]["degraded"]["streams"][name]]
        assert len(set(degraded) - set(trained)) == 2


def test_the_page_tells_the_severities_of_the_config():
    data = resolve("concat")["data"]
    page = " ".join(experiment.load("av_digits").text.split())
    degraded = data["eval"]["degraded"]["streams"]
    found = {(s, t["type"]): t for s, transforms in degraded.items() for t in transforms}
    assert f"noise of standard deviation {found['image', 'gaussian_noise']['std']} of the range" in page
    assert f"black square over {found['image', 'occlude']['fraction']:.0%} of the area" in page
    assert f"(standard deviation {found['audio', 'gaussian_noise']['std']})" in page
    assert f"lost with probability {found['audio', 'drop_frames']['fraction']}" in page
    assert f"with probability {data['streams']['image']['drop_rate']}, and where both" in page


def test_an_unknown_fusion_is_refused():
    with pytest.raises(ConfigError, match="argument fusion: got 'sum', expected one of: concat, gated"):
        resolve("sum")


def test_a_fusion_inside_the_encoders_needs_transformers():
    resolved = config.to_dict(config.resolve(f"{FILE}:fusion=bottleneck"))
    model = build_model(fill_from_data(resolved, {}, {"digit_id": 10}), SPEC)
    with pytest.raises(ConfigError, match="works between the blocks of audio_encoder, which has none"):
        output_shapes(model, SPEC)
    with pytest.raises(ConfigError, match="argument encoders: got 'vit', expected one of: cnn, transformer"):
        config.resolve(f"{FILE}:fusion=concat,encoders=vit")
