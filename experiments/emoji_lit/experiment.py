"""What a published text encoder brings to retrieval on few examples."""

from mmjax.reproduce import Claim, Experiment, Row, percent

TEXT = """
Text to image on 285 base emoji whose concepts no training example shows: for a caption (English name and
keywords), is the right drawing among the first 1 or 10? Both rows are LiT with the text encoder locked; only
the descriptors' linear map and the two projections learn, from 1,618 drawings. One has MiniLM's published
weights, the other the same architecture with random ones. The control learns nothing: captions are looked
up by the overlap of their words, weighted by rarity, with those of the training data, and the drawings found
there are compared with the test drawings pixel by pixel. The quickstart, whose text encoder learns from these
captions and five more languages alone, stands in ../emoji_groups.
"""

RETRIEVAL = "retrieval/text_to_image/R@10"

EXPERIMENT = Experiment(
    title="Emoji retrieval with a locked MiniLM",
    text=TEXT,
    source="an experiment of this project; no paper reports these numbers.",
    cost="6 runs of 2 to 6 minutes on two idle cores; the times below were taken beside other work.",
    rows=[
        Row("minilm", "MiniLM, locked", "configs/lit.py"),
        Row(
            "random",
            "the same encoder with random weights, locked",
            "configs/lit.py",
            {"model.streams.text.init": ""},
        ),
    ],
    columns=[
        percent("retrieval/text_to_image/R@1", "text to image R@1"),
        percent(RETRIEVAL, "R@10"),
        percent(f"baseline/bag_of_words/{RETRIEVAL}", "its bag of words R@10"),
        percent("retrieval/image_to_text/R@10", "image to text R@10"),
        percent("zero_shot/subgroup_id/accuracy", "zero-shot subgroup"),
    ],
    seeds=[0, 1, 2],
    claims=[
        Claim("published weights help", RETRIEVAL, ["minilm"], ["random"]),
    ],
)
