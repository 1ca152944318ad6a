"""Sounds and videos: preprocessing as transformers does it, and what neither side has a word for."""

import json

import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.interop import FAMILIES
from mmjax.interop.preprocess import Preprocess
from mmjax.interop.pretrained import normalise_section

RATE = 16000


def sound(seconds, seed=0):
    """Noise, and a tone that swells, on an offset."""
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.05 * noise + 0.3 * time / max(seconds, 1) * np.sin(2000 * time) + 0.02).astype(np.float32)


def video(frames, height, width):
    """Smooth, since what a resampler makes of noise depends on its last digit."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / (9 + c) + x / (7 + t) + t) for t in range(frames) for c in range(3)]
    waves = np.stack(waves).reshape(frames, 3, height, width).transpose(0, 2, 3, 1)
    return np.rint(127.5 + 127.5 * waves).astype(np.uint8)


def ours(family, processor, directory, **config):
    """Our preprocessing, from the files that theirs saves."""
    processor.save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps({"model_type": family, **config}))
    return Preprocess.read(directory, family, FAMILIES[family])


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_mel_bins": 64, "max_length": 300, "mean": -3.0, "std": 2.0}, {"do_normalize": False}],
)
def test_ast(settings, hf, tmp_path):
    processor = hf.ASTFeatureExtractor(**settings)
    sounds = [sound(1.03), sound(11.0, 1), sound(5.0, 2), np.zeros(8000, np.float32)]
    theirs = processor(sounds, sampling_rate=RATE, return_tensors="np")["input_values"]
    batch = ours("ast", processor, tmp_path)(audio=sounds)
    assert batch["audio"].dtype == np.float32 and "audio_mask" not in batch
    np.testing.assert_allclose(batch["audio"], theirs, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"feature_size": 128, "chunk_length": 10}])
def test_whisper(settings, hf, tmp_path):
    processor = hf.WhisperFeatureExtractor(**settings)
    sounds = [sound(3.21), sound(30.5, 1), sound(0.2, 2), np.zeros(8000, np.float32)]
    theirs = processor(sounds, sampling_rate=RATE, return_tensors="np")["input_features"]
    batch = ours("whisper", processor, tmp_path)(audio=sounds)
    assert batch["audio"].dtype == np.float32 and "audio_mask" not in batch
    np.testing.assert_allclose(batch["audio"], theirs.swapaxes(1, 2), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("videomae", {}),
        ("videomae", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 36}}),
        # As the published TimeSformer has it.
        ("timesformer", {"image_mean": [0.45] * 3, "image_std": [0.225] * 3}),
        ("timesformer", {"do_center_crop": False, "size": {"height": 24, "width": 32}, "resample": 3}),
    ],
)
def test_videomae_and_timesformer(family, settings, hf, tmp_path):
    processor = hf.models.videomae.VideoMAEImageProcessorPil(**settings)
    videos = [video(4, 60, 90), video(4, 60, 90)[::-1]]
    theirs = processor([list(v) for v in videos], return_tensors="np")["pixel_values"]
    batch = ours(family, processor, tmp_path, num_frames=4)(video=videos)
    np.testing.assert_allclose(batch["video"], theirs.transpose(0, 1, 3, 4, 2), atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 31, "width": 36}, "do_normalize": False},
        {"offset": False, "rescale_factor": 1 / 255, "image_mean": [0.4, 0.5, 0.6]},
    ],
)
def test_vivit(settings, hf, tmp_path):
    processor = hf.models.vivit.image_processing_vivit.VivitImageProcessor(**settings)
    videos = [video(4, 60, 90), video(4, 60, 90)[::-1]]
    theirs = np.stack([processor(list(v), return_tensors="np")["pixel_values"][0] for v in videos])
    batch = ours("vivit", processor, tmp_path, num_frames=4)(video=videos)
    np.testing.assert_allclose(batch["video"], theirs.transpose(0, 1, 3, 4, 2), atol=1e-5)


def test_longer_videos_give_frames_evenly(hf, tmp_path):
    processor = hf.models.videomae.VideoMAEImageProcessorPil(size={"shortest_edge": 60}, do_center_crop=False)
    preprocess = ours("videomae", processor, tmp_path, num_frames=4)
    frames = video(12, 60, 90)
    np.testing.assert_array_equal(
        preprocess(video=[frames])["video"], preprocess(video=[frames[1::3]])["video"]
    )


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("vivit", {"tubelet_size": [2, 16, 8]}, r"tubelet_size is \[2, 16, 8\], expected square patches"),
        ("vivit", {"num_frames": 5}, "expected a divisor of num_frames, 5, first"),
        ("vivit", {"pooler_output_size": 5}, "pooler_output_size is 5"),
        ("timesformer", {"attention_type": "space_only"}, "attention_type is 'space_only', which is not"),
        ("ast", {"patch_size": [16, 8]}, r"patch_size is \[16, 8\], expected a square"),
        ("whisper", {"activation_function": "sine"}, "activation_function is 'sine', expected one of"),
    ],
)
def test_configs_that_are_not_implemented(family, config, message):
    with pytest.raises(ConfigError, match=message):
        FAMILIES[family].section(config, {"pooler.dense.weight"})


_SMALL = {"variant": "custom", "width": 16, "depth": 1, "heads": 2}


@pytest.mark.parametrize(
    ("family", "stream", "encoder", "message"),
    [
        (
            "ast",
            "audio",
            {"type": "spectrogram_transformer"},
            "AST has attend_padding True, this model False",
        ),
        ("whisper", "audio", {"type": "whisper"}, "Whisper has position 'learned', this model 'sinusoidal'"),
        (
            "whisper",
            "audio",
            {"type": "whisper", "position": "learned", "attend_padding": True, "attention_biases": ["out"]},
            r"attention_biases \['out'\]: expected query, value and out",
        ),
        ("videomae", "video", {"type": "video_transformer"}, "expected query, value and out, or only out"),
        ("videomae", "video", {"type": "video_transformer", "final_norm": "pooled"}, "this model 'pooled'"),
        (
            "videomae",
            "video",
            {"type": "video_transformer", "attention_biases": ["out"], "patch_size": 24},
            "patch_size 24: VideoMAE is written for images of 224 pixels",
        ),
        ("vivit", "video", {"type": "video_transformer"}, "ViViT has position 'learned', this model 'sinu"),
        (
            "timesformer",
            "video",
            {"type": "timesformer", "attention_biases": ["query", "out"]},
            r"attention_biases \['out', 'query'\]: expected all, or only out",
        ),
        (
            "timesformer",
            "video",
            {"type": "video_transformer"},
            "with the encoder 'timesformer' and no heads",
        ),
    ],
)
def test_models_that_theirs_has_no_word_for(family, stream, encoder, message):
    streams = {stream: {"kind": stream, "encoder": {**_SMALL, **encoder}}}
    section = normalise_section({"streams": streams, "heads": {}})
    with pytest.raises(ConfigError, match=message):
        FAMILIES[family].export(section, {"params/video_encoder/positions/table": (2, 2, 16)})
