"""From a record to an example: the arrays of its streams and labels.

Training, evaluation and prediction share it; it is all of the data pipeline that prediction needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from mmjax import components
from mmjax.components import suggestion
from mmjax.data.order import Shuffled, generator
from mmjax.data.source import Record, Source, feature
from mmjax.data.transforms.base import describe
from mmjax.errors import ConfigError, DataError

Example: TypeAlias = dict[str, np.ndarray]
# name in the batch -> (shape of one example, name of the dtype)
Spec: TypeAlias = dict[str, tuple[tuple[int, ...], str]]

_ALWAYS: Spec = {"example_id": ((), "int32"), "example_mask": ((), "bool")}
# Records that are looked at for a stream whose shape is known from elsewhere.
_PROBE = 100


class Preprocessor:
    """Makes one example of one record.

    An example holds, for each stream s: `s` (what its transforms end in), `s_mask` bool `[L]` and
    further arrays such as `s_targets` where they give these, and `s_present` bool `[]`. Labels stand
    under their names: whole numbers and bools int32, others float32; a missing one is -1 or NaN.
    'example_id' is int32 `[]`, 'example_mask' bool `[]`. A missing stream has `s_present` False and
    otherwise zeros (-1 in its targets). In evaluation the data may lack a label altogether.

    Args:
      streams: name -> {'features', 'train', 'eval', 'drop_rate'}, as in `schema.Stream`; the
        transforms are normalised specs, or built.
      labels: name in the batch -> feature of the record.
      tokenizers: by name, for the transforms that need one.
      train: uses the `train` transforms and `drop_rate`, else the `eval` transforms.
      drop: streams to leave out of every example.
      spec: shapes and types of what an example holds, from `find_spec` or a saved run (`shape` lists
        are fine). It must be known before the first example is made.
      partial: records may lack features altogether (prediction from some of the streams).

    Raises:
      ConfigError: for settings that cannot work.
    """

    def __init__(
        self,
        streams: Mapping[str, Mapping[str, Any]],
        labels: Mapping[str, str],
        tokenizers: Mapping[str, Any],
        *,
        train: bool,
        drop: Sequence[str] = (),
        spec: Mapping[str, Any] | None = None,
        partial: bool = False,
    ):
        for name in drop:
            if name not in streams:
                raise ConfigError(f"drop: '{name}' is no stream{suggestion(name, streams)}")
        for name in labels:
            if name in streams or name in _ALWAYS:
                raise ConfigError(f"data.labels.{name}: the batch has another '{name}'; rename the label")
        self._features = {name: list(stream["features"]) for name, stream in streams.items()}
        self._chains = {
            name: [_bound(t, tokenizers) for t in stream["train" if train else "eval"]]
            for name, stream in streams.items()
        }
        self._drop_rates = {n: s["drop_rate"] for n, s in streams.items() if train and s["drop_rate"] > 0}
        for name, features in self._features.items():
            if not features:
                raise ConfigError(f"data.streams.{name}.features: is empty; name at least one feature")
            if not 0 <= streams[name]["drop_rate"] <= 1:
                given = streams[name]["drop_rate"]
                raise ConfigError(f"data.streams.{name}.drop_rate: got {given}, expected 0 to 1")
        self._labels, self._drop = dict(labels), frozenset(drop)
        self._train, self._partial = train, partial
        self.spec = None if spec is None else read_spec(spec)

    @property
    def spec(self) -> Spec | None:
        """What an example holds; None as long as it is not known."""
        return self._spec

    @spec.setter
    def spec(self, spec: Spec | None):
        self._spec = spec
        # Comparing dtypes is fast, their names are slow; this is done for every array of every example.
        self._entries = {n: (shape, np.dtype(dtype)) for n, (shape, dtype) in (spec or {}).items()}

    def __call__(self, record: Record, seed: int = 0, number: int = 0) -> Example:
        """The example of a record.

        Args:
          record: see `mmjax.data.source`; 'example_id' is `number` where it has none.
          seed, number: what the randomness of augmentation is keyed by.

        Raises:
          DataError: naming the stream, the transform and the cause.
        """
        values = {name: self._value(name, record) for name in self._chains if name not in self._drop}
        present = [name for name, value in values.items() if value is not None]
        example = {}
        for name in self._kept(present, seed, number):
            # A generator takes longer to make than many a transform takes.
            rng = generator(seed, number, name) if self._chains[name] else None
            example |= self._stream(name, values[name], rng)
            example[f"{name}_present"] = np.bool_(True)
        for name, path in self._labels.items():
            value = self._label_value(record, path)
            if value is not None:
                example[name] = _label(name, value)
        example["example_id"] = np.int32(record.get("example_id", number))
        example["example_mask"] = np.bool_(True)
        return self._completed(example)

    def blank(self) -> Example:
        """The example of a row that only pads a batch: nothing present, 'example_id' -1."""
        return self._completed({"example_id": np.int32(-1), "example_mask": np.bool_(False)})

    def find_spec(self, source: Source, fallback: Mapping[str, Any] | None = None) -> Spec:
        """Shapes and types of what an example holds, from the first records that have each stream.

        Records are tried in a fixed shuffled order, since a stream may be missing in a whole stretch.

        Args:
          source: where examples come from.
          fallback: a spec to take what a stream is from, where the source seems to have none.

        Raises:
          DataError: when no record has some stream (in training, or label).
        """
        names = {*self._chains, *self._labels}
        known = {} if fallback is None else _by_name(read_spec(fallback), names)
        order, found = Shuffled(len(source), seed=0), {}
        for i in range(len(source)):
            missing = names - set(found)
            if not missing or (i >= _PROBE and missing <= set(known)):
                break
            found |= self._found(source[order(i)], missing)
        spec: Spec = {}
        for name in [*self._chains, *self._labels]:
            entries = found.get(name) or known.get(name)
            if not entries and name in self._labels and not self._train:
                continue  # nothing reads it, or the evaluator that does says so
            if not entries:
                kind = "label" if name in self._labels else "stream"
                what = self._labels.get(name) or ", ".join(self._features[name])
                raise DataError(f"{source.name}: no record has the {kind} '{name}' (feature {what})")
            for entry, shape_and_type in entries.items():
                if entry in spec:
                    raise ConfigError(f"two streams or labels both make '{entry}' in the batch; rename one")
                spec[entry] = shape_and_type
        return {**spec, **_ALWAYS}

    def _found(self, record, names):
        """name -> what it brings into the batch, for those of `names` that the record has."""
        found = {}
        for name in sorted(names):
            if name in self._labels:
                value = self._label_value(record, self._labels[name])
                made = {} if value is None else {name: _label(name, value)}
            else:
                value = self._value(name, record, may_lack=name in self._drop)
                made = {} if value is None else self._stream(name, value, generator(0, 0, name))
                made = made and {**made, f"{name}_present": np.bool_(True)}
            if made:
                found[name] = {entry: (array.shape, array.dtype.name) for entry, array in made.items()}
        return found

    def _label_value(self, record, path):
        return self._read(record, path, may_lack=not self._train)

    def _value(self, stream, record, may_lack=False):
        values = [self._read(record, path, may_lack) for path in self._features[stream]]
        if len(values) == 1:
            return values[0]
        return None if all(value is None for value in values) else values

    def _read(self, record, path, may_lack=False):
        try:
            return feature(record, path)
        except DataError:
            if self._partial or may_lack:
                return None
            raise

    def _kept(self, present, seed, number):
        """The present streams that modality dropout leaves; never none of them."""
        dropped = {
            name
            for name in present
            if name in self._drop_rates
            and generator(seed, number, f"{name}/drop").random() < self._drop_rates[name]
        }
        kept = [name for name in present if name not in dropped]
        if kept or not present:
            return kept
        return [present[int(generator(seed, number, "/keep").integers(len(present)))]]

    def _stream(self, name, value, rng):
        try:
            for transform in self._chains[name]:
                value = transform(value, rng)
        except DataError as error:
            raise DataError(f"stream '{name}': {error}") from error
        parts = value if isinstance(value, dict) else {"value": value}
        if not all(isinstance(part, np.ndarray) for part in parts.values()) or "value" not in parts:
            raise DataError(
                f"stream '{name}': its transforms end in {describe(value)}, expected an array, or "
                "{'value', 'mask'}; add the transforms that make one (decode_image, tokenize and pad, ...)"
            )
        return {name if key == "value" else f"{name}_{key}": _narrow(part) for key, part in parts.items()}

    def _completed(self, example):
        """The entries of the spec, in its order; what is not there is blank."""
        if self.spec is None:
            raise ValueError("the spec is not known yet: set it from find_spec(source)")
        for name, array in example.items():
            shape, dtype = self._entries.get(name, (None, None))
            if array.shape != shape or array.dtype != dtype:
                expected = f"{list(shape)} {dtype}" if dtype else "nothing"
                raise DataError(
                    f"'{name}' is {list(array.shape)} {array.dtype}, expected {expected} as in other "
                    "examples; end the transforms in a fixed shape (resize, crop, pad)"
                )
        return {
            name: example[name] if name in example else np.full(shape, self._blank(name, dtype), dtype)
            for name, (shape, dtype) in self._entries.items()
        }

    def _blank(self, name, dtype):
        if name in self._labels and dtype == np.float32:
            return np.nan
        is_target = name in self._labels or (name.endswith("_targets") and dtype == np.int32)
        return -1 if is_target else 0


def read_spec(spec: Mapping[str, Any]) -> Spec:
    """A spec with tuples for shapes, from one that was JSON."""
    return {name: (tuple(shape), np.dtype(dtype).name) for name, (shape, dtype) in spec.items()}


def takes_list(stream: Mapping[str, Any]) -> bool:
    """Whether the `eval` transforms of a `schema.Stream` begin with a list of values."""
    first = stream["eval"][0]["type"] if stream["eval"] else ""
    return len(stream["features"]) > 1 or first in ("first", "choose", "join_texts")


def _by_name(spec, names):
    """name -> the entries of a spec that this stream or label brings: 'text' -> 'text', 'text_mask'."""
    grouped = {}
    for entry, shape_and_type in spec.items():
        owners = [name for name in names if entry == name or entry.startswith(f"{name}_")]
        if owners:  # 'text_de_mask' is of the stream 'text_de', not of 'text'
            grouped.setdefault(max(owners, key=len), {})[entry] = shape_and_type
    return grouped


def _bound(transform, tokenizers):
    if isinstance(transform, Mapping):
        transform = components.build("transforms", transform)
    return transform.bind(tokenizers) if hasattr(transform, "bind") else transform


_NARROWER = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}


def _narrow(array):
    """float64 to float32 and int64 to int32, which is what models compute in."""
    return array.astype(_NARROWER[array.dtype]) if array.dtype in _NARROWER else array


def _label(name, value):
    array = np.asarray(value)
    if array.dtype.kind in "iub":  # a truth value is one of two classes
        if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
            raise DataError(f"label '{name}': got {describe(value)}, expected whole numbers of 32 bits")
        return array.astype(np.int32)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    raise DataError(f"label '{name}': got {describe(value)}, expected a number, or an array of numbers")
