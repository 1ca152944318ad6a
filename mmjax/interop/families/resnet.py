"""ResNet (He et al. 2015, arXiv:1512.03385)."""

from __future__ import annotations

from mmjax.interop.family import (
    Family,
    Settings,
    canonical_names,
    one_stream,
    only_encoder,
    their_activation,
)
from mmjax.interop.layouts import batch_counters, batch_norm, conv
from mmjax.interop.processors import IMAGENET, image_transforms

DEFAULTS = {
    "num_channels": 3,
    "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048],
    "depths": [3, 4, 6, 3],
    "layer_type": "bottleneck",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}
# Of the published models; their class has other defaults, which a file need not repeat.
PROCESSOR = {
    "size": {"shortest_edge": 224},
    "crop_pct": 0.875,
    "resample": 3,
    **IMAGENET,
}
# From this size on images are squeezed into a square instead of cropped to one.
_SQUEEZED_FROM = 384


def section(config, keys):
    """The encoder alone."""
    del keys
    given = Settings(config, DEFAULTS)
    return one_stream(
        "image",
        {
            "type": "resnet",
            "variant": "custom",
            "block": given["layer_type"],
            "depths": list(given["depths"]),
            "widths": list(given["hidden_sizes"]),
            "stem_width": given["embedding_size"],
            "downsample_in_first_stage": given["downsample_in_first_stage"],
            "downsample_in_bottleneck": given["downsample_in_bottleneck"],
            "activation": given.activation(),
            "inner_activation": "relu",
            "norm": "batch",
        },
    )


def entries(section):
    """Every tensor."""
    part = section["streams"]["image"]["encoder"]
    found = _convolution("embedder.embedder", "image_encoder/stem")
    before = part["stem_width"]
    for stage, (depth, width) in enumerate(zip(part["depths"], part["widths"], strict=True)):
        for i in range(depth):
            theirs, ours = f"encoder.stages.{stage}.layers.{i}", f"image_encoder/stage_{stage}_block_{i}"
            for j in range(2 if part["block"] == "basic" else 3):
                found += _convolution(f"{theirs}.layer.{j}", f"{ours}/conv_{j + 1}")
            halves = i == 0 and (stage > 0 or part["downsample_in_first_stage"])
            if halves or before != width:
                found += _convolution(f"{theirs}.shortcut", f"{ours}/shortcut")
            before = width
    return found


def _convolution(key, path):
    return [
        *conv(f"{key}.convolution", f"{path}/conv", bias=False),
        *batch_norm(f"{key}.normalization", f"{path}/norm"),
    ]


def inputs(config):
    """An image; of any size."""
    return {"image": ((32, 32, Settings(config, DEFAULTS)["num_channels"]), "float32")}


def export(section, shapes):
    """config.json."""
    part = only_encoder("ResNet", section, "image", "resnet", {"norm": "batch", "inner_activation": "relu"})
    return {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": shapes["params/image_encoder/stem/conv/kernel"][2],
        "embedding_size": part["stem_width"],
        "hidden_sizes": list(part["widths"]),
        "depths": list(part["depths"]),
        "layer_type": part["block"],
        "hidden_act": their_activation(part["activation"]),
        "downsample_in_first_stage": part["downsample_in_first_stage"],
        "downsample_in_bottleneck": part["downsample_in_bottleneck"],
    }


def constants(section):
    """The counters of batches."""
    return batch_counters(entries(section))


def transforms(config, settings):
    """Their image processor."""
    del config
    return {"image": cropped_share(settings)}


def cropped_share(settings):
    """The transforms of an image processor that crops the middle share `crop_pct` of a larger image."""
    given = {key: value for key, value in settings.items() if value is not None}
    if "crop_pct" not in given and "size" in given:  # another processor
        return image_transforms(given, PROCESSOR)
    given = PROCESSOR | given
    side = given["size"] if isinstance(given["size"], int) else given["size"]["shortest_edge"]
    if side >= _SQUEEZED_FROM:
        size = {"size": {"height": side, "width": side}}
    else:
        larger = int(side / given["crop_pct"])
        size = {"size": {"shortest_edge": larger}, "do_center_crop": True, "crop_size": side}
    return image_transforms(given | size, PROCESSOR)


canonical = canonical_names("resnet.", unused=("classifier.",), unused_ends=(".num_batches_tracked",))
FAMILY = Family(("resnet",), section, entries, inputs, export, transforms, canonical, constants)
