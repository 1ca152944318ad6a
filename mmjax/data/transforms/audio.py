"""Transforms of audio: waveforms float32 `[T]` in -1..1, then frames of features `[T, C]`."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import math
from typing import Any, Literal

import av
import numpy as np
import soundfile

from mmjax.data.transforms.base import fail, require, require_array
from mmjax.data.transforms.media import open_media
from mmjax.errors import DataError


@dataclasses.dataclass(frozen=True)
class DecodeAudio:
    """An encoded sound, or the sound of a video, to a mono waveform float32 `[T]`.

    Channels are averaged. Another rate is brought to `rate` by polyphase filtering
    (`scipy.signal.resample_poly`, Kaiser window). An array of floats `[T]` is taken to be a waveform of
    that rate already.

    Attributes:
      rate: samples per second of the result, in Hz.
      max_seconds: a longer sound is an error.

    Raises:
      DataError: for bytes that hold no sound, or a damaged one.
    """

    rate: int
    max_seconds: float = 600.0

    def __post_init__(self):
        require(self, "rate", self.rate > 0, "more than 0 Hz")
        require(self, "max_seconds", self.max_seconds > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "f" and value.size:
            self._check_length(len(value), self.rate)
            return value.astype(np.float32)
        if not isinstance(value, bytes):
            raise fail(self, value, "the bytes of an audio or video file, or floats [T]")
        try:
            samples, rate = self._with_soundfile(value)
        except soundfile.LibsndfileError:  # a container that libsndfile does not know, such as MP4
            samples, rate = self._with_av(value)
        if not len(samples):
            raise DataError(f"decode_audio: {len(value)} bytes that hold no sound")
        if rate != self.rate:
            import scipy.signal  # takes a second, which worker processes without sound need not wait

            shared = math.gcd(rate, self.rate)
            samples = scipy.signal.resample_poly(samples, self.rate // shared, rate // shared)
        return samples.astype(np.float32)

    def _with_soundfile(self, value):
        with soundfile.SoundFile(io.BytesIO(value)) as file:
            self._check_length(file.frames, file.samplerate)
            return file.read(dtype="float32", always_2d=True).mean(axis=1), file.samplerate

    def _with_av(self, value):
        with open_media("decode_audio", value) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None or stream.codec_context is None:
                raise DataError(f"decode_audio: {len(value)} bytes that hold no sound of a known codec")
            rate = stream.rate
            to_mono = av.AudioResampler(format="fltp", layout="mono", rate=rate)
            parts, length = [], 0
            for frame in itertools.chain(container.decode(audio=0), [None]):  # None flushes the resampler
                for mono in to_mono.resample(frame):
                    parts.append(mono.to_ndarray()[0])
                    length += len(parts[-1])
                    self._check_length(length, rate)
        return np.concatenate([*parts, np.zeros(0, np.float32)]), rate

    def _check_length(self, samples, rate):
        if samples > self.max_seconds * rate:
            raise DataError(
                f"decode_audio: got {samples / rate:.1f} s of sound, expected at most {self.max_seconds} "
                "(max_seconds)"
            )


@dataclasses.dataclass(frozen=True)
class WhiteNoise:
    """Adds white noise at a fixed signal-to-noise ratio; a corruption for degraded-input tests.

    Attributes:
      snr: 10 log10 of the mean power of the input over that of the noise, in decibels.
    """

    snr: float

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        array = require_array(self, value, 1, "a waveform [T], or frames [T, C]").astype(np.float32)
        power = np.mean(np.square(array, dtype=np.float64)) / 10 ** (self.snr / 10)
        return array + np.float32(math.sqrt(power)) * rng.standard_normal(array.shape, np.float32)


@dataclasses.dataclass(frozen=True)
class LogMel:
    """A waveform `[T]` to the logarithm of its mel spectrogram, float32 `[frames, bins]`.

    Frame t holds samples `t * hop` to `t * hop + window`, without padding around the signal, so there
    are `1 + (T - window) // hop`; a signal shorter than a window is padded with zeros to one. With
    `center` frame t has its middle at sample `t * hop`, the signal mirrored at both ends, so there are
    `1 + T // hop`. Each frame loses its mean (`remove_mean`), is filtered (`preemphasis`) and weighted by
    a Hann window; its power spectrum (squared magnitude of an `n_fft`-point DFT) goes through
    `mel_filterbank`, then `log(max(power, floor))`.

    The filter banks of Kaldi and of torchaudio's `compliance.kaldi.fbank` are `remove_mean`,
    `preemphasis` 0.97, not `periodic`, scale 'kaldi', `f_min` 20 and `floor` 2^-23.

    Attributes:
      rate: samples per second, in Hz, as in `decode_audio`.
      window, hop: samples; 400 and 160 are 25 and 10 ms at 16 kHz.
      n_fft: points of the DFT, at least `window`.
      bins: mel filters.
      f_min, f_max: ends of the lowest and the highest filter in Hz; f_max none is rate / 2.
      scale: see `mel_filterbank`.
      floor: smallest power.
      center: whether frames are centred on their time.
      unit: of the result: the 'natural' logarithm, or 'decibel', 10 log10.
      remove_mean: whether the mean of each frame is taken off it.
      preemphasis: p of the filter x[i] - p x[i - 1] within each frame, with x[0] - p x[0] at its start.
      periodic: whether the window is periodic, cos(2 pi i / window), or symmetric, window - 1 there.
    """

    rate: int = 16000
    window: int = 400
    hop: int = 160
    n_fft: int = 512
    bins: int = 80
    f_min: float = 0.0
    f_max: float | None = None
    scale: Literal["htk", "slaney", "kaldi"] = "htk"
    floor: float = 1e-10
    center: bool = False
    unit: Literal["natural", "decibel"] = "natural"
    remove_mean: bool = False
    preemphasis: float = 0.0
    periodic: bool = True

    def __post_init__(self):
        for field in ("rate", "window", "hop", "bins", "floor"):
            require(self, field, getattr(self, field) > 0, "more than 0")
        require(self, "n_fft", self.n_fft >= self.window, f"at least window, {self.window}")
        require(self, "f_min", 0 <= self.f_min < self._f_max, f"0 or more, below f_max, {self._f_max}")
        require(self, "f_max", self._f_max <= self.rate / 2, f"at most half the rate, {self.rate / 2}")
        require(self, "preemphasis", 0 <= self.preemphasis < 1, "0 or more, below 1")
        require(self, "window", self.window > 1 or self.periodic, "more than 1")

    @property
    def _f_max(self):
        return self.rate / 2 if self.f_max is None else self.f_max

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        signal = require_array(self, value, 1, "a waveform [T] (from decode_audio)")
        if signal.ndim != 1:
            raise fail(self, value, "a waveform [T] (from decode_audio)")
        signal = np.pad(signal, (0, max(0, self.window - len(signal))))
        if self.center:
            signal = np.pad(signal, self.window // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(signal, self.window)[:: self.hop]
        if self.remove_mean:
            frames = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64)
        if self.preemphasis:
            before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1, dtype=np.float64)
            frames = frames - self.preemphasis * before
        period = self.window if self.periodic else self.window - 1
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / period)
        power = np.abs(np.fft.rfft(frames * hann, self.n_fft)) ** 2
        filters = mel_filterbank(self.n_fft, self.rate, self.bins, self.f_min, self._f_max, self.scale)
        power = np.maximum(power @ filters, self.floor)
        logarithm = np.log(power) if self.unit == "natural" else 10 * np.log10(power)
        return logarithm.astype(np.float32)


@functools.lru_cache(maxsize=16)
def mel_filterbank(n_fft: int, rate: int, bins: int, f_min: float, f_max: float, scale: str) -> np.ndarray:
    """Triangular filters, float64 `[n_fft // 2 + 1, bins]`, from powers at DFT frequencies to mel bins.

    `bins + 2` corner frequencies lie evenly on the mel scale from `f_min` to `f_max`; filter i rises in
    a straight line (in Hz) from corner i to corner i + 1 and falls to corner i + 2.

    - 'htk': mel(f) = 2595 log10(1 + f / 700); the peak of each filter is 1.
    - 'kaldi': mel(f) = 1127 ln(1 + f / 700), nearly the same; the lines are straight in mel.
    - 'slaney' (Slaney, Auditory Toolbox, 1998): mel(f) = 3 f / 200 below 1000 Hz, and
      15 + 27 ln(f / 1000) / ln(6.4) above; each filter is scaled to unit area, a peak of
      2 / (corner i + 2 - corner i).
    """
    to_mel, to_hz = _SCALES[scale]
    corners = np.linspace(to_mel(np.float64(f_min)), to_mel(np.float64(f_max)), bins + 2)
    frequencies = np.arange(n_fft // 2 + 1)[:, None] * rate / n_fft
    if scale == "kaldi":
        frequencies = to_mel(frequencies)
    else:
        corners = to_hz(corners)
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies - low) / (peak - low)
    falling = (high - frequencies) / (high - peak)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if scale == "slaney":
        filters *= 2 / (high - low)
    filters.flags.writeable = False  # shared by every caller of the cache
    return filters


def _htk_mel(f):
    return 2595 * np.log10(1 + f / 700)


def _htk_hz(mel):
    return 700 * (10 ** (mel / 2595) - 1)


def _slaney_mel(f):
    return np.where(f < 1000, 3 * f / 200, 15 + 27 * np.log(np.maximum(f, 1000) / 1000) / np.log(6.4))


def _slaney_hz(mel):
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))


def _kaldi_mel(f):
    return 1127 * np.log1p(f / 700)


def _kaldi_hz(mel):
    return 700 * np.expm1(mel / 1127)


# To mel, and back to Hz.
_SCALES = {
    "htk": (_htk_mel, _htk_hz),
    "slaney": (_slaney_mel, _slaney_hz),
    "kaldi": (_kaldi_mel, _kaldi_hz),
}


@dataclasses.dataclass(frozen=True)
class PadSilence:
    """A sound `[T, ...]` with zeros after it, up to `length` places; unlike those of `pad` they are real.

    A longer one stays as it is.

    Attributes:
      length: places of the result, for instance samples.
    """

    length: int

    def __post_init__(self):
        require(self, "length", self.length > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        array = require_array(self, value, 1, "a waveform [T], or frames [T, C]")
        missing = max(0, self.length - len(array))
        return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))


@dataclasses.dataclass(frozen=True)
class DynamicRange:
    """Raises what lies more than `range` below the largest value of an array to that.

    Known as `top_db` where the values are decibels.

    Attributes:
      range: in the unit of the values.
    """

    range: float

    def __post_init__(self):
        require(self, "range", self.range > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        array = require_array(self, value, 2, "frames [T, C]").astype(np.float32)
        return np.maximum(array, array.max() - self.range) if array.size else array


@dataclasses.dataclass(frozen=True)
class RepeatTo:
    """A sound `[T, ...]` repeated to `length` places of its first axis; a longer one stays as it is.

    Attributes:
      length: places of the result, for instance samples.
      partial: whether the last repetition is cut; otherwise it is repeated as often as it fits whole,
        and zeros follow.
    """

    length: int
    partial: bool = False

    def __post_init__(self):
        require(self, "length", self.length > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        array = require_array(self, value, 1, "a waveform [T], or frames [T, C]")
        if not len(array):
            raise fail(self, value, "at least one place on the first axis")
        if len(array) >= self.length:
            return array
        times = -(-self.length // len(array)) if self.partial else self.length // len(array)
        array = np.concatenate([array] * times)[: self.length]
        return np.pad(array, [(0, self.length - len(array))] + [(0, 0)] * (array.ndim - 1))


@dataclasses.dataclass(frozen=True)
class StandardiseFrames:
    """Mean 0 and standard deviation 1 of each channel of `[T, C]` over its own frames, or of `[T]`.

    Known as cepstral mean and variance normalisation where the channels are MFCCs.

    Attributes:
      epsilon: added to the variance, for channels that do not change.
    """

    epsilon: float = 1e-6

    def __post_init__(self):
        require(self, "epsilon", self.epsilon > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        frames = require_array(self, value, 1, "frames [T, C], or a waveform [T]").astype(np.float32)
        deviation = np.sqrt(frames.var(axis=0) + self.epsilon)
        return (frames - frames.mean(axis=0)) / deviation


@dataclasses.dataclass(frozen=True)
class SpecAugment:
    """Hides bands of channels and stretches of time of `[T, C]` (Park et al. 2019, 1904.08779).

    Section 2 of the paper without time warping. What is hidden becomes the mean of the input, which
    is the zero of the paper's mean-normalised spectrograms.

    Attributes:
      frequency_masks, frequency_width: how many, and the widest in channels (m_F and F).
      time_masks, time_width: how many, and the widest in frames (m_T and T).
      time_fraction: a time mask is at most this fraction of the frames (p).
    """

    frequency_masks: int = 2
    frequency_width: int = 27
    time_masks: int = 2
    time_width: int = 100
    time_fraction: float = 1.0

    def __post_init__(self):
        for field in ("frequency_masks", "frequency_width", "time_masks", "time_width"):
            require(self, field, getattr(self, field) >= 0, "0 or more")
        require(self, "time_fraction", 0 <= self.time_fraction <= 1, "0 to 1")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        frames = require_array(self, value, 2, "frames [T, C]").astype(np.float32)
        length, channels = frames.shape
        longest = min(self.time_width, int(self.time_fraction * length))
        mean = frames.mean() if frames.size else 0.0
        for _ in range(self.frequency_masks):
            frames[:, _stretch(channels, self.frequency_width, rng)] = mean
        for _ in range(self.time_masks):
            frames[_stretch(length, longest, rng)] = mean
        return frames


def _stretch(length, widest, rng):
    width = int(rng.integers(min(widest, length) + 1))
    start = int(rng.integers(length - width + 1))
    return slice(start, start + width)
