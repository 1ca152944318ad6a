"""A source: numbered records that can be read in any order, by any process.

A record is a plain dictionary, feature -> value:

- media (an image, audio or video file) as the encoded `bytes`,
- arrays as `np.ndarray`, text as `str`, class indices as `int`, numbers as `float`,
- nested features as a dictionary, so that 'names.de' is the German entry of `names`,
- `None` where the value is missing.

Every record of a source has the same keys, and always 'example_id': an int below 2**31, unique in
the source and the same on every machine. Sources are sent to worker processes, so they pickle and
hold no open file.
"""

from __future__ import annotations

import abc
import bisect
import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from mmjax.components import suggestion
from mmjax.errors import DataError

Record: TypeAlias = dict[str, Any]


class Source(abc.ABC):
    """Numbered records with an identity; the base of everything a dataset component opens.

    Attributes:
      name: for messages, such as 'openmoji/train'.
      fingerprint: hex SHA-256 over what the records are (the digests of the prepared content, the
        split, the settings). The same content has the same fingerprint on every machine.
      class_names: label feature -> the name of each class index.
    """

    def __init__(self, name: str, fingerprint: str, class_names: dict[str, list[str]]):
        self.name = name
        self.fingerprint = fingerprint
        self.class_names = class_names

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, index: int) -> Record:
        """The record at `index`, which is in range."""

    def select(self, features: Iterable[str]) -> Source:
        """The same records with 'example_id' and, of the named features, those that they have.

        A source that reads each feature by itself leaves the others out; the rest keep them.

        Args:
          features: dotted names, such as 'image' or 'names.de'.
        """
        return self

    def column(self, path: str) -> list[Any]:
        """The value of one feature in every record, `[len(self)]`, without reading the others.

        Raises:
          DataError: when the records have no such feature.
        """
        view = self.select([path])
        if len(self) and not any(f"{name}.".startswith(f"{path}.") for name in flat_names(view[0])):
            feature(self[0], path)  # a full record, whose features the message can name
        return [feature(record, path) for record in view]

    def verify(self) -> None:  # noqa: B027, it has a default
        """Reads all prepared bytes and compares them with the digests made at preparation, if there are any.

        Raises:
          DataError: naming the first file that differs.
        """

    def __getitem__(self, index: int) -> Record:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: record {index} of {len(self)}")
        return self.read(index)

    def __iter__(self) -> Iterator[Record]:
        return (self.read(index) for index in range(len(self)))


class ListSource(Source):
    """Records that are already in memory.

    Args:
      records: as described above; 'example_id' is the position where a record has none.
      name, class_names: see `Source`.
    """

    def __init__(
        self, records: Sequence[Record], name: str = "list", class_names: dict[str, list[str]] | None = None
    ):
        self._records = [{"example_id": i, **record} for i, record in enumerate(records)]
        super().__init__(name, digest([class_names or {}, self._records]), class_names or {})

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Record:
        return dict(self._records[index])


class SubsetSource(Source):
    """Some records of another source, in the given order.

    Args:
      source: where the records come from.
      indices: positions in `source`, `[n]`.
      name: for messages; the source's own name where it is empty.
    """

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray, name: str = ""):
        self.source = source
        self.indices = np.asarray(indices, np.int64).reshape(-1)
        fingerprint = digest(["subset", source.fingerprint, self.indices])
        super().__init__(name or source.name, fingerprint, source.class_names)

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Record:
        return self.source[self.indices[index]]

    def select(self, features: Iterable[str]) -> Source:
        view = copy.copy(self)
        view.source = self.source.select(features)
        return view

    def verify(self) -> None:
        self.source.verify()


class HeldSource(Source):
    """Another source whose records stay in memory once they were read: for small ones, read many times.

    Args:
      source: where the records come from.
    """

    def __init__(self, source: Source):
        self.source = source
        self._held: dict[int, Record] = {}
        super().__init__(source.name, source.fingerprint, source.class_names)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Record:
        if index not in self._held:
            self._held[index] = self.source[index]
        return dict(self._held[index])

    def select(self, features: Iterable[str]) -> Source:
        return HeldSource(self.source.select(features))

    def verify(self) -> None:
        self.source.verify()


class MixtureSource(Source):
    """Several sources one after the other, with the weights to draw from them in training.

    Record `offsets[p] + i` is record `i` of `parts[p]`. Its 'example_id' is its position in the
    mixture, since ids are unique only within a part, and 'part' is `p`. A feature that only other
    parts have is None.

    Args:
      parts: the sources.
      weights: how often each is drawn, relative to the others; all above zero.

    Raises:
      DataError: when a part is empty, or a label has other classes in one part than in another.
    """

    def __init__(self, parts: list[Source], weights: list[float]):
        for part in parts:
            if not len(part):
                raise DataError(f"mixture: the part '{part.name}' is empty; take it out of the mixture")
        self.parts, self.weights = list(parts), [float(w) for w in weights]
        self.offsets = [0, *np.cumsum([len(part) for part in parts]).tolist()]
        self._keys = list(dict.fromkeys(key for part in parts for key in part[0]))
        fingerprint = digest(["mixture", [part.fingerprint for part in parts], self.weights])
        name = "+".join(part.name for part in parts)
        super().__init__(name, fingerprint, _merge_class_names(parts))

    def __len__(self) -> int:
        return self.offsets[-1]

    def read(self, index: int) -> Record:
        part = bisect.bisect_right(self.offsets, index) - 1
        record = self.parts[part][index - self.offsets[part]]
        return {**dict.fromkeys(self._keys), **record, "example_id": index, "part": part}

    def select(self, features: Iterable[str]) -> Source:
        features = list(features)
        heads = {"example_id", "part", *(name.split(".")[0] for name in features)}
        view = copy.copy(self)
        view.parts = [part.select(features) for part in self.parts]
        view._keys = [key for key in self._keys if key in heads]
        return view

    def verify(self) -> None:
        for part in self.parts:
            part.verify()


def feature(record: Record, path: str) -> Any:
    """The value at a dotted path such as 'name' or 'names.de'; None where it is missing.

    Raises:
      DataError: when the record has no such feature, with the nearest one that it has.
    """
    value: Any = record
    for step in path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or step not in value:
            known = flat_names(record)
            raise DataError(
                f"the data has no feature '{path}'{suggestion(path, known)}; it has: {', '.join(known)}"
            )
        value = value[step]
    return value


def flat_names(record: Record, prefix: str = "") -> list[str]:
    """The dotted names of all values of a record."""
    names: list[str] = []
    for key, value in record.items():
        names += flat_names(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return names


def digest(value: Any) -> str:
    """Hex SHA-256 of nested plain data, bytes and arrays; the same on every machine."""
    text = json.dumps(_canonical(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value):
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        return {"array": [little.dtype.str, list(value.shape), hashlib.sha256(little.tobytes()).hexdigest()]}
    return value.item() if isinstance(value, np.generic) else value


def _merge_class_names(parts):
    merged: dict[str, list[str]] = {}
    for part in parts:
        for label, names in part.class_names.items():
            if merged.setdefault(label, names) != names:
                first = next(p.name for p in parts if label in p.class_names)
                raise DataError(
                    f"mixture: '{label}' has {len(names)} classes in '{part.name}' that are not the "
                    f"{len(merged[label])} classes of '{first}'; give both the same class names"
                )
    return merged
