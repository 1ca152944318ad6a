"""Plans of the full-size SigLIP models from 8 to 2,048 chips, every one compiled.

    python -m experiments.planning.measure           # compiles what plans.json does not have yet
    python -m experiments.planning.measure --write   # and puts the table, and a picture, into docs/plan.md

It needs the TPU compiler (`libtpu`, or the file that MMJAX_TPU_COMPILER names). A plan takes minutes of two
cores; those that are made stand in plans.json, so it may be stopped at any time.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import pages
from experiments.planning import compiled, figure
from mmjax.planning import topology

PAGE, PLANS = pages.DOCS / "plan.md", pathlib.Path(__file__).parent / "plans.json"

CONFIG = "configs/siglip.py:img={},data=pairs.jsonl"
# SentencePiece's vocabulary in the paper; and one block per stack, which takes less time to compile.
SETTINGS = {"data.tokenizers.default.vocab_size": "32000", "scan": "true"}
BATCH_PER_CHIP = 64
SPLIT = {"mesh.data": "-1", "mesh.fsdp": "8"}
# (model, chips, further settings), the ones that say most first.
ROWS = (
    ("B/16", "v5p:2x2x2", {}),
    ("B/16", "v5p:8x16x16", {}),
    ("L/16", "v5p:2x2x2", {}),
    ("L/16", "v5p:8x16x16", {}),
    ("B/16", "v5e:16x16", {}),
    ("L/16", "v5e:16x16", {}),
    ("L/16", "v5e:16x16", SPLIT),
    ("B/16", "v5p:8x8x8", {}),
    ("B/16", "v5p:4x4x4", {}),
    ("L/16", "v5p:4x4x4", {}),
    ("L/16", "v5p:8x8x8", {}),
)


def plan(row: tuple[str, str, Mapping[str, str]]) -> dict[str, Any]:
    """The plan of one of `ROWS`."""
    from mmjax.planning.plan import Job, make_plan

    size, chips, further = row
    return make_plan(Job(CONFIG.format(size), SETTINGS | further, topology.parse(chips), BATCH_PER_CHIP))


def key(size: str, chips: str, further: Mapping[str, str]) -> str:
    return " ".join([size, chips, *(f"{name}={value}" for name, value in further.items())])


def page(plans: Mapping[str, Any]) -> str:
    """What stands in docs/plan.md; rows by model and number of chips."""
    made = [(size, plans[key(size, chips, f)]) for size, chips, f in ROWS if key(size, chips, f) in plans]
    made.sort(key=lambda item: (item[0], item[1]["chips"], item[1]["mesh"]["fsdp"]))
    versions = sorted({f"{name} {v}" for _, plan in made for name, v in plan["versions"].items()})
    head = ["model", "chips", "mesh", "fits", "a chip, GiB", "of these temporaries", "sent by a chip, MiB"]
    head += [
        "estimated step, ms",
        "at least, ms",
        "bound by",
        "MFU estimated",
        "MFU at most",
        "compiled in, s",
    ]
    rows = [head, ["---:"] * len(head), *(row(size, plan) for size, plan in made)]
    return f"{', '.join(versions)}. `configs/siglip.py`, {BATCH_PER_CHIP} examples a chip.\n\n" + "\n".join(
        f"| {' | '.join(cells)} |" for cells in rows
    )


def row(size: str, plan: Mapping[str, Any]) -> list[str]:
    from mmjax.planning.table import GIB, mfu

    mesh = " ".join(f"{axis}={count}" for axis, count in plan["mesh"].items() if count > 1)
    start = [size, plan["topology"], mesh]
    if not plan["fits"]:
        return [
            *start,
            "no",
            f"{plan['needed_bytes'] / GIB:.2f}",
            *["-"] * 7,
            f"{plan['compile_seconds']:.0f}",
        ]
    sent = sum(sum(axes.values()) for axes in plan["collective_bytes"].values())
    roofline = plan["roofline"]
    return [
        *start,
        "yes",
        f"{plan['needed_bytes'] / GIB:.2f}",
        f"{plan['temp_bytes'] / GIB:.2f}",
        f"{sent / 2**20:,.0f}",
        f"{plan['estimated_seconds'] * 1e3:.0f}",
        f"{roofline['step_seconds'] * 1e3:.0f}",
        roofline["bound"],
        f"{mfu(plan):.0%}",
        f"{roofline['mfu']:.0%}",
        f"{plan['compile_seconds']:.0f}",
    ]


if __name__ == "__main__":
    compiled.main(
        __doc__,
        script="experiments.planning.measure",
        page=PAGE,
        plans=PLANS,
        rows={key(*given): given for given in ROWS},
        chips=[chips for _, chips, _ in ROWS],
        compiled=plan,
        text=page,
        draw=figure.write,
    )
