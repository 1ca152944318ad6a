"""MBT on the small AudioSet: one frame, the sound, and both through bottleneck tokens."""

from mmjax.reproduce import Claim, Expected, Experiment, Row, percent

TEXT = """
Two transformers read a frame and the spectrogram of a clip, and talk through four bottleneck tokens in
their last four blocks (`configs/mbt.py:size=full`). The training set is the paper's small one, AudioSet's
balanced clips, as a manifest `audioset_mini.jsonl` with columns `image`, `audio`, `labels` (of 527, with
'|' between them) and `split`; the test set is AudioSet's evaluation set.

What differs from the paper: one frame of a clip is read and not eight, and the encoder of the spectrogram
begins at random and not with ImageNet-21k weights. Both cost accuracy, so the tolerances are 3 points.
"""

MAP = "classification/label/mAP"
SOURCE = "arXiv:2107.00135, trained on AudioSet-mini"
ROWS = {"audio": ("spectrogram", 30.9), "image": ("RGB", 27.0), "both": ("both, bottleneck tokens", 43.9)}

EXPERIMENT = Experiment(
    title="MBT on AudioSet-mini",
    text=TEXT,
    source="Nagrani et al., Attention bottlenecks for multimodal fusion (arXiv:2107.00135).",
    cost="3 runs of 50 epochs over some 20,000 clips, not timed yet.",
    rows=[
        Row(
            streams,
            heading,
            f"configs/mbt.py:size=full,data=audioset_mini.jsonl,epochs=50,streams={streams}",
            {"data.num_workers": "32"},
            {MAP: Expected(expected, 3.0, SOURCE)},
            needs="8 TPU chips, and the clips of AudioSet-mini",
        )
        for streams, (heading, expected) in ROWS.items()
    ],
    columns=[percent(MAP, "mAP")],
    seeds=[0],
    claims=[Claim("both streams tell more than either", MAP, ["both"], ["audio", "image"])],
)
