"""Records in memory and the `data` section that reads them."""

import io

import numpy as np
from PIL import Image

from mmjax import components
from mmjax.data.source import ListSource
from mmjax.schema import Stream

SIZE = 6


def png(i):
    """A grey image of level 3 i, modulo 256."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 3 * i % 256, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def record(i, **changes):
    base = {
        "image": png(i),
        "frames": np.full((1 + i % 4, 2), i, np.float32),
        "label": i % 5,
        "rating": i / 2,
        "names": {"en": f"one {i}", "de": f"eins {i}"},
    }
    return base | changes


def source(count, name="toy", **changes):
    return ListSource([record(i, **changes) for i in range(count)], name=name)


NORMALISE = {"type": "normalise", "mean": [0.0], "std": [1.0]}


def image_stream(**changes):
    return {
        "features": ["image"],
        "train": [{"type": "decode_image"}, {"type": "random_crop", "size": SIZE}, NOISE, NORMALISE],
        "eval": [{"type": "decode_image"}, {"type": "center_crop", "size": SIZE}, NORMALISE],
    } | changes


NOISE = {"type": "gaussian_noise", "std": 0.02}


def frames_stream(**changes):
    transforms = [{"type": "pad", "length": 4}]
    return {"features": ["frames"], "train": [NOISE, *transforms], "eval": transforms} | changes


def section(streams=None, labels=None, evals=None, num_workers=0):
    """A normalised `data` section, as far as pipelines read it."""
    streams = {"image": image_stream(), "frames": frames_stream()} if streams is None else streams
    transforms = components.component("transforms")
    return {
        "streams": {k: components.normalise(v, Stream, f"data.streams.{k}") for k, v in streams.items()},
        "labels": {"label": "label"} if labels is None else labels,
        "eval": {
            name: {
                "drop": part.get("drop", []),
                "labels": part.get("labels", {}),
                "streams": {
                    k: components.normalise(v, list[transforms], f"data.eval.{name}.streams.{k}")
                    for k, v in part.get("streams", {}).items()
                },
            }
            for name, part in (evals or {}).items()
        },
        "num_workers": num_workers,
    }


def take(batches, count):
    """The first batches of an iterator, which is closed."""
    try:
        return [{k: np.array(v) for k, v in next(batches).items()} for _ in range(count)]
    finally:
        batches.close()


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
