"""What the contrastive losses cost: memory from the compiler, times of one run, by batch and chunk.

    python -m experiments.contrastive.measure           # prints the tables
    python -m experiments.contrastive.measure --write   # and puts them into docs/contrastive.md

It runs on eight virtual CPU devices, unless JAX_PLATFORMS names others.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.sharding import Mesh  # noqa: E402

from configs import clip  # noqa: E402
from experiments import pages  # noqa: E402
from mmjax import components, schema  # noqa: E402
from mmjax.bench.losses import (  # noqa: E402
    CHUNKS,
    LOSSES,
    WIDTH,
    calls,
    chunk_text,
    mesh_of,
    temporaries,
    value_and_gradient,
)
from mmjax.bench.timing import markdown, take_turns  # noqa: E402
from mmjax.config import to_dict  # noqa: E402
from mmjax.model import assemble  # noqa: E402
from mmjax.parallel.mesh import activation_rules, batch_sharding, replicated  # noqa: E402
from mmjax.training.gradients import make_gradient_function  # noqa: E402

PAGE = pages.DOCS / "contrastive.md"
BATCHES = (512, 1024, 2048, 4096, 8192)
TIMED_BATCH = 4096
CACHED_BATCH, MICROBATCHES = 128, (1, 2, 4, 8)
ROUNDS = 7
VOCABULARY = 12000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/contrastive.md")
    write = parser.parse_args().write
    parts = []
    for part in measure():
        print(part, end="\n\n", flush=True)
        parts.append(part)
    if write:
        pages.replace_part(PAGE, "experiments.contrastive.measure", "\n\n".join(parts))


def measure() -> Iterator[str]:
    """Paragraphs and tables, each as soon as it is known."""
    devices = jax.devices()
    yield (
        f"JAX {jax.__version__}, {len(devices)} devices of kind {devices[0].device_kind}; embeddings of "
        f"width {WIDTH} in float32."
    )
    meshes = {count: mesh_of(count) for count in (1, len(devices))}
    for name in LOSSES:
        for count, mesh in meshes.items():
            yield memory_title(name, count)
            yield memory_table(name, mesh)
    yield f"Time of value and gradient at batch {TIMED_BATCH} on one device, relative to the whole matrix:"
    yield time_table(meshes[1])
    yield f"Gradient of the model of `configs/clip.py`, batch {CACHED_BATCH}, one device, by microbatches:"
    yield cached_table(meshes[1])


def mebibytes(compiled: jax.stages.Compiled) -> str:
    """Temporaries of one device, beside arguments and results."""
    return f"{temporaries(compiled) / 2**20:,.1f}"


def memory_title(name: str, count: int) -> str:
    where = "one device" if count == 1 else f"each of {count} devices"
    return f"Temporaries of `{name}`, value and gradient, on {where}, in MiB:"


def memory_table(name: str, mesh: Mesh) -> str:
    head = ["batch", *map(chunk_text, CHUNKS)]
    rows = [
        [str(batch)] + [mebibytes(value_and_gradient(name, chunk, batch, mesh)) for chunk in CHUNKS]
        for batch in BATCHES
    ]
    return markdown(head, rows)


def time_table(mesh: Mesh) -> str:
    rows = []
    for name in LOSSES:
        programs = {chunk: value_and_gradient(name, chunk, TIMED_BATCH, mesh) for chunk in CHUNKS}
        seconds = fastest(calls(programs, TIMED_BATCH, mesh))
        rows.append([f"`{name}`"] + [f"{seconds[chunk] / seconds[0]:.2f}" for chunk in CHUNKS])
    return markdown(["loss", *map(chunk_text, CHUNKS)], rows)


def cached_table(mesh: Mesh) -> str:
    """Of GradCache: the model's whole gradient, without an optimizer."""
    section = components.normalise(to_dict(clip.get_config().model), schema.Model, "model")
    section["streams"]["text"]["encoder"]["vocab_size"] = VOCABULARY
    model = assemble(section)
    batch = clip_batch(CACHED_BATCH)
    variables = jax.jit(model.init)(jax.random.key(0), jax.tree.map(lambda x: x[:2], batch))
    params = jax.device_put(variables["params"], replicated(mesh))
    key = jax.random.key(1)
    programs = {}
    for microbatches in MICROBATCHES:
        function = make_gradient_function(
            model,
            {"contrastive": LOSSES["infonce"]()},
            jax.tree.map(lambda x: x.sharding, params),
            accumulate_steps=microbatches,
        )

        def run(params, batch, function=function):
            with activation_rules(mesh):
                result = function(params, {}, batch, key)
                return result.loss, result.gradients

        programs[microbatches] = jax.jit(run).lower(params, batch).compile()
    placed = jax.device_put(batch, batch_sharding(mesh))
    seconds = fastest({n: functools.partial(run_whole, p, params, placed) for n, p in programs.items()})
    return markdown(
        ["`optimizer.accumulate_steps`", "temporaries, MiB", "relative time"],
        [[str(n), mebibytes(programs[n]), f"{seconds[n] / seconds[1]:.2f}"] for n in MICROBATCHES],
    )


def clip_batch(rows: int) -> dict[str, jax.Array]:
    everyone = jnp.ones(rows, bool)
    return {
        "image": jax.random.normal(jax.random.key(2), (rows, 64, 64, 3)),
        "image_present": everyone,
        "text": jax.random.randint(jax.random.key(3), (rows, 32), 0, VOCABULARY),
        "text_mask": jnp.ones((rows, 32), bool),
        "text_present": everyone,
        "example_mask": everyone,
    }


def run_whole(program, *arguments):
    return jax.block_until_ready(program(*arguments))


def fastest(calls):
    """Seconds of each call in its fastest round, since other work only adds."""
    return {name: min(times) for name, times in take_turns(calls, ROUNDS).items()}


if __name__ == "__main__":
    main()
