"""What fusing written and spoken digits gives, clean, degraded, and with one of them missing."""

from mmjax.reproduce import Claim, Experiment, Row, percent

TEXT = """
A classifier tells a digit from an MNIST image (28 × 28), from the MFCCs of a spoken digit (13
coefficients, 6 to 92 frames), or from both. All rows have the same encoders, a CNN of width 64 for each
stream, and the same training; they differ in what joins the streams (`configs/av_digits.py`).

- **clean**: the 600 test pairs as they are.
- **degraded**: both streams corrupted. Image: Gaussian noise of standard deviation 0.25 of the range from
  black to white, and a black square over 15% of the area. Audio: Gaussian noise as strong as each
  coefficient's own variation (standard deviation 1.0), and each frame lost with probability 0.2. No
  corruption is seen in training; the severities were chosen on the validation split. With one seed all
  rows see the same corrupted inputs.
- **image missing**, **audio missing**: the test pairs with one stream hidden from the model. A row that
  has only the other stream is not touched by it.

In training each stream is drawn to be hidden with probability 0.25, and where both are, one of them
stays (`drop_rate`), so that fused models can answer from either. A stream that is alone is never hidden.

What is natural here and what is not: images and utterances are real recordings, but they never occurred
together. They are paired by label, once and fixed, so given the digit the two are independent by
construction, and so are a model's errors on them: fusion has an easier task than on scenes that were
seen and heard at once. The training split has 3,800 images but only 1,800 different utterances, each
paired with two or three images. Splits share no image and no utterance. The data carries no speaker
ids, so the same six speakers are in all splits: the audio numbers say nothing about new speakers.
"""

SINGLE = {"image": "image only", "audio": "audio only"}
FUSED = {
    "concat": "concatenation",
    "gated": "gated",
    "late": "late (mean of probabilities)",
    "co_attention": "cross-attention",
}
DEGRADED = "degraded/classification/digit/accuracy"


EXPERIMENT = Experiment(
    title="Audio-visual digits: fusion on clean, degraded and missing inputs",
    text=TEXT,
    source="an experiment of this project; no paper reports these numbers.",
    cost=(
        "18 runs of about 50 CPU seconds each; the data is a download of 6 MB. The times below are wall "
        "time on two cores that were shared with other work."
    ),
    rows=[
        Row(name, heading, f"configs/av_digits.py:fusion={name}")
        for name, heading in [*SINGLE.items(), *FUSED.items()]
    ],
    columns=[
        percent("classification/digit/accuracy", "clean"),
        percent("degraded/classification/digit/accuracy", "degraded"),
        percent("image_missing/classification/digit/accuracy", "image missing"),
        percent("audio_missing/classification/digit/accuracy", "audio missing"),
    ],
    seeds=[0, 1, 2],
    claims=[
        Claim(f"{heading}: better than either stream alone on degraded inputs", DEGRADED, [name], [*SINGLE])
        for name, heading in FUSED.items()
    ],
)
