"""LiT on public data: a locked ViT-B/16 and a text encoder that learns COCO captions."""

from mmjax.reproduce import Expected, Experiment, Row, percent

TEXT = """
A ViT-B/16 with published ImageNet-21k weights is locked; a text encoder of BERT's base size, from scratch,
learns to place COCO's captions where it places their images (`configs/lit.py:locked=image`). The authors
have published a model of this kind, trained on public data, 'coco_B16B', with the numbers below for COCO.

The test images are the 5,000 of Karpathy's split, each with five captions, any of which an image may find.

What differs: how long their model was trained is not known here, and 20 epochs is a choice of ours. So the
tolerances are wide: the row tells whether locked tuning works rather than which of two codes is better.
"""

SOURCE = "the authors' published model coco_B16B (arXiv:2111.07991)"
IMAGENET = "zero_shot/imagenet_class/accuracy"
RECALL = "retrieval/{}/R@1"

EXPERIMENT = Experiment(
    title="LiT on COCO captions",
    text=TEXT,
    source="Zhai et al., LiT: zero-shot transfer with locked-image text tuning (arXiv:2111.07991).",
    cost=(
        "1 run of 20 epochs over 83,000 images, not timed yet. COCO and ImageNet are prepared once by TFDS "
        "with TensorFlow (`mmjax.data.datasets.public`); the weights come from the Hugging Face hub."
    ),
    rows=[
        Row(
            "coco_b16",
            "B/16, text from scratch",
            "configs/lit.py:locked=image,img=hf:google/vit-base-patch16-224-in21k,data=coco,batch=4096,epochs=20,imagenet=true",
            {"data.eval.validation.dataset.dataset.split": "test", "data.num_workers": "32"},
            {
                IMAGENET: Expected(20.7, 3.0, SOURCE),
                RECALL.format("image_to_text"): Expected(47.2, 8.0, SOURCE),
                RECALL.format("text_to_image"): Expected(32.1, 4.0, SOURCE),
            },
            needs="8 TPU chips, COCO captions, ImageNet-1k and weights of the Hugging Face hub",
        )
    ],
    columns=[
        percent(IMAGENET, "ImageNet zero-shot top-1"),
        percent(RECALL.format("image_to_text"), "image to text R@1"),
        percent(RECALL.format("text_to_image"), "text to image R@1"),
    ],
    seeds=[0],
)
