"""Measures how far our outputs are from those of transformers, for docs/models.md.

    python tests/interop/measure.py            # every case of reference_cases
    python tests/interop/measure.py bert clip  # these

Writes the largest differences into experiments/models/measured.json; then write the page anew with
`python -m experiments.models.page`.
"""

import json
import pathlib
import sys
import tempfile

import jax
import reference
import transformers
from reference_cases import CASES

from mmjax.files import write_json

RECORD = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "models" / "measured.json"


def difference(case, directory):
    """(family, largest difference of any output)."""
    model, variables, preprocess = reference.imported(case, directory)
    expected, got = reference.theirs(case), reference.ours(case, model, variables)
    largest = max(reference.largest_difference(got, expected, name) for name in expected)
    return preprocess.family, largest


def main(names):
    jax.config.update("jax_disable_most_optimizations", True)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as directory:
            family, largest = difference(CASES[name](transformers), pathlib.Path(directory) / "model")
        print(f"{name:30} {family:12} {largest:.1e}", flush=True)
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        record["differences"][name] = {"family": family, "difference": float(f"{largest:.1e}")}
        if not names:
            record["differences"] = {k: v for k, v in record["differences"].items() if k in CASES}
        write_json(RECORD, record)


if __name__ == "__main__":
    main(sys.argv[1:])
