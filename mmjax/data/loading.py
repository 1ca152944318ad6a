"""From a config's `data` section to open sources and tokenizers."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from mmjax import components
from mmjax.data.prepared import default_dir
from mmjax.data.source import Source
from mmjax.data.tokenizers import Tokenizer
from mmjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class LoadedData:
    """What a run reads.

    Attributes:
      train: the training records.
      eval: data set name -> its records; 'train' is there too, for evaluators that read it.
      tokenizers: by the name that `tokenize` transforms use.
      class_names: label in the batch -> names of its classes.
    """

    train: Source
    eval: dict[str, Source]
    tokenizers: dict[str, Tokenizer]
    class_names: dict[str, list[str]]

    def facts(self) -> dict[str, Any]:
        """What a run writes down to know its data again: fingerprints and class names."""
        sources = {"train": self.train, **self.eval}
        return {
            "fingerprints": {name: source.fingerprint for name, source in sources.items()},
            "examples": {name: len(source) for name, source in sources.items()},
            "class_names": self.class_names,
        }


def data_dir(section: Mapping[str, Any]) -> pathlib.Path:
    """Where prepared data lives: `data.dir`, else $MMJAX_DATA_DIR, else ~/.cache/mmjax."""
    return pathlib.Path(section["dir"]).expanduser() if section["dir"] else default_dir()


def prepare(section: Mapping[str, Any]) -> None:
    """Prepares every data set and tokenizer that the section names; what is prepared is left alone.

    Raises:
      ConfigError: one of them cannot be, before any is prepared.
      DataError: one cannot be made.
    """
    datasets = [components.build("datasets", spec) for spec in _datasets(section)]
    for spec in section["tokenizers"].values():
        components.build("tokenizers", spec)
    folder = data_dir(section)
    folder.mkdir(parents=True, exist_ok=True)
    for dataset in datasets:
        dataset.prepare(folder)
    _tokenizers(section, _open(section["train"], folder), folder)


def load(section: Mapping[str, Any], tokenizers: Mapping[str, Tokenizer] | None = None) -> LoadedData:
    """Opens what `prepare` made.

    Args:
      section: the `data` section of a resolved config.
      tokenizers: those saved with a run, used instead of the ones the data would give.

    Raises:
      DataError: something is not prepared, or damaged.
      ConfigError: a label names a feature that the data does not have.
    """
    folder = data_dir(section)
    train = _open(section["train"], folder)
    sources = {name: _open(part["dataset"], folder) for name, part in section["eval"].items()}
    if tokenizers is None:
        tokenizers = _tokenizers(section, train, folder)
    names = _class_names(section["labels"], train)
    for name, source in sources.items():
        given = _class_names(eval_labels(section, name), source)
        for label in given.keys() & names.keys():
            if given[label] != names[label]:
                raise ConfigError(
                    f"data.eval.{name}: '{label}' has other classes than in data.train or another of "
                    "data.eval; use the same, or give the label another name"
                )
        names = given | names
    return LoadedData(train, {"train": train, **sources}, dict(tokenizers), names)


def eval_labels(data: Mapping[str, Any], name: str) -> dict[str, str]:
    """Name in the batch -> feature of the record, for an evaluation data set.

    Args:
      data: the `data` section of a resolved config.
      name: a key of `data.eval`; any other gives the labels of training.
    """
    own = data["eval"][name]["labels"] if name in data["eval"] else {}
    return {**data["labels"], **own}


def load_tokenizers(folder: pathlib.Path) -> dict[str, Tokenizer]:
    """The tokenizers saved in a run's `tokenizers/` directory, by name."""
    return {path.stem: Tokenizer.load(path) for path in sorted(folder.glob("*.json"))}


def _class_names(labels: Mapping[str, str], source: Source) -> dict[str, list[str]]:
    """Label in the batch -> the names of its classes, for those that have names."""
    known = source.class_names
    return {label: known[feature] for label, feature in labels.items() if feature in known}


def _datasets(section):
    return [section["train"], *(part["dataset"] for part in section["eval"].values())]


def _open(spec, folder):
    return components.build("datasets", spec).open(folder)


def _tokenizers(section, train, folder):
    made = {}
    for name, spec in section["tokenizers"].items():
        path = components.build("tokenizers", spec).prepare(folder, train)
        made[name] = Tokenizer.load(path)
    return made
