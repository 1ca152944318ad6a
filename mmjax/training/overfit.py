"""Whether a model can learn at all: one batch, over and over."""

from __future__ import annotations

from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from mmjax.data.prefetch import prefetch
from mmjax.errors import ConfigError, NonFiniteError
from mmjax.parallel.mesh import batch_sharding
from mmjax.training.loop import initial_state
from mmjax.training.setup import fill_sizes, load_data, set_up
from mmjax.training.step import pop_non_finite


def overfit_one_batch(
    config: ConfigDict, steps: int, show: Callable[[int, dict[str, float]], None]
) -> tuple[float, float]:
    """Trains on the first batch only and writes nothing.

    Args:
      config: resolved; its schedule is laid over `steps`.
      steps: updates to make, 2 or more.
      show: called with the step and its metrics, at the first and the last step and ten times between.

    Returns:
      The loss in the first and in the last step.

    Raises:
      NonFiniteError: the loss or a gradient became NaN or infinite.
    """
    if steps < 2:
        raise ConfigError(f"--steps={steps}: expected 2 or more")
    config = ConfigDict(
        config.to_dict() | {"total_steps": steps, "total_epochs": None, "total_examples": None}
    )
    data = load_data(config, None)
    setup = set_up(fill_sizes(config, data), data)
    state = initial_state(setup)
    train_step = setup.make_train_step()
    with prefetch(setup.pipeline.batches(0), batch_sharding(setup.mesh), size=1) as batches:
        batch = next(batches)
    losses = []
    for step in range(1, steps + 1):
        state, metrics = train_step(state, batch)
        if step in (1, steps) or step % max(1, steps // 10) == 0:
            not_finite = pop_non_finite(metrics)
            values = {name: float(s / n) for name, (s, n) in jax.device_get(metrics).items() if n}
            show(step, values)
            if not_finite:
                raise NonFiniteError(
                    f"step {step} on one batch: not finite: {', '.join(not_finite)}; lower "
                    "optimizer.schedule.peak, or look at the data"
                )
            losses.append(values["loss"])
    return losses[0], losses[-1]
