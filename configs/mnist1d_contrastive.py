"""MNIST-1D without labels: two random views of a signal find each other, and a linear probe tells the digit.

    ./launch.sh train --config=configs/mnist1d_contrastive.py
    ./launch.sh train --config=configs/mnist1d_contrastive.py:projector=false,negatives=other

SimCLR (Chen et al. 2020, arXiv:2002.05709) on signals, after the self-supervised notebook of the authors
of MNIST-1D (Greydanus and Kobak 2020, arXiv:2011.14439): 200 epochs, 100 signals in a batch, temperature
0.5. A view is the signal without its trend, rolled to a random place, with a random trend. The encoder is
the CNN of the notebook on classification; its output, all places side by side, is what the probes read.

Argument `projector`: whether the loss sees it through an MLP, or as it is. Argument `negatives`: `all`
repels a view from all others of the batch (NT-Xent, SimCLR's loss), `other` from those of the other side
alone (InfoNCE).
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.errors import ConfigError

WIDTH = 128  # of the projector
LOSSES = {"all": "nt_xent", "other": "infonce"}
VIEW = [{"type": "detrend"}, {"type": "random_roll"}, {"type": "random_trend", "offset": 0.3, "slope": 0.04}]


def get_config(arg: str = "") -> ConfigDict:
    args = config_lib.arguments(arg, projector=True, negatives="all")
    if args.negatives not in LOSSES:
        expected = ", ".join(LOSSES)
        raise ConfigError(f"argument negatives: got '{args.negatives}', expected one of: {expected}")
    stream = {"features": ["signal"], "train": VIEW}  # evaluated as it is
    projection = {"type": "projection", "reads": "signal", "activation": "relu", "use_bias": True}
    hidden = {"hidden": [WIDTH], "width": WIDTH} if args.projector else {"width": 0}
    test = {"data": "test", "label": "digit_id"}
    linear, nearest = (
        {"type": "linear_probe", **test},
        {"type": "knn", **test, "k": 10, "metric": "euclidean"},
    )
    return ConfigDict(
        {
            "batch_size": 100,
            "total_epochs": 200.0,
            "data": {
                "train": {"type": "mnist1d", "split": "train"},
                "eval": {"test": {"dataset": {"type": "mnist1d", "split": "test"}}},
                "streams": {"signal": stream, "other": stream},
                "labels": {"digit_id": "label"},
            },
            "model": {
                "streams": {
                    "signal": {
                        "kind": "audio",
                        "encoder": {
                            "type": "flatten",
                            "length": 5,
                            "encoder": {
                                "type": "audio_cnn",
                                "widths": [25, 25, 25],
                                "kernels": [5, 3, 3],
                                "padding": 1,
                                "norm": "none",
                            },
                        },
                    }
                },
                "heads": {"embedding": {**projection, **hidden}},
                "views": {"second": {"streams": {"signal": "other"}}},
            },
            "objectives": {
                "contrast": {
                    "type": LOSSES[args.negatives],
                    "a": "embedding",
                    "b": "second/embedding",
                    "streams": ["signal", "other"],
                    "temperature": 0.5,
                }
            },
            "optimizer": {
                "method": {"type": "adamw", "weight_decay": 0.0},
                "schedule": {"type": "constant", "peak": 1e-3},
            },
            "log": {"every_steps": 40},  # an epoch
            "evals": {
                "linear": {**linear, "features": "signal/pooled"},
                "knn": {**nearest, "features": "signal/pooled"},
                "raw_linear": {**linear, "features": "signal", "prefix": "raw"},
                "raw_knn": {**nearest, "features": "signal", "prefix": "raw"},
            },
        }
    )
