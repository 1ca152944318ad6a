"""bench: measured speed on this machine, beside PyTorch."""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
from collections.abc import Mapping

from mmjax import bench
from mmjax.components import suggestion
from mmjax.errors import ConfigError
from mmjax.files import write_json, write_text

FORMAT = "mmjax.bench.1"
FILES = ("bench.json", "bench.md")


def add_flags(parser: argparse.ArgumentParser) -> None:
    listed = "; ".join(f"{name}: {text}" for name, (_, text) in bench.BENCHMARKS.items())
    parser.add_argument("--only", metavar="A,B", help=f"some of the benchmarks ({listed})")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (default: 5)")
    parser.add_argument("--batch", type=int, default=0, help="examples in a batch, instead of each one's own")
    parser.add_argument(
        "--out",
        default="runs/bench",
        metavar="DIR",
        help="for bench.json and bench.md (default: runs/bench)",
    )


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    for key in overrides:
        raise ConfigError(f"--config.{key}: bench has its own configs; leave it out")
    names = list(bench.BENCHMARKS) if flags.only is None else flags.only.split(",")
    for name in names:
        if name not in bench.BENCHMARKS:
            near = suggestion(name, bench.BENCHMARKS)
            known = ", ".join(bench.BENCHMARKS)
            raise ConfigError(f"--only: '{name}' is not a benchmark{near}; there are: {known}")
    for flag, least in (("rounds", 1), ("batch", 0)):
        if getattr(flags, flag) < least:
            raise ConfigError(f"--{flag}={getattr(flags, flag)}: expected {least} or more")
    out = pathlib.Path(flags.out)
    for file in FILES:
        if (out / file).exists():
            raise ConfigError(f"--out={out}: holds a {file} already; move it, or choose another directory")

    import jax

    if jax.default_backend() != "cpu":
        raise ConfigError(
            f"bench: JAX runs on {jax.default_backend()} here, and what it is compared with on the CPU; "
            "start it with JAX_PLATFORMS=cpu"
        )

    from mmjax.bench import page
    from mmjax.bench.timing import Settings

    settings = Settings(flags.rounds, flags.batch)
    results = {"format": FORMAT, "machine": _machine(), "rounds": flags.rounds}
    for name in names:
        results[name] = bench.load(name).measure(settings)
        print(f"{bench.load(name).table(results[name])}\n", flush=True)
        # After each, since all of them take long enough to be cut off.
        write_json(out / FILES[0], results)
        write_text(out / FILES[1], page.render(results))
    print(out / FILES[1])


def _machine() -> dict:
    import jax

    from mmjax.reports.format import plain
    from mmjax.training.workdir import versions

    return {
        "cpu_cores": os.cpu_count(),
        "processor": _processor(),
        "devices": plain([device.device_kind for device in jax.devices()]),
        "versions": versions(),
    }


def _processor() -> str:
    """The name of the processor, as far as the system tells."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
