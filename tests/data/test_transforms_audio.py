"""Audio transforms: decoding, spectrograms, augmentation."""

import io
import math

import av
import numpy as np
import pytest
import soundfile
from transform_cases import make, run

from mmjax.data.transforms.audio import mel_filterbank
from mmjax.errors import ConfigError, DataError


def tone(frequency=440.0, rate=8000, seconds=0.5, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


def encoded(samples, rate, format="WAV", **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, **options)
    return buffer.getvalue()


def video_with_sound(samples, rate):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 32
        sound = container.add_stream("aac", rate=rate, layout="mono")
        container.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(picture.encode())
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], "fltp", "mono")
        frame.sample_rate = rate
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return buffer.getvalue()


def test_decode_audio_gives_the_samples():
    samples = tone()
    decoded = run("decode_audio", encoded(samples, 8000, subtype="FLOAT"), rate=8000)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, samples, atol=1e-6)


def test_decode_audio_takes_a_waveform_as_it_is():
    decoded = run("decode_audio", tone(), rate=8000)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, tone().astype(np.float32))


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3"])
def test_decode_audio_reads_compressed_files(format):
    decoded = run("decode_audio", encoded(tone(), 8000, format), rate=8000)
    spectrum = np.abs(np.fft.rfft(decoded[:4000]))
    assert abs(spectrum.argmax() * 2 - 440) <= 2


def test_decode_audio_averages_channels():
    stereo = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    decoded = run("decode_audio", encoded(stereo, 8000, subtype="FLOAT"), rate=8000)
    np.testing.assert_allclose(decoded, np.full(100, 0.125), atol=1e-7)


@pytest.mark.parametrize(("rate", "target"), [(8000, 16000), (16000, 8000), (44100, 16000)])
def test_decode_audio_resamples(rate, target):
    decoded = run("decode_audio", encoded(tone(rate=rate), rate, subtype="FLOAT"), rate=target)
    assert len(decoded) == math.ceil(rate // 2 * target / rate)
    middle = slice(len(decoded) // 4, -len(decoded) // 4)
    np.testing.assert_allclose(decoded[middle], tone(rate=target)[: len(decoded)][middle], atol=0.01)


def test_resampling_keeps_out_what_the_lower_rate_cannot_hold():
    decoded = run("decode_audio", encoded(tone(6000, rate=16000), 16000, subtype="FLOAT"), rate=8000)
    assert np.abs(decoded[500:-500]).max() < 0.01


def test_decode_audio_reads_the_sound_of_a_video():
    decoded = run("decode_audio", video_with_sound(tone(rate=16000, seconds=1.0), 16000), rate=16000)
    assert 16000 <= len(decoded) < 19000
    spectrum = np.abs(np.fft.rfft(decoded[1000:15000]))
    assert abs(spectrum.argmax() * 16000 / 14000 - 440) < 2


@pytest.mark.parametrize("damaged", [b"", b"no sound", b"RIFF" + bytes(100), encoded(np.zeros(0), 8000)])
def test_damaged_bytes_are_a_data_error(damaged):
    with pytest.raises(DataError, match=r"decode_audio: \d+ bytes that"):
        run("decode_audio", damaged, rate=8000)


def test_decode_audio_refuses_long_sounds_and_other_kinds():
    with pytest.raises(DataError, match=r"got 0.5 s of sound, expected at most 0.25 \(max_seconds\)"):
        run("decode_audio", encoded(tone(), 8000), rate=8000, max_seconds=0.25)
    with pytest.raises(DataError, match="got 1.0 s of sound, expected at most 0.9"):
        sound = video_with_sound(tone(rate=16000, seconds=1.0), 16000)
        run("decode_audio", sound, rate=8000, max_seconds=0.9)
    with pytest.raises(DataError, match=r"decode_audio: got an array \[3\] int16, expected the bytes"):
        run("decode_audio", np.zeros(3, np.int16), rate=8000)


def test_white_noise_has_the_asked_ratio():
    signal = tone(seconds=5).astype(np.float32)
    for snr in (-5.0, 0.0, 20.0):
        noise = run("white_noise", signal, snr=snr) - signal
        assert abs(10 * np.log10(np.mean(signal**2) / np.mean(noise**2)) - snr) < 0.2


def test_mel_filters_of_htk_by_hand():
    # 8 points at 8 kHz: frequencies 0, 1000, ... 4000 Hz. Two filters up to 4000 Hz have corners at 0, 1/3,
    # 2/3 and all of mel(4000); since mel grows with log(1 + f / 700), they are at 700 (47/7)^(i/3) - 700 Hz.
    corners = [700 * ((47 / 7) ** (i / 3) - 1) for i in range(4)]  # 0, 620.6, 1791.3, 4000
    _, a, b, c = corners
    expected = [
        [0, 0],
        [(b - 1000) / (b - a), (1000 - a) / (b - a)],
        [0, (c - 2000) / (c - b)],
        [0, (c - 3000) / (c - b)],
        [0, 0],
    ]
    np.testing.assert_allclose(mel_filterbank(8, 8000, 2, 0.0, 4000.0, "htk"), expected, atol=1e-12)


def test_mel_filters_of_slaney_have_linear_and_logarithmic_corners_and_unit_area():
    # Corners 0, 200, 400, 600, 800, 1000 Hz are 3 mel apart; after that each 3 mel multiply by 6.4^(1/9).
    filters = mel_filterbank(16000, 16000, 4, 0.0, 1000.0, "slaney")
    assert filters.argmax(axis=0).tolist() == [200, 400, 600, 800]  # 1 Hz between the points
    np.testing.assert_allclose(filters.max(axis=0), 2 / 400)
    upper = mel_filterbank(16000, 16000, 3, 1000.0, 1000 * 6.4 ** (4 / 9), "slaney")
    np.testing.assert_allclose(upper.argmax(axis=0), 1000 * 6.4 ** (np.arange(1, 4) / 9), atol=1)
    for bank in (filters, upper):
        np.testing.assert_allclose(bank.sum(axis=0), 1.0, atol=1e-3)


def test_mel_filters_of_htk_add_up_to_one_between_their_ends():
    filters = mel_filterbank(1024, 16000, 20, 0.0, 8000.0, "htk")
    frequencies = np.arange(513) * 16000 / 1024
    corners = 700 * (10 ** (np.linspace(0, 2595 * math.log10(1 + 8000 / 700), 22) / 2595) - 1)
    inside = (frequencies >= corners[1]) & (frequencies <= corners[-2])
    np.testing.assert_allclose(filters.sum(axis=1)[inside], 1.0)


def test_mel_filters_of_kaldi_are_straight_in_mel():
    filters = mel_filterbank(512, 16000, 10, 20.0, 8000.0, "kaldi")
    mel = 1127 * np.log(1 + np.arange(257) * 16000 / 512 / 700)
    corners = np.linspace(1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700), 12)
    for i in range(10):
        expected = np.interp(mel, corners[i : i + 3], [0, 1, 0])
        np.testing.assert_allclose(filters[:, i], expected, atol=1e-12)


def test_log_mel_as_kaldi_has_it():
    """Frame by frame, by the definitions of Kaldi's feature-window.cc."""
    signal = (np.random.default_rng(0).normal(size=700) * 0.1 + 0.3).astype(np.float32)
    fields = {"bins": 20, "f_min": 20.0, "scale": "kaldi", "floor": 2.0**-23}
    kaldi = {"remove_mean": True, "preemphasis": 0.97, "periodic": False}
    made = run("log_mel", signal, **fields, **kaldi)
    filters = mel_filterbank(512, 16000, 20, 20.0, 8000.0, "kaldi")
    assert len(made) == 1 + (700 - 400) // 160
    for t in range(len(made)):
        frame = signal[160 * t : 160 * t + 400].astype(np.float64)
        frame -= frame.mean()
        frame = np.array([frame[i] - 0.97 * frame[max(i - 1, 0)] for i in range(400)])
        frame *= 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
        expected = np.log(np.abs(np.fft.rfft(frame, 512)) ** 2 @ filters)
        np.testing.assert_allclose(made[t], expected, rtol=1e-5, atol=1e-5)


def test_log_mel_of_a_tone_by_the_definition():
    fields = {"rate": 8000, "window": 64, "hop": 20, "n_fft": 128, "bins": 10}
    signal = tone(1000.0, seconds=0.03)  # 240 samples
    made = run("log_mel", signal.astype(np.float32), **fields)
    assert made.shape == (1 + (240 - 64) // 20, 10) and made.dtype == np.float32
    hann = np.sin(np.pi * np.arange(64) / 64) ** 2
    filters = mel_filterbank(128, 8000, 10, 0.0, 4000.0, "htk")
    for t in (0, 3, 8):
        frame = signal[20 * t : 20 * t + 64] * hann
        bins = np.exp(-2j * np.pi * np.outer(np.arange(65), np.arange(64)) / 128)
        np.testing.assert_allclose(made[t], np.log(np.abs(bins @ frame) ** 2 @ filters), rtol=1e-4)
    centres = np.linspace(0, 2595 * math.log10(1 + 4000 / 700), 12)[1:-1]
    assert made[4].argmax() == np.abs(centres - 2595 * math.log10(1 + 1000 / 700)).argmin()


def test_log_mel_with_centred_frames_in_decibels():
    signal = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    plain = {"rate": 8000, "window": 200, "hop": 100, "n_fft": 256, "bins": 10}
    frames = run("log_mel", signal, **plain)
    centred = run("log_mel", signal, **plain, center=True, unit="decibel")
    assert len(frames) == 1 + (1000 - 200) // 100 and len(centred) == 1 + 1000 // 100
    # What is centred on sample 100 begins at sample 0.
    np.testing.assert_allclose(centred[1:-1], frames * 10 / np.log(10), rtol=1e-5, atol=1e-4)
    # At the ends the signal is mirrored, without its first sample twice.
    mirrored = np.concatenate([signal[100:0:-1], signal[:100]])
    np.testing.assert_allclose(
        centred[:1], run("log_mel", mirrored, **plain, unit="decibel"), rtol=1e-5, atol=1e-4
    )


def test_log_mel_of_silence_and_of_a_short_sound():
    made = run("log_mel", np.zeros(100, np.float32), floor=1e-4)
    assert made.shape == (1, 80)
    np.testing.assert_allclose(made, math.log(1e-4), rtol=1e-6)
    with pytest.raises(DataError, match="log_mel: got bytes"):
        run("log_mel", b"RIFF")
    with pytest.raises(DataError, match=r"log_mel: got an array \[5, 2\] float32, expected a waveform"):
        run("log_mel", np.zeros((5, 2), np.float32))


def test_pad_silence():
    sound = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(run("pad_silence", sound, length=5), [1, 2, 3, 0, 0])
    np.testing.assert_array_equal(run("pad_silence", sound, length=2), sound)
    assert run("pad_silence", np.ones((2, 4)), length=5).shape == (5, 4)


def test_dynamic_range_is_below_the_largest_value():
    frames = np.array([[0.0, -3.0], [-90.0, 10.0]])
    np.testing.assert_array_equal(run("dynamic_range", frames, range=12.0), [[0, -2], [-2, 10]])


def test_repeat_to():
    sound = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(run("repeat_to", sound, length=8), [1, 2, 3, 1, 2, 3, 0, 0])
    np.testing.assert_array_equal(run("repeat_to", sound, length=8, partial=True), [1, 2, 3, 1, 2, 3, 1, 2])
    np.testing.assert_array_equal(run("repeat_to", sound, length=2), sound)
    assert run("repeat_to", np.ones((2, 4)), length=5).shape == (5, 4)
    with pytest.raises(DataError, match="repeat_to: got an array .*, expected at least one place"):
        run("repeat_to", sound[:0], length=5)


def test_standardise_frames_of_a_waveform():
    made = run("standardise_frames", 3 + 2 * tone(), epsilon=1e-7)
    assert abs(made.mean()) < 1e-5 and abs(made.std() - 1) < 1e-5


def test_standardise_frames():
    frames = np.random.default_rng(0).normal(3.0, 5.0, (50, 4))
    made = run("standardise_frames", frames)
    np.testing.assert_allclose(made.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(made.std(axis=0), 1, atol=1e-4)
    np.testing.assert_array_equal(run("standardise_frames", np.ones((5, 2))), np.zeros((5, 2)))


def test_spec_augment_hides_at_most_what_it_may():
    frames = np.random.default_rng(0).normal(size=(60, 20)).astype(np.float32)
    before = frames.copy()
    times, bands = [], []
    for seed in range(100):
        time = run("spec_augment", frames, seed=seed, frequency_masks=0, time_masks=1, time_width=15)
        hidden = (time != frames).all(axis=1)
        np.testing.assert_array_equal(time[~hidden], frames[~hidden])
        np.testing.assert_allclose(time[hidden], frames.mean(), rtol=1e-5)
        times.append(hidden.sum())
        band = run("spec_augment", frames, seed=seed, time_masks=0, frequency_masks=1, frequency_width=5)
        bands.append((band != frames).all(axis=0).sum())
    assert set(times) == set(range(16)) and set(bands) == set(range(6))  # widths are uniform
    np.testing.assert_array_equal(frames, before)
    short = run("spec_augment", frames, frequency_masks=0, time_masks=5, time_fraction=0.0)
    np.testing.assert_array_equal(short, frames)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("log_mel", {"n_fft": 256}, "log_mel.n_fft: got 256, expected at least window, 400"),
        ("log_mel", {"f_max": 9000.0}, "log_mel.f_max: got 9000.0, expected at most half the rate"),
        ("log_mel", {"f_min": 100.0, "f_max": 50.0}, "log_mel.f_min"),
        ("log_mel", {"preemphasis": 1.0}, "log_mel.preemphasis: got 1.0, expected 0 or more, below 1"),
        ("log_mel", {"window": 1, "periodic": False}, "log_mel.window: got 1, expected more than 1"),
        ("pad_silence", {"length": 0}, "pad_silence.length"),
        ("dynamic_range", {"range": 0.0}, "dynamic_range.range"),
        ("decode_audio", {"rate": 0}, "decode_audio.rate"),
        ("spec_augment", {"time_width": -1}, "spec_augment.time_width"),
    ],
)
def test_settings_that_cannot_work_are_refused(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **fields)
