"""All fusions on written and spoken digits: clean, degraded, and with one of the two missing."""

from mmjax.reproduce import Experiment, Row, percent

TEXT = """
A classifier tells a digit from an MNIST image and from the MFCCs of a spoken digit. The data, the
corruptions and the columns are those of the experiment `av_digits`, whose page describes them. Rows have
the same encoders (CNNs of width 64), the same training and the same modality dropout (0.25); they differ
in the fusion alone, of width 64 and with one or two layers where it has layers (`configs/av_digits.py`).
Two fusions work between the blocks of encoders that are transformers; they have such (3 blocks of width
64), and are to be compared with the row that concatenates what these give.
Training is 6 epochs here instead of 12, so that the whole table takes less than an hour; numbers are
therefore somewhat below those of `av_digits`, and comparable only within this table.

Cells of rows that were run with fewer than the three seeds say with how many (n).

Each fusion has the settings it was first written down with: nothing was tuned for any row. Differences of
less than about twice the deviations shown mean nothing. Given the digit, image and utterance are
independent here by construction, so there is little for attention between their tokens to find; the table
tells whether every fusion trains, uses both streams, and does without either, and what it costs.
"""

FUSIONS = {
    "concat": "concatenation",
    "gated": "gated (GMU)",
    "film": "FiLM, each by the other",
    "tensor": "tensor (TFN)",
    "low_rank": "low rank (LMF)",
    "bilinear": "factorised bilinear (MFB)",
    "late": "late, mean of probabilities",
    "late_weighted": "late, learned weights",
    "late_product": "late, product of experts",
    "merged_attention": "merged attention (ViLT, FLAVA)",
    "co_attention": "co-attention (ViLBERT, LXMERT)",
    "cross_attention": "cross-attention, image looks at audio (ALBEF)",
    "perceiver_resampler": "Perceiver resampler (Flamingo)",
    "q_former": "Q-Former (BLIP-2), audio as its text",
}
TRANSFORMERS = {
    "concat": "transformers: concatenation",
    "bottleneck": "transformers: bottleneck tokens (MBT)",
    "gated_cross_attention": "transformers: gated cross-attention (Flamingo), image looks at audio",
}
EPOCHS = {"total_epochs": "6"}


EXPERIMENT = Experiment(
    title="Fusions on audio-visual digits",
    text=TEXT,
    source="an experiment of this project; no paper reports these numbers.",
    cost=(
        "51 runs of 30 to 60 CPU seconds; the data is a download of 6 MB. They were made on two cores that "
        "much other work shared: the time of a run says nothing here, and that of a step, though its fastest "
        "interval is shown, is an upper bound."
    ),
    rows=[
        *[
            Row(name, heading, f"configs/av_digits.py:fusion={name}", EPOCHS)
            for name, heading in FUSIONS.items()
        ],
        *[
            Row(f"tf_{name}", heading, f"configs/av_digits.py:fusion={name},encoders=transformer", EPOCHS)
            for name, heading in TRANSFORMERS.items()
        ],
    ],
    columns=[
        percent("classification/digit/accuracy", "clean"),
        percent("degraded/classification/digit/accuracy", "degraded"),
        percent("image_missing/classification/digit/accuracy", "image missing"),
        percent("audio_missing/classification/digit/accuracy", "audio missing"),
    ],
    seeds=[0, 1, 2],
    step_time=True,
)
