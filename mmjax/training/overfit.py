"""Whether a model can learn at all: one batch, over and over."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from mmjax.data.prefetch import prefetch
from mmjax.parallel.mesh import batch_sharding
from mmjax.training.setup import fill_sizes, load_data, set_up
from mmjax.training.state import create_state
from mmjax.training.step import pop_non_finite


def overfit_one_batch(
    config: ConfigDict, steps: int, show: Callable[[int, dict[str, float]], None]
) -> tuple[float, float]:
    """Trains on the first batch only and writes nothing.

    Args:
      config: resolved; its schedule is laid over `steps`.
      steps: updates to make.
      show: called with the step and its metrics, at the first and the last step and ten times between.

    Returns:
      The loss before and after.
    """
    config = ConfigDict(
        config.to_dict() | {"total_steps": steps, "total_epochs": None, "total_examples": None}
    )
    data = load_data(config, None)
    setup = set_up(fill_sizes(config, data), data)
    state = create_state(setup.model, setup.batch, setup.tx, setup.abstract, seed=config.seed)
    train_step = setup.make_train_step()
    with prefetch(setup.pipeline.batches(0), batch_sharding(setup.mesh), size=1) as batches:
        batch = next(batches)
    first = last = float("nan")
    for step in range(1, steps + 1):
        state, metrics = train_step(state, batch)
        if step in (1, steps) or step % max(1, steps // 10) == 0:
            not_finite = pop_non_finite(metrics)
            values = {name: float(s / n) for name, (s, n) in jax.device_get(metrics).items() if n}
            show(step, values)
            first, last = (values["loss"], values["loss"]) if step == 1 else (first, values["loss"])
            if not_finite or not np.isfinite(last):
                break
    return first, last
