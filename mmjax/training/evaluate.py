"""The evaluators of a config on a run's model, inside training or on a checkpoint."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mmjax import components
from mmjax import config as config_lib
from mmjax.data.loading import data_dir
from mmjax.data.pipeline import EvalPipeline
from mmjax.data.prefetch import place
from mmjax.data.preprocessing import Preprocessor, takes_list
from mmjax.data.source import ListSource
from mmjax.errors import ConfigError
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.run import build_evaluators, names_to_collect, run_evaluators
from mmjax.parallel.mesh import activation_rules, batch_sharding, reader, replicated
from mmjax.training.checkpoints import restore_params
from mmjax.training.setup import Setup, load_data, set_up
from mmjax.training.state import TrainState, eval_params, place_params, shardings_of
from mmjax.training.step import make_eval_step

_TEXTS = 1024  # that are encoded at once: a thousand classes in 80 templates are too many


class Evaluation:
    """Builds the evaluators once and runs those that are due.

    Args:
      setup: of the run.
      workdir: where artifacts go.
      only: names of the evaluators that will run; None: all.

    Raises:
      ConfigError: an evaluator reads what neither the model nor the data has.
    """

    def __init__(self, setup: Setup, workdir: pathlib.Path, only: Collection[str] | None = None):
        self._setup, self._workdir = setup, workdir
        data = config_lib.to_dict(setup.config.data)
        sections = config_lib.to_dict(setup.config.evals)
        self._evaluators = build_evaluators(setup.config)
        self._data_dir = data_dir(setup.config.data)
        for name, evaluator in self._evaluators.items():
            if only is None or name in only:
                evaluator.prepare(self._data_dir)
        self._every = {
            name: setup.to_steps(section, "every", where=f"evals.{name}")
            for name, section in sections.items()
        }
        self._part = reader(setup.mesh)
        self._pipelines = {
            name: EvalPipeline(
                source,
                data,
                name=name,
                batch_size=setup.config.batch_size,
                tokenizers=setup.data.tokenizers,
                spec=setup.pipeline.spec(),
                seed=setup.config.seed,
                process_index=self._part[0],
                process_count=self._part[1],
            )
            for name, source in setup.data.eval.items()
        }
        names = names_to_collect(
            self._evaluators,
            data={name: pipeline.spec() for name, pipeline in self._pipelines.items()},
            outputs=setup.outputs,
        )
        shardings = shardings_of(setup.abstract)
        self._step = make_eval_step(setup.model, names, mesh=setup.mesh, shardings=shardings)
        self._encode_step = jax.jit(self._encode_stream, static_argnums=(3, 4))

    def due(self, step: int) -> list[str]:
        """Names of the evaluators to run after `step`; at the end, all."""
        if step == self._setup.total_steps:
            return list(self._evaluators)
        return [name for name, every in self._every.items() if every and step % every == 0]

    def run(self, names: Collection[str], step: int, state: TrainState) -> dict[str, float]:
        """Metric name -> value, of the evaluators `names` on a training state."""
        return self.run_on(names, step, state.eval_params, state.model_state)

    def run_on(self, names: Collection[str], step: int, params: Any, model_state: Any) -> dict[str, float]:
        """As `run`, on parameters that were restored."""
        sharding = batch_sharding(self._setup.mesh)
        context = EvalContext(
            forward=lambda batch: self._step(params, model_state, place(batch, sharding)),
            pipelines=self._pipelines,
            sources=self._setup.data.eval,
            workdir=self._workdir,
            step=step,
            class_names=self._setup.data.class_names,
            part=self._part,
            data_dir=self._data_dir,
            encode=lambda stream, texts, output: self._encode(params, model_state, stream, texts, output),
        )
        return run_evaluators({name: self._evaluators[name] for name in names}, context)

    def _encode(self, params, model_state, stream: str, texts: Sequence[str], output: str) -> np.ndarray:
        """`[n, D]`: what the model gives for texts in place of what `stream` reads from a record."""
        section = config_lib.to_dict(self._setup.config.data.streams[stream])
        # A text is given by the name of the stream, whatever feature of a record that reads.
        records = [{stream: [text] if takes_list(section) else text} for text in texts]
        section = section | {"features": [stream]}
        preprocessor = Preprocessor(
            {stream: section}, {}, self._setup.data.tokenizers, train=False, partial=True
        )
        preprocessor.spec = preprocessor.find_spec(ListSource(records))
        examples = [preprocessor(record) for record in records]
        batch = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
        parts = []
        for start in range(0, len(texts), _TEXTS):
            rows = np.arange(start, start + min(_TEXTS, len(texts)))  # the last ones are filled up
            part = {name: values.take(rows, axis=0, mode="clip") for name, values in batch.items()}
            parts.append(np.asarray(self._encode_step(params, model_state, part, stream, output)))
        return np.concatenate(parts)[: len(texts)]

    def _encode_stream(self, params, model_state, batch, stream, output):
        with activation_rules(self._setup.mesh):
            variables = {"params": params, **model_state}
            encoded = self._setup.model.apply(variables, batch, [stream], method="encode")
        return jax.lax.with_sharding_constraint(encoded[output], replicated(self._setup.mesh))


def evaluate_checkpoint(
    config: ConfigDict, workdir: pathlib.Path, step: int | None = None, only: Collection[str] | None = None
) -> tuple[int, dict[str, float]]:
    """Evaluators alone, on a checkpoint of a run.

    Args:
      config: the run's, with changes to what is evaluated where wanted.
      workdir: the run's directory.
      step: which checkpoint; None takes the best where the run chose one, else the newest.
      only: names of evaluators; None runs all.

    Returns:
      (step of the checkpoint, metric name -> value).
    """
    for name in only or ():
        if name not in config.evals:
            near = components.suggestion(name, config.evals)
            raise ConfigError(
                f"'{name}' is no evaluator of this run{near}; it has: {', '.join(config.evals)}"
            )
    data = load_data(config, workdir)
    setup = set_up(config, data)
    evaluation = Evaluation(setup, workdir, only or None)
    step, saved = restore_params(workdir / "checkpoints", step)
    given = eval_params(saved["params"], saved["ema"])
    params = place_params(given, setup.abstract.params)
    model_state = place_params(saved["model_state"], setup.abstract.model_state)
    return step, evaluation.run_on(list(only or config.evals), step, params, model_state)
