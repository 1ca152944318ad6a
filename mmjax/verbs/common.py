"""Flags that several verbs share."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.errors import ConfigError
from mmjax.parallel import processes

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


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of verbs that run as several processes; read by `connect`."""
    group = parser.add_argument_group(
        "several hosts",
        "one process on each, all with the same command; under SLURM, Open MPI and on TPU VMs these flags "
        "are found",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, any free port of it")
    group.add_argument("--processes", type=int, metavar="N", help="how many; 1 joins none")
    group.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")


def connect(flags: argparse.Namespace, *, saves_at_sigterm: bool = False) -> None:
    """Joins the other processes, see `mmjax.parallel.processes.connect`."""
    processes.connect(flags.coordinator, flags.processes, flags.process, saves_at_sigterm=saves_at_sigterm)


SOURCE_HELP = (
    "a folder of files, a manifest ending in .jsonl (one object per line, stream -> text or path), "
    "one media file, or the name of a data set in the run's config"
)


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """`--workdir` and `--step` of verbs that use a run."""
    add_workdir_flag(parser, "the run's directory", required=True)
    parser.add_argument(
        "--step",
        type=int,
        help="which checkpoint (default: the best where the run chose one, else the newest)",
    )


def add_stream_flag(parser: argparse.ArgumentParser, what: str) -> None:
    """`--input STREAM=VALUE`, read by `streams`."""
    parser.add_argument("--input", action="append", default=[], metavar="STREAM=VALUE", help=what)


def streams(flags: argparse.Namespace) -> dict[str, str]:
    """Stream -> text or path, from the `--input` flags."""
    found = {}
    for item in flags.input:
        name, separator, value = item.partition("=")
        if not separator:
            raise ConfigError(f"--input={item}: expected STREAM=VALUE, such as text=hello or image=a.png")
        if name in found:
            raise ConfigError(f"--input={item}: stream '{name}' is given twice")
        found[name] = value
    return found


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
