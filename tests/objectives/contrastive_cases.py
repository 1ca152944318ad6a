"""Embeddings, batches and slow, plain numpy formulations for the tests of the pairwise objectives."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

ROWS, WIDTH = 16, 5


def outputs(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, rows, WIDTH)).astype(np.float32)
    return {
        "image_embedding": a / np.linalg.norm(a, axis=1, keepdims=True),
        "text_embedding": b / np.linalg.norm(b, axis=1, keepdims=True),
        "scale": np.float32(7.0),
        "bias": np.float32(-2.0),
    }


def batch(rows=ROWS, seed=0):
    """Some padding rows at the end, some rows without an image or without a text, shared ids."""
    rng = np.random.default_rng(seed)
    image, text = np.ones((2, rows), bool)
    image[2] = text[5] = image[6] = text[6] = False
    ids = rng.integers(0, rows // 3, rows).astype(np.int32)
    ids[[1, 4]] = -1
    return {
        "example_id": np.arange(rows, dtype=np.int32),
        "example_mask": np.arange(rows) < rows - 3,
        "image_present": image,
        "text_present": text,
        "concept": ids,
    }


def valid_rows(batch):
    return batch["example_mask"] & batch["image_present"] & batch["text_present"]


def positives(batch, i, label):
    """The rows that belong to row i."""
    rows = np.flatnonzero(valid_rows(batch))
    ids = batch[label] if label else np.arange(len(batch["example_mask"]))
    return [j for j in rows if j == i or (ids[j] == ids[i] and ids[i] >= 0)]


def only_valid(batch, outputs):
    """The same batch and outputs without the rows that do not count."""
    rows = valid_rows(batch)
    kept = {k: v[rows] if np.ndim(v) else v for k, v in outputs.items()}
    return {k: v[rows] for k, v in batch.items()}, kept


def spoiled(batch, outputs, value=1e3):
    """Outputs with something else in the rows that do not count."""
    rows = valid_rows(batch)
    return {
        k: np.where(rows[:, None], v, np.float32(value)) if np.ndim(v) == 2 else v for k, v in outputs.items()
    }


def none_valid(batch):
    return batch | {"example_mask": np.zeros_like(batch["example_mask"])}


def evaluate(objective, outputs, batch):
    """(loss, metrics), jitted."""
    return jax.jit(lambda outputs, batch: objective(outputs, batch))(outputs, batch)


def value_and_gradient(objective):
    """outputs, batch -> (loss, gradient of the loss in every output), jitted."""
    return jax.jit(jax.value_and_grad(lambda outputs, batch: objective(outputs, batch)[0]))


def sharded(tree, devices=8):
    """Arrays with their first axis split over the devices; scalars on every one."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))

    def place(x):
        spec = PartitionSpec("data") if np.ndim(x) else PartitionSpec()
        return jax.device_put(x, NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)


def mean(metric):
    total, count = metric
    return float(total) / float(count)
