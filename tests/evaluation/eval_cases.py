"""A context over arrays in memory, as if a model had computed some of them."""

import json

import jax.numpy as jnp
import numpy as np

from mmjax import components
from mmjax.data.source import ListSource
from mmjax.evaluation import EvalContext, run_evaluators


class Split:
    """A pipeline over columns `[n, ...]`: batches in order, the last one padded with rows of garbage."""

    def __init__(self, columns, records=None, batch_size=4):
        rows = len(next(iter(columns.values())))
        self.columns = {"example_id": np.arange(rows, dtype=np.int32), **columns}
        ids = self.columns["example_id"]
        records = records or [{}] * rows
        self.source = ListSource([{"example_id": int(i), **r} for i, r in zip(ids, records, strict=True)])
        self.batch_size, self.passes = batch_size, 0

    def batches(self):
        self.passes += 1
        rows = len(self.source)
        for start in range(0, rows, self.batch_size):
            index = np.arange(start, start + self.batch_size)
            yield {
                **{name: values[np.minimum(index, rows - 1)] for name, values in self.columns.items()},
                "example_mask": index < rows,
            }


def make_context(workdir, splits, outputs=None, **more):
    """Of data set -> Split, and outputs: name -> `[ids, ...]`, what the model gives for an example_id."""
    outputs = outputs or {}

    def forward(batch):
        computed = {name: jnp.asarray(values[batch["example_id"]]) for name, values in outputs.items()}
        return {**{name: jnp.asarray(values) for name, values in batch.items()}, **computed}

    sources = {name: split.source for name, split in splits.items()}
    return EvalContext(forward=forward, pipelines=splits, sources=sources, workdir=workdir, **more)


def build(**spec):
    """An evaluator from its config section."""
    annotation = components.component("evaluators")
    return components.build("evaluators", components.normalise(spec, annotation, "evals.it"))


def run(context, **spec):
    """The metrics of one evaluator, from its config section."""
    return run_evaluators({"it": build(**spec)}, context)


def artifact(workdir, name):
    return json.loads((workdir / "artifacts" / f"{name}.json").read_text())
