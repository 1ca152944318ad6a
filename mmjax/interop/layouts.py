"""How one tensor of a published checkpoint becomes one of ours, and back.

PyTorch keeps linear maps as [out, in] and convolutions as [out, in, *window]; here they are [in, out]
and [*window, in, out], and attention has an axis of its own for the heads. A family lists `Entry`s;
what they say holds in both directions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

Tensor = Shaped[np.ndarray, "..."]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Equal numbers in equal order; only the shape may differ.

    Attributes:
      shape: theirs, with at most one -1; none is the shape of ours.
    """

    shape: tuple[int, ...] | None = None

    def read(self, theirs: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Our arrays of the given `shapes` from theirs; raises ValueError where they do not fit."""
        return [theirs[0].reshape(shapes[0])]

    def write(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """Their arrays from ours."""
        return [ours[0] if self.shape is None else ours[0].reshape(self.shape)]


@dataclasses.dataclass(frozen=True)
class Linear(Layout):
    """[out, in], where ours has `inputs` leading axes of input and any number of output."""

    inputs: int = 1

    def read(self, theirs, shapes):
        return [np.ascontiguousarray(theirs[0].T).reshape(shapes[0])]

    def write(self, ours):
        inputs = int(np.prod(ours[0].shape[: self.inputs]))
        return [np.ascontiguousarray(ours[0].reshape(inputs, -1).T)]


@dataclasses.dataclass(frozen=True)
class Conv(Layout):
    """[out, in, *window]."""

    def read(self, theirs, shapes):
        moved = np.moveaxis(theirs[0], (1, 0), (-2, -1))
        if moved.shape != tuple(shapes[0]):
            raise ValueError(f"got {list(moved.shape)}, expected {list(shapes[0])}")
        return [np.ascontiguousarray(moved)]

    def write(self, ours):
        return [np.ascontiguousarray(np.moveaxis(ours[0], (-2, -1), (1, 0)))]


@dataclasses.dataclass(frozen=True)
class Fused(Layout):
    """Query, key and value maps (or their biases) one after another along the first axis of one tensor."""

    inputs: int = 1  # 0 for biases

    def read(self, theirs, shapes):
        parts = np.split(theirs[0], len(shapes))
        return [np.ascontiguousarray(p.T).reshape(s) for p, s in zip(parts, shapes, strict=True)]

    def write(self, ours):
        rows = [x.reshape(-1) if not self.inputs else x.reshape(x.shape[0], -1).T for x in ours]
        return [np.ascontiguousarray(np.concatenate(rows))]


@dataclasses.dataclass(frozen=True)
class ClassAndPositions(Layout):
    """A class token and a table whose first rows are its position and those of `others`.

    Here the position of a learned vector is added to it, and the table holds the grid alone. Written
    back, those first positions are zeros: the sums are what the weights were.

    Attributes:
      class_shape, table_shape: theirs, -1 for the number of rows.
      rows: of vectors before the grid that have a position: 1, or 2 with a distillation token.
    """

    class_shape: tuple[int, ...] = (1, 1, -1)
    table_shape: tuple[int, ...] = (1, -1, 0)
    rows: int = 1

    def read(self, theirs, shapes):
        *vectors, table = theirs
        width = table.shape[-1]
        table = table.reshape(-1, width)
        vectors = np.concatenate([v.reshape(-1, width) for v in vectors])
        return [(vectors + table[: self.rows]).reshape(shapes[0]), table[self.rows :].reshape(shapes[1])]

    def write(self, ours):
        vectors, table = ours
        width = table.shape[-1]
        table = np.concatenate([np.zeros((self.rows, width), table.dtype), table.reshape(-1, width)])
        table = table.reshape([width if size == 0 else size for size in self.table_shape])
        return [*(v.reshape(self.class_shape) for v in vectors.reshape(self.rows, width)), table]


@dataclasses.dataclass(frozen=True)
class Entry:
    """Tensors of theirs and the arrays of ours they hold the numbers of.

    Attributes:
      keys: their names in the safetensors file.
      paths: ours in the variables, such as 'params/text_encoder/embedding/embedding'.
      layout: how the ones become the others.
    """

    keys: tuple[str, ...]
    paths: tuple[str, ...]
    layout: Layout = Layout()


def same(key: str, path: str, shape: tuple[int, ...] | None = None) -> list[Entry]:
    """Equal numbers; `shape` is theirs where it differs from ours."""
    return [Entry((key,), (f"params/{path}",), Layout(shape))]


def norm(key: str, path: str) -> list[Entry]:
    """A layer normalisation: 'weight' and 'bias', here 'scale' and 'bias'."""
    return same(f"{key}.weight", f"{path}/scale") + same(f"{key}.bias", f"{path}/bias")


def batch_norm(key: str, path: str) -> list[Entry]:
    """A batch normalisation with its running statistics."""
    statistics = {"running_mean": "mean", "running_var": "var"}
    return norm(key, path) + [
        Entry((f"{key}.{theirs}",), (f"batch_stats/{path}/{ours}",)) for theirs, ours in statistics.items()
    ]


def batch_counters(entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """The counts of training batches that theirs keep beside the statistics, which nothing here needs."""
    found = [key for entry in entries for key in entry.keys if key.endswith(".running_mean")]
    return {key.replace(".running_mean", ".num_batches_tracked"): np.zeros((), np.int64) for key in found}


def dense(key: str, path: str, *, bias: bool = True, inputs: int = 1) -> list[Entry]:
    """A linear map with its bias; `inputs` as in `Linear`."""
    kernel = Entry((f"{key}.weight",), (f"params/{path}/kernel",), Linear(inputs=inputs))
    return [kernel] + (same(f"{key}.bias", f"{path}/bias", (-1,)) if bias else [])


def conv(key: str, path: str, *, bias: bool = True) -> list[Entry]:
    """A convolution, or the equal map of patches, with its bias."""
    kernel = Entry((f"{key}.weight",), (f"params/{path}/kernel",), Conv())
    return [kernel] + (same(f"{key}.bias", f"{path}/bias") if bias else [])


def class_and_positions(
    keys: Sequence[str], path: str, layout: ClassAndPositions = ClassAndPositions()
) -> list[Entry]:
    """Class token and positions of the encoder at `path`; `keys` name their vectors, then their table."""
    return [Entry(tuple(keys), (f"params/{path}/cls", f"params/{path}/positions/table"), layout)]


def fused_qkv(key: str, path: str, *, bias: bool = True) -> list[Entry]:
    """Query, key and value of the attention at `path`, which are one tensor, `key` + 'weight', in theirs.

    With `bias` there is one of their biases too, `key` + 'bias'.
    """
    maps = [f"params/{path}/{part}" for part in ("query", "key", "value")]
    found = [Entry((f"{key}weight",), tuple(f"{name}/kernel" for name in maps), Fused())]
    if bias:
        found.append(Entry((f"{key}bias",), tuple(f"{name}/bias" for name in maps), Fused(inputs=0)))
    return found


def zero_pooler(width: int) -> dict[str, np.ndarray]:
    """A pooler of zeros, for a model of ours without one: without it theirs would not load strictly."""
    return {
        "pooler.dense.weight": np.zeros((width, width), np.float32),
        "pooler.dense.bias": np.zeros(width, np.float32),
    }


@dataclasses.dataclass(frozen=True)
class BlockNames:
    """What a family calls the parts of a transformer block, after `prefix`; '{i}' is its number."""

    prefix: str
    query: str
    key: str
    value: str
    out: str
    attention_norm: str
    mlp_norm: str
    up: str
    down: str


def blocks(names: BlockNames, path: str, encoder: dict) -> list[Entry]:
    """All blocks of an encoder.

    Args:
      names: theirs.
      path: ours, such as 'image_encoder'.
      encoder: its config section, of a `TransformerEncoder`.
    """
    found, biases = [], encoder["attention_biases"]
    for i in range(encoder["depth"]):
        theirs, ours = names.prefix.format(i=i), f"{path}/blocks_{i}"
        for part in ("query", "key", "value", "out"):
            found += dense(
                theirs + getattr(names, part),
                f"{ours}/attention/{part}",
                bias=part in biases,
                inputs=2 if part == "out" else 1,
            )
        found += norm(theirs + names.attention_norm, f"{ours}/attention_norm")
        found += norm(theirs + names.mlp_norm, f"{ours}/mlp_norm")
        found += dense(theirs + names.up, f"{ours}/mlp/up") + dense(theirs + names.down, f"{ours}/mlp/down")
    return found
