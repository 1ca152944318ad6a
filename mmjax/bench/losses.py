"""What the contrastive losses cost: memory from the compiler, time by turns, by batch and chunk."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mmjax.bench.timing import Settings, markdown, summary, take_turns
from mmjax.objectives.infonce import InfoNCE
from mmjax.objectives.sigmoid import Sigmoid
from mmjax.parallel.mesh import AXES, activation_rules, batch_sharding, make_mesh, replicated

FIELDS = {"a": "image_embedding", "b": "text_embedding", "streams": ["image", "text"], "scale": "scale"}
LOSSES = {
    "infonce": functools.partial(InfoNCE, **FIELDS),
    "sigmoid": functools.partial(Sigmoid, **FIELDS, bias="bias"),
}
WIDTH = 256
BATCHES = (1024, 4096)
CHUNKS = (0, 64, 256)


def measure(settings: Settings) -> dict[str, Any]:
    """Seconds and bytes of temporaries of value and gradient, on one device, by loss, batch and chunk."""
    mesh = mesh_of(1)
    result: dict[str, Any] = {"width": WIDTH, "losses": {}}
    for name in LOSSES:
        found = result["losses"][name] = {}
        for batch in (settings.batch,) if settings.batch else BATCHES:
            programs = {str(chunk): value_and_gradient(name, chunk, batch, mesh) for chunk in CHUNKS}
            times = summary(take_turns(calls(programs, batch, mesh), settings.rounds), "0")
            found[str(batch)] = {
                chunk: {"seconds": times[chunk]["seconds"], "temporary_bytes": temporaries(program)}
                for chunk, program in programs.items()
            }
    return result


def table(result: Mapping[str, Any]) -> str:
    """What `measure` found, in words and a table."""
    rows = [
        [f"`{name}`, batch {batch}, {chunk_text(int(chunk))}", f"{1000 * found['seconds']:.0f}"]
        + [f"{found['temporary_bytes'] / 2**20:,.1f}"]
        for name, batches in result["losses"].items()
        for batch, chunks in batches.items()
        for chunk, found in chunks.items()
    ]
    return (
        f"Value and gradient of contrastive losses on one device, embeddings of width {result['width']} in "
        f"float32.\n\n{markdown(['', 'ms', 'temporaries, MiB'], rows)}"
    )


def chunk_text(chunk: int) -> str:
    """What a column or row of this `chunk_size` is called."""
    return f"`chunk_size` {chunk}" if chunk else "whole"


def mesh_of(count: int) -> Mesh:
    """The first `count` devices along `data`."""
    return make_mesh(dict.fromkeys(AXES, 1) | {"data": count}, jax.devices()[:count])


def value_and_gradient(name: str, chunk_size: int, batch: int, mesh: Mesh) -> jax.stages.Compiled:
    """The compiled loss, metrics and gradient in every output."""
    objective = LOSSES[name](chunk_size=chunk_size)

    def run(outputs, batch):
        with activation_rules(mesh):
            return jax.value_and_grad(objective, has_aux=True)(outputs, batch)

    shapes = jax.tree.map(functools.partial(_shape, mesh=mesh), example(batch))
    return jax.jit(run).lower(*shapes).compile()


def example(batch: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(outputs, batch) of random embeddings of length one; every row counts."""
    a, b = np.random.default_rng(0).normal(size=(2, batch, WIDTH)).astype(np.float32)
    everyone = np.ones(batch, bool)
    outputs = {
        "image_embedding": a / np.linalg.norm(a, axis=1, keepdims=True),
        "text_embedding": b / np.linalg.norm(b, axis=1, keepdims=True),
        "scale": np.float32(10.0),
        "bias": np.float32(-10.0),
    }
    return outputs, {"example_mask": everyone, "image_present": everyone, "text_present": everyone}


def calls(programs: Mapping[Any, jax.stages.Compiled], batch: int, mesh: Mesh) -> dict[Any, Any]:
    """The programs of `value_and_gradient`, each as a call that returns when it is done."""
    given = jax.device_put(example(batch), mesh.devices.flat[0])

    def call(program):
        return jax.block_until_ready(program(*given))

    return {name: functools.partial(call, program) for name, program in programs.items()}


def temporaries(program: jax.stages.Compiled) -> int:
    """Bytes on one device, beside arguments and results."""
    return program.memory_analysis().temp_size_in_bytes


def _shape(x: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    sharding = batch_sharding(mesh) if np.ndim(x) else replicated(mesh)
    return jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding)
