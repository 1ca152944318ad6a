"""The sizes in a config that the data gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.model import fill_from_data


def fill(
    config: Mapping[str, Any], tokenizers: Mapping[str, Any], class_names: Mapping[str, Sequence[str]]
) -> ConfigDict:
    """The config with every size left at 0 taken from the data, see `fill_from_data`.

    Args:
      config: resolved.
      tokenizers: by name.
      class_names: label in the batch -> names of its classes.

    Raises:
      ConfigError: the parts of the model do not fit, or the data does not give a size.
    """
    plain = config_lib.to_dict(config)
    vocab_sizes = {}
    for stream, section in plain["data"]["streams"].items():
        for transform in section["eval"]:
            if transform.get("tokenizer") in tokenizers:
                vocab_sizes[stream] = tokenizers[transform["tokenizer"]].vocab_size
    class_counts = {label: len(names) for label, names in class_names.items()}
    return ConfigDict(fill_from_data(plain, vocab_sizes, class_counts))
