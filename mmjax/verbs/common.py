"""Flags that several verbs share."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.errors import ConfigError

_ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICKSTART = _ROOT / "configs" / "quickstart.py"


def add_config_flag(parser: argparse.ArgumentParser) -> None:
    """`--config`, with the quickstart as its default."""
    parser.add_argument(
        "--config",
        default=str(QUICKSTART),
        metavar="FILE[:args]",
        help="a .py config, with a text for its get_config after a colon, or a run's config.json "
        "(default: configs/quickstart.py); change keys with --config.any.key=value",
    )


def add_workdir_flag(parser: argparse.ArgumentParser, what: str, required: bool = False) -> None:
    """`--workdir`, the run's directory."""
    parser.add_argument("--workdir", metavar="DIR", required=required, help=what)


def resolve(flags: argparse.Namespace, overrides: Mapping[str, str]) -> ConfigDict:
    """The config that the flags and overrides describe."""
    return config_lib.resolve(flags.config, overrides)


def default_workdir(reference: str) -> pathlib.Path:
    """`runs/<name of the config file>`, with the argument after the colon where there is one."""
    path, _, argument = reference.partition(":")
    name = pathlib.Path(path).stem
    if argument:
        name += "-" + "".join(c if c.isalnum() or c in "=.," else "_" for c in argument)
    return pathlib.Path("runs") / name


def refuse_overrides(overrides: Mapping[str, str], verb: str) -> None:
    """For verbs that read a finished run, whose config stands."""
    if overrides:
        key = next(iter(overrides))
        raise ConfigError(f"--config.{key}: {verb} uses the run's own config; leave the override out")
