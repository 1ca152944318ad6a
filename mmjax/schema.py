"""Every key that all configs share, with its type, default and meaning.

Keys of components (an encoder, a loss) are the fields of the component's dataclass, see
`mmjax.components`. Durations are written as one of `*_steps`, `*_epochs`, `*_examples`,
`*_percent` (of the whole run) and converted in one place, `mmjax.training.schedules`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from mmjax.components import component


def _section(cls):
    return dataclasses.field(default_factory=cls)


def _empty(kind):
    return dataclasses.field(default_factory=kind)


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices along each axis; one of them may be -1, which takes what is left.

    max_replicated: where fsdp or tensor split parameters, the largest share of their bytes that may
      still lie whole on every device; models below 1 GiB may have any.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1
    max_replicated: float = 0.2


@dataclasses.dataclass(frozen=True)
class Stream:
    """How one stream is read from a record and made into arrays.

    features: the record's features it reads; the transforms get the value, or the list of values
      where several are named.
    train, eval: the transforms, in order, for training and for everything else (evaluation,
      prediction: it travels with the checkpoint).
    drop_rate: probability that training hides this stream of an example that has another one.
    """

    features: list[str]
    train: list[component("transforms")] = _empty(list)
    eval: list[component("transforms")] = _empty(list)
    drop_rate: float = 0.0


@dataclasses.dataclass(frozen=True)
class EvalData:
    """A named data set that evaluators read.

    dataset: where the records come from.
    streams: transforms that replace the stream's `eval` ones here (degraded inputs, say).
    drop: streams that are hidden from the model here.
    labels: as `data.labels`, for labels that training does not have, or that another feature holds here.
    """

    dataset: component("datasets")
    streams: dict[str, list[component("transforms")]] = _empty(dict)
    drop: list[str] = _empty(list)
    labels: dict[str, str] = _empty(dict)


@dataclasses.dataclass(frozen=True)
class Data:
    """Where examples come from.

    dir: where prepared data lives; empty means $MMJAX_DATA_DIR, else ~/.cache/mmjax.
    train: the training data set (`{'type': 'mixture', ...}` for several).
    eval: named data sets for the evaluators.
    streams: the streams of the model, by name.
    labels: name in the batch -> feature of the record (class index, multi-hot, number, id).
    tokenizers: by name, for the `tokenize` transform; saved with the run.
    batch_transforms: run on the whole batch on the device (MixUp, CutMix), in training only.
    num_workers: processes that read and transform; 0 does it in this one.
    prefetch: batches kept ready on the device.
    """

    train: component("datasets")
    streams: dict[str, Stream]
    eval: dict[str, EvalData] = _empty(dict)
    labels: dict[str, str] = _empty(dict)
    tokenizers: dict[str, component("tokenizers")] = _empty(dict)
    batch_transforms: list[component("batch_transforms")] = _empty(list)
    dir: str = ""
    num_workers: int = 0
    prefetch: int = 2


@dataclasses.dataclass(frozen=True)
class ModelStream:
    """One input of the model.

    kind: what its array is: image `[B, height, width, C]`, text `[B, L]`, audio `[B, T, C]`,
      waveform `[B, T]`, video `[B, T, height, width, C]`.
    encoder: how it becomes `Features`.
    share: name of another stream whose encoder (and parameters) it uses instead.
    init: published weights the encoder starts from, 'hf:DIRECTORY', 'hf:owner/name' (of the hub) or
      'package:NAME'; empty starts fresh. Its architecture must be that of the encoder.
    """

    kind: Literal["image", "text", "audio", "waveform", "video"]
    encoder: component("encoders") | None = None
    share: str | None = None
    init: str = ""


@dataclasses.dataclass(frozen=True)
class View:
    """The same model, with the same parameters, on another view of the examples.

    streams: stream of the model -> the entry of `data.streams` that it reads here instead.
    drop: streams that fusion and heads miss here, as in examples that lack them.
    """

    streams: dict[str, str] = _empty(dict)
    drop: list[str] = _empty(list)


@dataclasses.dataclass(frozen=True)
class Model:
    """streams -> encoders -> fusion (adds the entry 'fused') -> heads (each adds its output).

    views: by name; each adds all outputs again, as '<view>/<output>'. They are for objectives that
      compare views, and are left out where their arrays are not there, as in prediction.
    """

    streams: dict[str, ModelStream]
    fusion: component("fusions") | None = None
    heads: dict[str, component("heads")] = _empty(dict)
    views: dict[str, View] = _empty(dict)


@dataclasses.dataclass(frozen=True)
class Init:
    """Parameters to start from.

    weights: published weights of a whole model, named as in `ModelStream.init`: its encoders, and the heads
      that have the same names; empty starts fresh.
    run: a run's directory, whose last checkpoint is read, after `weights`; empty takes none.
    step: which checkpoint of it; none takes the best where one was chosen, else the last.
    include, exclude: regular expressions on parameter paths; of `run`, what is not included, and what is
      excluded, is not taken.
    """

    weights: str = ""
    run: str = ""
    step: int | None = None
    include: list[str] = dataclasses.field(default_factory=lambda: [".*"])
    exclude: list[str] = _empty(list)


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank factors that are trained instead of kernels, see `mmjax.training.lora`.

    rank: r, columns of A and rows of B; 0 has no factors.
    alpha: the product A B is multiplied by alpha / rank; none is the rank.
    patterns: regular expressions of parameter paths; of what they match, the kernels get factors and
      do not move. What else moves is up to `optimizer.frozen`.
    """

    rank: int = 0
    alpha: float | None = None
    patterns: list[str] = _empty(list)


@dataclasses.dataclass(frozen=True)
class Multiplier:
    """`factor` on the learning rate of every parameter whose path `pattern` (a regex) matches."""

    pattern: str
    factor: float


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How parameters move.

    method: the update rule (`adamw`, `lion`, `sgd`, `adafactor`).
    schedule: the learning rate over the run.
    clip_norm: largest global norm of the gradient; none leaves it.
    accumulate_steps: microbatches a step is computed in. Losses always see the whole batch: where they
      compare examples, the gradient is cached at the model's outputs (GradCache), so negatives are
      never lost.
    frozen: regular expressions of parameter paths that do not move, and carry no optimizer state and
      no moving average.
    multipliers: factors on the learning rate of parameters; the first pattern that matches counts.
    layer_decay: factor on the learning rate per layer below the top of each encoder (1 = none).
    ema: decay of an exponential moving average of the parameters, evaluated instead of them; 0 = none.
    offload: whether the optimizer's state lies in the memory of the hosts while a step computes
      gradients.
    """

    method: component("optimizers")
    schedule: component("schedules")
    clip_norm: float | None = None
    accumulate_steps: int = 1
    frozen: list[str] = _empty(list)
    multipliers: list[Multiplier] = _empty(list)
    layer_decay: float = 1.0
    ema: float = 0.0
    offload: bool = False


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When the whole state is saved, and which saves stay.

    every_*: at most one; none saves only at the end (and on SIGTERM).
    keep: newest checkpoints kept; the best one by `best_metric` is kept besides.
    """

    every_steps: int | None = None
    every_epochs: float | None = None
    every_examples: int | None = None
    every_percent: float | None = None
    keep: int = 2
    best_metric: str | None = None
    best_mode: Literal["max", "min"] = "max"


@dataclasses.dataclass(frozen=True)
class Log:
    """every_steps: steps between lines of `metrics.jsonl`; the rest are further writers."""

    every_steps: int = 10
    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = "mmjax"


@dataclasses.dataclass(frozen=True)
class Config:
    """A run.

    Exactly one of total_steps, total_epochs, total_examples says how long it trains. With 0 it trains
    nothing, and evaluates what it starts from.
    dtype: what the model computes in; parameters are always float32.
    remat: what each block recomputes in the backward pass. False keeps all activations, true recomputes
      all; 'dots' keeps the results of matrix products, 'dots_with_no_batch_dims' those of products with
      parameters and not the scores of attention; 'elementwise' recomputes hardly more than normalisations,
      activations and those scores.
    scan: compile one transformer block per stack and scan it over the layers, which takes a deep model
      less time to compile; `init.run` reads runs of either form.
    """

    data: Data
    model: Model
    objectives: dict[str, component("objectives")]
    optimizer: Optimizer
    seed: int = 0
    batch_size: int = 128
    total_steps: int | None = None
    total_epochs: float | None = None
    total_examples: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal[False, True, "dots", "dots_with_no_batch_dims", "elementwise"] = False
    scan: bool = False
    init: Init = _section(Init)
    lora: Lora = _section(Lora)
    mesh: Mesh = _section(Mesh)
    checkpoint: Checkpoint = _section(Checkpoint)
    evals: dict[str, component("evaluators")] = _empty(dict)
    log: Log = _section(Log)
