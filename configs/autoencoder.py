"""A convolutional autoencoder with a squared error, on handwritten digits.

    ./launch.sh train --config=configs/autoencoder.py

A CNN squeezes a digit of 32 x 32 pixels into one vector of 128 numbers, and a stack of transposed
convolutions draws it again. No label is used in training; afterwards a linear probe shows how much of
the digit's identity the vector holds, and the report shows digits beside their reconstructions.
"""

from ml_collections import ConfigDict

SIZE = 32
WIDTHS = [32, 64, 128]


def get_config(arg: str = "") -> ConfigDict:
    del arg  # takes none
    transforms = [
        {"type": "decode_image", "channels": 1},
        {"type": "resize", "size": SIZE},
        {"type": "normalise", "mean": [0.5], "std": [0.5]},
    ]
    test = {"type": "av_digits", "split": "test"}

    return ConfigDict(
        {
            "batch_size": 64,
            "total_epochs": 20,
            "data": {
                "train": {"type": "av_digits", "split": "train"},
                "eval": {
                    "validation": {"dataset": {**test, "split": "validation"}},
                    "test": {"dataset": test},
                },
                "streams": {"image": {"features": ["image"], "train": transforms, "eval": transforms}},
                "labels": {"digit": "label"},
            },
            "model": {
                "streams": {"image": {"kind": "image", "encoder": {"type": "cnn", "widths": WIDTHS}}},
                "heads": {
                    "reconstruction": {
                        "type": "image_decoder",
                        "reads": "image",
                        "height": SIZE,
                        "width": SIZE,
                        "channels": 1,
                        "filters": WIDTHS[::-1],
                    }
                },
            },
            "objectives": {
                "reconstruction": {
                    "type": "mse",
                    "prediction": "reconstruction",
                    "target": "image",
                    "streams": ["image"],
                }
            },
            "optimizer": {
                "method": {"type": "adamw"},
                "schedule": {"type": "cosine", "peak": 2e-3, "warmup_percent": 5.0},
                "clip_norm": 1.0,
            },
            "evals": {
                "progress": {
                    "type": "reconstruction",
                    "data": "validation",
                    "prefix": "validation",
                    "output": "reconstruction",
                    "target": "image",
                    "every_percent": 20.0,
                },
                "test": {
                    "type": "reconstruction",
                    "data": "test",
                    "output": "reconstruction",
                    "target": "image",
                },
                "digit": {
                    "type": "linear_probe",
                    "data": "test",
                    "train": "train",
                    "features": "image/pooled",
                    "label": "digit",
                },
            },
        }
    )
