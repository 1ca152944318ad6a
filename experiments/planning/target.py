"""What each step towards less memory and time of a two-tower model on 16 TPU v5e gave, by the compiler.

    python -m experiments.planning.target           # compiles what target.json does not have yet
    python -m experiments.planning.target --write   # and puts the table into docs/tpu.md

It needs the TPU compiler, as `experiments.planning.measure` does. A row takes minutes of two cores; it may
be stopped at any time. Rows 'without' compile the step with that part turned off, as on any other device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from experiments import pages
from experiments.planning import compiled
from mmjax.planning import topology

PAGE, PLANS = pages.DOCS / "tpu.md", pathlib.Path(__file__).parent / "target.json"

CHIPS, BATCH_PER_CHIP = "v5e:4x4", 128
CONFIG = "configs/siglip.py:img=B/16,data=pairs.jsonl"
SETTINGS = {"data.tokenizers.default.vocab_size": "32000", "scan": "true", "remat": "false"}
SPLIT = {"mesh.data": "1", "mesh.fsdp": "16"}

# What this package does on TPUs alone, or under `fsdp` -> the functions that decide it.
PARTS = {
    "kernel": ("mmjax.layers.attention.fits_tpu_kernel",),
    "sums by products": ("mmjax.layers.dense.sums_by_products",),
    "norms in one pass": ("mmjax.layers.norms.compiles_for_tpu",),
    "parameters gathered by block": ("mmjax.layers.transformer.gathers",),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One compilation.

    Attributes:
      name: in the table.
      settings: further keys of the config.
      without: of `PARTS`.
    """

    name: str
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    without: tuple[str, ...] = ()


EVERYTHING = tuple(PARTS)
ELEMENTWISE, UNROLLED = {"remat": "elementwise"}, {"scan": "false"}
ROWS = (
    Row("nothing special for TPUs", without=EVERYTHING),
    Row("nothing special, `remat=elementwise`", ELEMENTWISE, EVERYTHING),
    Row("kernel, `remat=elementwise`", ELEMENTWISE, EVERYTHING[1:]),
    Row("kernel, norms in one pass, `remat=elementwise`", ELEMENTWISE, ("sums by products",)),
    Row("all of these"),
    Row("all, `remat=elementwise`", ELEMENTWISE),
    Row("all, `remat=elementwise`, `fsdp=16`", ELEMENTWISE | SPLIT),
    Row(
        "all, `remat=elementwise`, `fsdp=16`, parameters left to the compiler",
        ELEMENTWISE | SPLIT,
        ("parameters gathered by block",),
    ),
    Row("all, `scan=false`", UNROLLED),
    Row("all, `scan=false`, `fsdp=16`", UNROLLED | SPLIT),
    Row("all, `scan=false`, `remat=elementwise`", UNROLLED | ELEMENTWISE),
    Row("all, `scan=false`, `remat=elementwise`, `fsdp=16`", UNROLLED | ELEMENTWISE | SPLIT),
    Row("all, `scan=false`, loss in chunks of 64", UNROLLED | {"objectives.contrastive.chunk_size": "64"}),
    Row("all, `remat=true`", {"remat": "true"}),
)
# What is compiled first, where time is short.
ORDER = (11, 8, 5, 6, 0, 1, 9, 10, 4, 13, 12, 3, 2, 7)


def plan(row: Row) -> dict[str, Any]:
    """The plan of a row."""
    from mmjax.planning.plan import Job, make_plan

    job = Job(CONFIG, SETTINGS | dict(row.settings), topology.parse(CHIPS), BATCH_PER_CHIP)
    with turned_off(row.without):
        return make_plan(job)


@contextlib.contextmanager
def turned_off(parts: tuple[str, ...]) -> Iterator[None]:
    """Inside, these `PARTS` are as on any other device."""
    with contextlib.ExitStack() as stack:
        for function in (function for part in parts for function in PARTS[part]):
            stack.enter_context(mock.patch(function, lambda *_: False))
        yield


def page(plans: Mapping[str, Any]) -> str:
    """What stands in docs/tpu.md."""
    from mmjax.planning.table import GIB

    made = [(row.name, plans[row.name]) for row in ROWS if row.name in plans]
    versions = sorted({f"{name} {v}" for _, plan in made for name, v in plan["versions"].items()})
    head = ["what", "fits", "a chip, GiB", "of these temporaries", "estimated cycles, millions"]
    head += ["of products alone", "sent by a chip, MiB", "memory traffic, GB"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, plan in made:
        if not plan["fits"]:
            lines.append([name, "no", f"{plan['needed_bytes'] / GIB:.2f}", *["-"] * (len(head) - 3)])
            continue
        chip = topology.parse(CHIPS).chip
        products = plan["flops"] / plan["chips"] / chip.peak_flops * chip.clock_hz
        lines.append(
            [
                name,
                "yes",
                f"{plan['needed_bytes'] / GIB:.2f}",
                f"{plan['temp_bytes'] / GIB:.2f}",
                f"{plan['estimated_cycles'] / 1e6:.0f}",
                f"{products / 1e6:.0f}",
                f"{sum(sum(axes.values()) for axes in plan['collective_bytes'].values()) / 2**20:,.0f}",
                f"{plan['memory_traffic_bytes'] / 1e9:.0f}",
            ]
        )
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{', '.join(versions)}. `{CONFIG}` on {CHIPS}, {BATCH_PER_CHIP} pairs a chip.\n\n{table}"


if __name__ == "__main__":
    compiled.main(
        __doc__,
        script="experiments.planning.target",
        page=PAGE,
        plans=PLANS,
        rows={ROWS[i].name: ROWS[i] for i in ORDER},
        chips=[CHIPS],
        compiled=plan,
        text=page,
    )
