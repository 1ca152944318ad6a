"""What saving the state of a run costs its steps, and how long restoring it takes."""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax

from mmjax import config as config_lib
from mmjax.bench.timing import Settings, markdown
from mmjax.parallel.mesh import batch_sharding
from mmjax.planning import stand_in
from mmjax.planning.compilation import make_setup
from mmjax.training.checkpoints import Checkpoints
from mmjax.training.state import create_state

_CONFIG = str(pathlib.Path(__file__).parents[2] / "configs" / "clip.py")
_BATCH = 32
_STEPS = 20  # between two saves
_VOCABULARY = "12000"


def measure(settings: Settings) -> dict[str, Any]:
    """Seconds of steps with and without a save after the first of them, of a save, and of a restore.

    The model is the small one of `configs/clip.py`. Stretches of steps with and without a save take turns;
    what a save costs is the difference, which holds the stall of the call and all that writing in the
    background slows down.
    """
    overrides = {"model.streams.text.encoder.vocab_size": _VOCABULARY}
    overrides["batch_size"] = str(settings.batch or _BATCH)
    config = config_lib.resolve(_CONFIG, overrides)
    setup = make_setup(config, stand_in.load(config), jax.devices()[:1])
    step = setup.compile_train_step()
    state = create_state(setup.model, setup.batch, setup.tx, setup.abstract, seed=0)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    batch = {name: jax.numpy.ones(x.shape, x.dtype) for name, x in setup.batch.items()}
    batch = jax.device_put(batch, batch_sharding(setup.mesh))
    stalls, with_save, without = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder)

        def stretch(save_as: int | None) -> float:
            nonlocal state
            began = time.perf_counter()
            for i in range(_STEPS):
                state, metrics = step(state, batch)
                if i == 0 and save_as is not None:
                    jax.block_until_ready(metrics)
                    called = time.perf_counter()
                    checkpoints.save(save_as, state, {})
                    stalls.append(time.perf_counter() - called)
            jax.block_until_ready(metrics)
            return time.perf_counter() - began

        stretch(None)
        for i in range(settings.rounds):
            without.append(stretch(None))
            with_save.append(stretch(i + 1))
            checkpoints.wait()
        began = time.perf_counter()
        restored = checkpoints.restore_latest(setup.abstract)
        jax.block_until_ready(restored[1].params)
        restore = time.perf_counter() - began
        checkpoints.close()
    return {
        "state_bytes": size,
        "batch": config.batch_size,
        "steps": _STEPS,
        "step_seconds": min(without) / _STEPS,
        "stall_seconds": min(stalls),
        "cost_seconds": statistics.median(a - b for a, b in zip(with_save, without, strict=True)),
        "restore_seconds": restore,
    }


def table(result: Mapping[str, Any]) -> str:
    """What `measure` found, in words and a table."""
    rows = [
        ["a step", f"{1000 * result['step_seconds']:.1f}"],
        ["the call that saves, until training goes on", f"{1000 * result['stall_seconds']:.1f}"],
        [f"{result['steps']} steps with a save, more than without", f"{1000 * result['cost_seconds']:.1f}"],
        ["verify and restore", f"{1000 * result['restore_seconds']:.1f}"],
    ]
    every = max(result["cost_seconds"], result["stall_seconds"]) / 0.02 / result["step_seconds"]
    return (
        f"Checkpoints of {result['state_bytes'] / 2**20:.1f} MiB, of the small model of `configs/clip.py` at "
        f"batch {result['batch']}; the fastest of the rounds, and of the difference the median.\n\n"
        f"{markdown(['', 'ms'], rows)}\n\n"
        f"A save every {max(1, round(every)):,} steps or more costs less than 2% of the time."
    )
