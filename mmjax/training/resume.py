"""Whether the run in a directory is the one that a config describes.

The saved config is read with today's defaults: a key that was added since, and is left at its
default, makes no other run. A key that is gone does, and so does a default that has changed, since a
saved config has the value that was used then. Keys that say where and how a run computes, and not what
(`MAY_CHANGE`), may differ from one start to the next: a run goes on on another mesh.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from mmjax import components, schema
from mmjax import config as config_lib
from mmjax.data.loading import LoadedData, load_tokenizers
from mmjax.errors import ConfigError, DataError
from mmjax.training import sizes
from mmjax.training.workdir import CONFIG, DATA, RESULT, check_place, read_json

# Regular expressions of keys with which a run may go on otherwise than it began.
MAY_CHANGE = (
    r"mesh\..*",
    r"remat",
    r"log\..*",
    r"data\.(dir|num_workers|prefetch)",
    r"checkpoint\.(every_.*|keep)",
    r"optimizer\.offload",
)


def check(workdir: pathlib.Path, config: ConfigDict, data: LoadedData) -> None:
    """Checks that `workdir` is free, or that its run is of this config and on this data.

    Args:
      workdir: the run's directory.
      config: resolved, with all sizes filled in.
      data: of the config.

    Raises:
      ConfigError: it holds a run of another config (the keys that differ are named), or other files.
      DataError: a data set's content has changed since the run began.
    """
    check_place(workdir)
    if not (workdir / CONFIG).is_file():
        return
    lines = _difference(workdir, config, data.tokenizers, data.class_names)
    same_data_section = not any(line.startswith("data.") for line in lines)
    if (workdir / DATA).is_file() and same_data_section:
        changed = config_lib.difference(read_json(workdir / DATA), data.facts())
        if changed:
            raise DataError(
                f"{workdir}: its data has changed since the run began ({changed[0]}); "
                "restore the data, or start a new run in another directory"
            )
    _refuse_another(workdir, lines)


def finished(workdir: pathlib.Path, config: ConfigDict) -> dict[str, Any] | None:
    """What `result.json` holds where the run in `workdir` is finished; None where it is not.

    Sizes are taken from what the run has saved of its data, which is neither prepared nor read.

    Args:
      workdir: the run's directory.
      config: resolved, before sizes are filled in.

    Raises:
      ConfigError: the finished run is one of another config.
      DataError: a file of it is damaged.
    """
    if not (workdir / RESULT).is_file():
        return None
    result = read_json(workdir / RESULT)
    tokenizers = load_tokenizers(workdir / "tokenizers")
    class_names = read_json(workdir / DATA)["class_names"]
    try:
        filled = sizes.fill(config, tokenizers, class_names)
    except ConfigError:  # with other data, which has to be opened to say what is wrong
        return None
    _refuse_another(workdir, _difference(workdir, filled, tokenizers, class_names))
    logging.info("%s is finished; remove it or choose another --workdir to train again", workdir)
    return result


def _difference(
    workdir: pathlib.Path,
    config: ConfigDict,
    tokenizers: Mapping[str, Any],
    class_names: Mapping[str, Sequence[str]],
) -> list[str]:
    """What differs between the saved config and this one, a line for each key."""
    try:
        saved = components.normalise(read_json(workdir / CONFIG), schema.Config, "")
        saved = config_lib.to_dict(sizes.fill(saved, tokenizers, class_names))
    except ConfigError as error:  # a key that is gone, or a new one without a default
        return [str(error)]
    lines = config_lib.difference(saved, config_lib.to_dict(config))
    changed = [line for line in lines if re.fullmatch("|".join(MAY_CHANGE), line.partition(":")[0])]
    for line in changed:
        logging.info("%s: goes on with another %s", workdir, line)
    return [line for line in lines if line not in changed]


def _refuse_another(workdir: pathlib.Path, lines: Sequence[str]) -> None:
    if lines:
        shown = "; ".join(lines[:4]) + (f"; and {len(lines) - 4} more" if len(lines) > 4 else "")
        raise ConfigError(
            f"--workdir={workdir}: holds a run of another config ({shown}); choose another directory"
        )
