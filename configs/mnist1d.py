"""MNIST-1D: what a model knows of order in a signal, and what is left when the order is destroyed.

    ./launch.sh train --config=configs/mnist1d.py:model=cnn,shuffled=true

The four models and their training are those of the authors' notebook on classification (Greydanus and
Kobak 2020, arXiv:2011.14439, `notebooks/mnist1d-classification.ipynb`): Adam without weight decay, 6,000
steps of 100 signals. Argument `model`: one of `MODELS` below. With `shuffled` the samples of all signals
stand in one other order, so that convolutions and recurrence find no neighbours in them.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.errors import ConfigError

LENGTH = 40

# The classifier reads every place, and not a mean over them.
MODELS = {
    "logistic": {"type": "flatten", "length": LENGTH},
    "mlp": {"type": "mlp", "length": LENGTH, "widths": [100, 100], "residual": True},
    "cnn": {
        "type": "flatten",
        "length": 5,  # what is left of the signal
        "encoder": {
            "type": "audio_cnn",
            "widths": [25, 25, 25],
            "kernels": [5, 3, 3],
            "padding": 1,
            "norm": "none",
        },
    },
    "gru": {
        "type": "flatten",
        "length": LENGTH,
        "encoder": {"type": "rnn", "cell": "gru", "width": 6, "bidirectional": True, "second_biases": True},
    },
}


def get_config(arg: str = "") -> ConfigDict:
    args = config_lib.arguments(arg, model="cnn", shuffled=False)
    if args.model not in MODELS:
        raise ConfigError(f"argument model: got '{args.model}', expected one of: {', '.join(MODELS)}")
    accuracy = {"type": "classification", "head": "digit", "label": "digit_id", "data": "test"}
    return ConfigDict(
        {
            "batch_size": 100,
            "total_steps": 6000,
            "data": {
                "train": {"type": "mnist1d", "split": "train"},
                "eval": {"test": {"dataset": {"type": "mnist1d", "split": "test"}}},
                "streams": {"signal": {"features": ["shuffled" if args.shuffled else "signal"]}},
                "labels": {"digit_id": "label"},
            },
            "model": {
                "streams": {"signal": {"kind": "audio", "encoder": MODELS[args.model]}},
                "heads": {"digit": {"type": "classifier", "label": "digit_id", "reads": "signal"}},
            },
            "objectives": {"digit": {"type": "cross_entropy", "logits": "digit", "label": "digit_id"}},
            "optimizer": {
                "method": {"type": "adamw", "weight_decay": 0.0},
                "schedule": {"type": "constant", "peak": 1e-2},
            },
            "log": {"every_steps": 200},
            "evals": {"test": accuracy},
        }
    )
