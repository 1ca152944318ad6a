"""The page of published models, docs/models.md.

    python -m experiments.models.page        # writes the page, counting operations where they are missing

Parameters are counted anew each time. Operations (XLA's cost analysis of one example's forward pass, two
per multiplication and addition) are kept in measured.json beside this file, and so are the differences to
transformers that tests/interop/measure.py finds. What is listed stands in sizes.py.
"""

from __future__ import annotations

import json
import math
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.models.sizes import MODELS, Published
from mmjax.files import write_json, write_text
from mmjax.interop.families import FAMILIES
from mmjax.interop.pretrained import normalise_section
from mmjax.model import assemble, init_model

RECORD = pathlib.Path(__file__).with_name("measured.json")
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "models.md"

_INTRODUCTION = """# Published models

Written by `python -m experiments.models.page`; do not edit.

These go in with `interop.from_pretrained`, or `model.streams.<name>.init=hf:ID` in a config, and out with
`interop.save_pretrained` and `./launch.sh convert`. *Difference* is the largest between an output of ours and
one of transformers, in float32, over tiny random models of the family (`tests/interop/reference_cases`).
*GFLOPs* count the forward pass of one example, a multiplication and an addition as two. *Parameters* are
those trained here: a class token and its position are one vector, and heads of pretraining and classifiers
are left out.

| Family | Size | Parameters | GFLOPs | Input | Difference | Source | Checkpoint | Config |
|---|---|--:|--:|---|--:|---|---|---|"""


def _model(row: Published, scan: bool):
    """(the model, the shapes of its variables, of one example); scanned, it is traced in no time."""
    family = FAMILIES[row.family]
    config = {"model_type": family.model_types[0], **row.config}
    model = assemble(normalise_section(family.section(config, row.keys)), scan=scan)
    spec = {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in family.inputs(config).items()}
    variables = jax.eval_shape(lambda key: init_model(model, spec, key), jax.random.key(0))
    given = {name: (row.inputs.get(name, shape), dtype) for name, (shape, dtype) in spec.items()}
    return model, variables, given


def parameters(row: Published) -> int:
    """How many numbers are trained; nothing is computed."""
    return _count(_model(row, scan=True)[1])


def _count(variables):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def gflops(row: Published) -> float:
    """Operations of the forward pass of one example, in 10^9; it is lowered and not compiled."""
    # XLA counts the body of a loop once, so the layers stand one after another.
    model, variables, spec = _model(row, scan=False)
    batch = {name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, (shape, dtype) in spec.items()}
    lowered = jax.jit(model.apply).lower(variables, batch)
    return float(f"{lowered.cost_analysis()['flops'] / 1e9:.3g}")


def key(row: Published) -> str:
    """What `row` is called in the record."""
    return f"{row.family}: {row.name}"


def read_record() -> dict[str, Any]:
    """What was measured: 'gflops' by row, 'differences' by case of tests/interop/reference_cases."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def render(record: Mapping[str, Any]) -> str:
    """The text of docs/models.md."""
    lines = [_INTRODUCTION]
    for row in MODELS:
        _, variables, spec = _model(row, scan=True)
        size = " + ".join(f"{name} {'x'.join(map(str, spec[name][0]))}" for name in spec if "_" not in name)
        cells = [
            f"`{row.family}`",
            row.name,
            f"{_count(variables) / 1e6:.1f}M",
            f"{record['gflops'][key(row)]:g}",
            size,
            _difference(row.family, record["differences"]),
            _paper(row.family),
            f"`{row.source}`",
            f"`configs/{row.example}`" if row.example else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _difference(family, differences):
    found = [entry["difference"] for entry in differences.values() if entry["family"] == family]
    return f"{max(found):.0e}"


def _paper(family):
    """The first paper that the docstring of the family's file names."""
    text = sys.modules[FAMILIES[family].section.__module__].__doc__ or ""
    number = re.search(r"arXiv:(\d{4}\.\d{5})", text)[1]
    return f"[{number}](https://arxiv.org/abs/{number})"


def main() -> None:
    """Writes the page."""
    record = read_record()
    for row in MODELS:
        if key(row) not in record["gflops"]:
            record["gflops"][key(row)] = gflops(row)
            print(f"{key(row):40} {record['gflops'][key(row)]:g} GFLOPs", flush=True)
            write_json(RECORD, record)
    known = {key(row) for row in MODELS}
    record["gflops"] = {name: value for name, value in record["gflops"].items() if name in known}
    write_json(RECORD, record)
    write_text(PAGE, render(record))


if __name__ == "__main__":
    main()
