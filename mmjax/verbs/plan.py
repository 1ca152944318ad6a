"""plan: whether a step fits chips that are not here, what it moves and how long it may take."""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.errors import ConfigError
from mmjax.files import write_json
from mmjax.planning import topology as topology_lib
from mmjax.training.workdir import PLAN
from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    common.add_config_flag(parser)
    parser.add_argument(
        "--topology",
        action="append",
        metavar="CHIPS",
        help="chips and their arrangement: v5e:16x16, v5p:4x4x8 (also v4, v6e), cpu:8, h100:8 (without a "
        "compiler: only what follows from the shapes); several times to compare",
    )
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=A,B",
        help="plan the config with each of these values of a key, such as mesh.fsdp=1,4,16; several times "
        "for all combinations",
    )
    parser.add_argument(
        "--batch-per-chip", type=int, metavar="N", help="examples of a step per chip, instead of batch_size"
    )
    parser.add_argument(
        "--search-batch",
        action="store_true",
        help="find the largest batch that fits (compiles several times)",
    )
    common.add_workdir_flag(parser, "write plan.json into this run's directory")
    parser.add_argument("--out", metavar="FILE", help="write the plan to this file instead")


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    if not flags.topology:
        raise ConfigError("--topology: is missing; give the chips to plan for, such as v5e:4x4 or cpu:8")
    if flags.workdir and flags.out:
        raise ConfigError("--workdir and --out: give one of them")
    if flags.batch_per_chip is not None and flags.batch_per_chip < 1:
        raise ConfigError(f"--batch-per-chip={flags.batch_per_chip}: expected 1 or more")
    if flags.batch_per_chip is not None and "batch_size" in overrides:
        raise ConfigError("--batch-per-chip and --config.batch_size: give one of them")
    topologies = [topology_lib.parse(text) for text in flags.topology]
    if flags.search_batch and any(t.platform != "tpu" for t in topologies):
        raise ConfigError("--search-batch: is for TPUs, whose compiler says what does not fit")
    variants = _variants(flags.vary, overrides)
    target = _target(flags)
    topology_lib.prepare_process(topologies)
    # From here on JAX may start.
    from mmjax.planning import search, table
    from mmjax.planning.plan import Job, make_plan

    jobs = [
        Job(flags.config, {**overrides, **variant}, topology, flags.batch_per_chip)
        for topology in topologies
        for variant in variants
    ]
    plans = []
    for job in jobs:
        plan = make_plan(job)
        if flags.search_batch:
            plan["largest_batch"] = search.largest_batch(job, plan)
        if plan["fits"] is False and len(jobs) == 1 and job.topology.platform == "tpu":
            plan["nearest"] = search.nearest(job, plan)
        plans.append(plan)
    print(table.one(plans[0]) if len(plans) == 1 else table.several(plans))
    if target is not None:
        write_json(target, plans[0] if len(plans) == 1 else {"format": plans[0]["format"], "plans": plans})
        print(f"written to {target}")


def _variants(items: Sequence[str], overrides: Mapping[str, str]) -> list[dict[str, str]]:
    """Every combination of the values of `--vary`."""
    choices = []
    for item in items:
        key, separator, values = item.removeprefix("config.").partition("=")
        if not separator or not values:
            raise ConfigError(f"--vary={item}: expected KEY=A,B, such as mesh.fsdp=1,4,16")
        if key in overrides or any(key == other for other, _ in choices):
            raise ConfigError(f"--vary={item}: '{key}' is given twice; give it once")
        choices.append((key, values.split(",")))
    keys = [key for key, _ in choices]
    found = itertools.product(*(values for _, values in choices))
    return [dict(zip(keys, values, strict=True)) for values in found]


def _target(flags: argparse.Namespace) -> pathlib.Path | None:
    """Where the plan is written; only an older plan is replaced."""
    if not (flags.workdir or flags.out):
        return None
    target = pathlib.Path(flags.out) if flags.out else pathlib.Path(flags.workdir) / PLAN
    if target.is_dir():
        raise ConfigError(f"--out={target}: is a directory; name a file in it")
    if target.exists() and not _is_plan(target):
        raise ConfigError(f"{target}: is there and is no plan; choose another place, or remove it")
    return target


def _is_plan(path: pathlib.Path) -> bool:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and str(found.get("format", "")).startswith("mmjax.plan.")
