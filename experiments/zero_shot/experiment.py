"""Published image-text models: zero-shot on ImageNet, retrieval on COCO, without training."""

from mmjax.reproduce import Expected, Experiment, Row, percent

TEXT = """
Models as their authors published them, read from their safetensors and judged by our preprocessing, encoders
and evaluators (`configs/zero_shot.py`). Nothing is trained, so a number that is off shows a fault in one of
these.

**ImageNet**: top-1 accuracy on the 50,000 validation images; a class is the mean of its name in CLIP's 80
templates. **COCO**: 5,000 images of Karpathy's test split, each with its first five captions, 25,000 in all;
text to image, a caption must find its image, and image to text, an image any of its five captions.

What differs: images are decoded and resized by Pillow (bicubic, antialiased) here. CLIP sees the square in an
image's middle, SigLIP 2 the whole image squeezed into a square, and texts in lower case.
"""

IMAGENET = "zero_shot/imagenet_class/accuracy"
TEXT_TO_IMAGE, IMAGE_TO_TEXT = "retrieval/text_to_image/R@1", "retrieval/image_to_text/R@1"
OPENAI = "OpenCLIP's table of zero-shot results, OpenAI's weights"
SIGLIP2 = "arXiv:2502.14786, table 1"


def _row(model: str, heading: str, expected: dict[str, Expected]) -> Row:
    return Row(
        model.lower().replace("-", "_").replace("/", ""),
        heading,
        f"configs/zero_shot.py:model={model}",
        {"data.num_workers": "16"},
        expected,
        needs="an accelerator, ImageNet-1k, COCO captions and weights of the Hugging Face hub",
    )


EXPERIMENT = Experiment(
    title="Published CLIP and SigLIP 2, without training",
    text=TEXT,
    source=(
        "Radford et al., CLIP (arXiv:2103.00020), by the numbers that OpenCLIP measured with OpenAI's "
        "weights; Tschannen et al., SigLIP 2 (arXiv:2502.14786)."
    ),
    cost=(
        "4 runs of one pass over 50,000 images and 25,000 pairs, not timed yet. ImageNet and COCO are "
        "prepared once by TFDS with TensorFlow (`mmjax.data.datasets.public`); names and templates come with "
        "the package clip-benchmark."
    ),
    rows=[
        _row("clip-B/32", "CLIP B/32", {IMAGENET: Expected(63.32, 0.3, OPENAI)}),
        _row("clip-B/16", "CLIP B/16", {IMAGENET: Expected(68.34, 0.3, OPENAI)}),
        _row("clip-L/14", "CLIP L/14", {IMAGENET: Expected(75.54, 0.3, OPENAI)}),
        _row(
            "siglip2-B/16",
            "SigLIP 2 B/16",
            {
                IMAGENET: Expected(78.2, 0.3, SIGLIP2),
                TEXT_TO_IMAGE: Expected(52.1, 0.5, SIGLIP2),
                IMAGE_TO_TEXT: Expected(68.9, 0.5, SIGLIP2),
            },
        ),
    ],
    columns=[
        percent(IMAGENET, "ImageNet top-1"),
        percent(TEXT_TO_IMAGE, "COCO text to image R@1"),
        percent(IMAGE_TO_TEXT, "COCO image to text R@1"),
    ],
    seeds=[0],
)
