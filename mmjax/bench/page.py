"""What was measured, as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmjax import bench
from mmjax.bench import load


def render(results: Mapping[str, Any]) -> str:
    """Markdown of all benchmarks that were run."""
    machine = results["machine"]
    parts = [
        f"{machine['cpu_cores']} CPU cores ({machine['processor']}), devices: {machine['devices']}. "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + f". {results['rounds']} rounds."
    ]
    parts += [load(name).table(results[name]) for name in bench.BENCHMARKS if name in results]
    return "\n\n".join(parts) + "\n"
