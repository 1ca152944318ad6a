"""Better plain ViT baselines: ViT-S/16 on ImageNet-1k."""

from mmjax.reproduce import Expected, Experiment, Row, percent

TEXT = """
A plain ViT-S/16 (22 million parameters) learns ImageNet-1k with a short recipe: batches of 1,024, AdamW,
MixUp and RandAugment, for 90, 150 or 300 epochs (`configs/plain_vit.py`). It is the first thing to run on a
new pod: an error in data, augmentation, precision or schedule shows here.

The numbers are top-1 accuracies on the 50,000 validation images. What differs from the authors' code:
RandAugment has the fourteen operations of its paper, and the classifier begins at random and not at zero.
"""

ACCURACY = "classification/class/accuracy"
SOURCE = "arXiv:2205.01580, table 1"

EXPERIMENT = Experiment(
    title="Better plain ViT: S/16 on ImageNet-1k",
    text=TEXT,
    source="Beyer, Zhai and Kolesnikov, Better plain ViT baselines for ImageNet-1k (arXiv:2205.01580).",
    cost=(
        "3 runs, of 90, 150 and 300 epochs; by the paper, 90 epochs take under seven hours on a TPU v3-8. "
        "ImageNet is prepared once from its archives by TFDS with TensorFlow (`mmjax.data.datasets.public`)."
    ),
    rows=[
        Row(
            f"epochs_{epochs}",
            f"{epochs} epochs",
            f"configs/plain_vit.py:size=S/16,data=imagenet2012,epochs={epochs}",
            {"data.num_workers": "32"},
            {ACCURACY: Expected(accuracy, 0.4, SOURCE)},
            needs="a TPU v3-8 or better, and ImageNet-1k",
        )
        for epochs, accuracy in ((90, 76.5), (150, 78.5), (300, 80.0))
    ],
    columns=[percent(ACCURACY, "top-1 accuracy")],
    seeds=[0],
)
