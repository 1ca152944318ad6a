"""Sounds are prepared as CLAP's and wav2vec 2.0's feature extractors do."""

import json

import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.interop import FAMILIES
from mmjax.interop.preprocess import Preprocess


def sound(seconds, rate, seed=0):
    """Noise, and a tone that swells, on an offset."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.05 * noise + 0.3 * time / max(seconds, 1) * np.sin(2000 * time) + 0.02).astype(np.float32)


def ours(family, processor, directory, **config):
    """Our preprocessing, from the files that theirs saves."""
    processor.save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps({"model_type": family, **config}))
    name = family.removesuffix("_audio_model")
    return Preprocess.read(directory, name, FAMILIES[name])


@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
def test_clap(padding, hf, tmp_path):
    processor = hf.ClapFeatureExtractor(truncation="rand_trunc", padding=padding, frequency_min=50)
    sounds = [sound(0.7, 48000), sound(3.1, 48000, 1), sound(10.0, 48000, 2), np.zeros(100, np.float32)]
    theirs = processor(sounds, sampling_rate=48000, return_tensors="np")["input_features"]
    batch = ours("clap_audio_model", processor, tmp_path)(audio=sounds)
    assert batch["audio"].shape == (4, 1001, 64) and "audio_mask" not in batch
    # In decibels, of which the lowest is -100.
    np.testing.assert_allclose(batch["audio"], theirs[:, 0], atol=1e-4)


def test_clap_with_other_frames(hf, tmp_path):
    processor = hf.ClapFeatureExtractor(
        feature_size=32,
        sampling_rate=16000,
        hop_length=160,
        fft_window_size=512,
        max_length_s=2,
        frequency_max=8000,
        truncation="rand_trunc",
    )
    sounds = [sound(0.7, 16000), sound(2.0, 16000, 1)]
    theirs = processor(sounds, sampling_rate=16000, return_tensors="np")["input_features"]
    preprocess = ours("clap_audio_model", processor, tmp_path, num_mel_bins=32)
    np.testing.assert_allclose(preprocess(audio=sounds)["audio"], theirs[:, 0], atol=1e-4)


def test_the_middle_of_a_longer_clip(hf, tmp_path):
    processor = hf.ClapFeatureExtractor(truncation="rand_trunc")
    long = sound(12.0, 48000)
    preprocess = ours("clap_audio_model", processor, tmp_path)
    cut = preprocess(audio=[long[48000:-48000]])
    np.testing.assert_array_equal(preprocess(audio=[long])["audio"], cut["audio"])


def test_clap_with_fusion_is_refused(hf, tmp_path):
    with pytest.raises(ConfigError, match="truncation is 'fusion', which is not implemented"):
        ours("clap_audio_model", hf.ClapFeatureExtractor(truncation="fusion"), tmp_path)
    for change in ({"enable_fusion": True}, {"patch_embed_input_channels": 4}):
        with pytest.raises(ConfigError, match=f"{next(iter(change))} is .*, which is not implemented"):
            FAMILIES["clap"].section({"model_type": "clap_audio_model", **change}, [])


@pytest.mark.parametrize("settings", [{}, {"do_normalize": False}, {"sampling_rate": 8000}])
def test_wav2vec2(settings, hf, tmp_path):
    processor = hf.Wav2Vec2FeatureExtractor(return_attention_mask=True, **settings)
    rate = processor.sampling_rate
    sounds = [sound(0.71, rate), sound(1.3, rate, 1), sound(0.2, rate, 2), np.zeros(500, np.float32)]
    theirs = processor(sounds, sampling_rate=rate, padding=True, return_tensors="np")
    batch = ours("wav2vec2", processor, tmp_path)(audio=sounds)
    np.testing.assert_array_equal(batch["audio_mask"], theirs["attention_mask"].astype(bool))
    np.testing.assert_allclose(batch["audio"], theirs["input_values"], atol=1e-5)


def test_wav2vec2_with_adapters_is_refused():
    for change in ({"add_adapter": True}, {"adapter_attn_dim": 16}):
        with pytest.raises(ConfigError, match=f"{next(iter(change))} is .*, which is not implemented"):
            FAMILIES["wav2vec2"].section({"model_type": "wav2vec2", **change}, [])
