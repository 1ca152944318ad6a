"""A trained run as a function: `mmjax.load(workdir)`, then `embed`, `predict`, `search`.

A run's directory is all it takes: the preprocessing, the tokenizers, the shapes of the inputs and
the names of the classes are read from it, so that what is computed is what was evaluated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmjax import components
from mmjax.data.loading import data_dir, load_tokenizers
from mmjax.data.pipeline import EvalPipeline
from mmjax.data.preprocessing import Preprocessor, read_spec, takes_list
from mmjax.errors import DataError
from mmjax.heads import entries
from mmjax.inference import heads as heads_lib
from mmjax.inference.heads import EMBEDDINGS, PREDICTIONS, readable_heads
from mmjax.inference.items import Items, given_items, read_items, read_value
from mmjax.inference.search import Hit, Index, search
from mmjax.model import build_model
from mmjax.training import lora
from mmjax.training.checkpoints import restore_params
from mmjax.training.state import eval_params
from mmjax.training.workdir import read_config, read_json


def load(workdir: pathlib.Path | str, step: int | None = None, *, batch_size: int = 64) -> Run:
    """The model of a run with everything around it.

    Args:
      workdir: the run's directory, finished or not.
      step: which checkpoint; None takes the best where the run chose one, else the newest.
      batch_size: how many items are computed at once.

    Raises:
      DataError: this is no run's directory, it has no such checkpoint, or a file of it is damaged.
      ConfigError: the run was made by a version of the code with other keys.
    """
    workdir = pathlib.Path(workdir).expanduser()
    config = read_config(workdir)
    spec = read_spec(read_json(workdir / "spec.json"))
    class_names = read_json(workdir / "data.json")["class_names"]
    step, saved = restore_params(workdir / "checkpoints", step)
    params = lora.merge(eval_params(saved["params"], saved["ema"]), config["lora"])
    return Run(
        config,
        {"params": params, **saved["model_state"]},
        spec,
        tokenizers=load_tokenizers(workdir / "tokenizers"),
        class_names=class_names,
        step=step,
        batch_size=batch_size,
    )


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What the model gives for some items.

    Attributes:
      names: of the `n` items: a path or number, or the example_id of a record.
      outputs: head -> `[n, ...]`.
      present: stream -> bool `[n]`, whether the item has it.
    """

    names: list[str | int]
    outputs: dict[str, np.ndarray]
    present: dict[str, np.ndarray]


class Run:
    """A trained model with its preprocessing; made by `load`.

    A stream of the model is given by keyword: one value, or a list with one value per item, and
    None where an item lacks the stream. An image, sound or video is a path, the bytes of a file, or
    an array (uint8 `[height, width, C]` for an image) or PIL image; a text is the text itself.
    A stream that is not given is missing, as it may be in training.

    Attributes:
      config: the resolved config.
      step: of the checkpoint.
      kinds: stream -> 'image', 'text', 'audio', 'waveform' or 'video'.
      model, variables: `run.model.apply(run.variables, batch)` computes everything; low-rank factors
        (`mmjax.training.lora`) are in the kernels.
      tokenizers: by name.
      class_names: label -> names of its classes.
      batch_size: how many items are computed at once.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        variables: Mapping[str, Any],
        spec: Mapping[str, tuple[Sequence[int], str]],
        *,
        tokenizers: Mapping[str, Any],
        class_names: Mapping[str, list[str]],
        step: int,
        batch_size: int = 64,
    ):
        self.config, self.step, self.batch_size = config, step, batch_size
        self.tokenizers, self.class_names = tokenizers, class_names
        self.kinds = {name: stream["kind"] for name, stream in config["model"]["streams"].items()}
        self.model = build_model(config, spec)
        self.variables = jax.device_put(dict(variables))
        self._spec = {name: entry for name, entry in spec.items() if name not in config["data"]["labels"]}
        # Values are given by the name of their stream, whatever feature of a record it reads.
        sections = {name: config["data"]["streams"][name] for name in self.kinds}
        self._preprocessor = Preprocessor(
            {name: {**section, "features": [name]} for name, section in sections.items()},
            {},
            tokenizers,
            train=False,
            spec=self._spec,
            partial=True,
        )
        self._from_list = {name for name, section in sections.items() if takes_list(section)}
        self._compiled: dict[Any, Any] = {}

    @property
    def heads(self) -> dict[str, dict[str, Any]]:
        """The config of each head."""
        return self.config["model"]["heads"]

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets that the run knows."""
        return list(dict.fromkeys(["train", *self.config["data"]["eval"]]))

    def embed(self, **streams: Any) -> dict[str, np.ndarray]:
        """Embeddings: the output `[n, D]` of every projection head that reads something given.

        A row is zeros where the item lacks what the head reads.

        Raises:
          ConfigError: a stream the model does not have, or that no projection head reads.
          DataError: a value that cannot be read.
        """
        chunks = list(self.outputs(given_items(streams, self.kinds), EMBEDDINGS))
        return {name: np.concatenate([chunk.outputs[name] for chunk in chunks]) for name in chunks[0].outputs}

    def predict(self, *, top_k: int = 5, **streams: Any) -> dict[str, list[dict[str, Any] | None]]:
        """What classifiers and regressors say: head -> one entry per item.

        A classifier gives `{'label', 'probability', 'top_k': [{'label', 'probability'}, ...]}`, or
        `{'labels': those above one half, 'top_k': ...}` where several labels may be right at once;
        a regressor `{'values': [...]}`. The entry is None where the item lacks what the head reads.

        Raises:
          ConfigError: a stream the model does not have, or from which no head predicts.
          DataError: a value that cannot be read.
        """
        found: dict[str, list[dict[str, Any] | None]] = {}
        for chunk in self.outputs(given_items(streams, self.kinds), PREDICTIONS):
            for head, rows in self.decide(chunk, top_k).items():
                found.setdefault(head, []).extend(rows)
        return found

    def search(
        self,
        source: Items | Index | pathlib.Path | str,
        *,
        k: int = 10,
        find: str | None = None,
        **query: Any,
    ) -> list[Hit]:
        """The items of `source` most similar to the query, best first.

        Args:
          source: a folder, a manifest, a data set of the run, a Parquet file of embeddings, or an
            `Index` (from `make_index`), which is quicker for a second query.
          k: how many.
          find: the stream of the items to compare with; None takes another than the query's where
            there is one, else the same.
          query: one stream with one value, such as `text="a cat"`.
        """
        return search(self, source, query, k=k, find=find)

    def first_batch(self, data: str) -> dict[str, np.ndarray]:
        """The first batch of a data set of the run, as the model gets it: name -> `[batch_size, ...]`."""
        with contextlib.closing(self._record_batches(data)) as batches:
            return next(batches)[1]

    def outputs(self, source: Items | pathlib.Path | str, types: Sequence[str]) -> Iterator[Chunk]:
        """The outputs of all heads of some types, a batch of items at a time.

        Args:
          source: items, a folder or manifest (see `read_items`), or the name of a data set:
            'train', or one of `data.eval`.
          types: of the heads, such as `EMBEDDINGS`; heads that read nothing given are left out.

        Raises:
          ConfigError: no head of these types reads what is given.
          DataError: an item cannot be read.
        """
        if isinstance(source, str) and source in self.datasets:
            heads = readable_heads(self.heads, types, list(self.kinds))
            return self._apply(self._record_batches(source), heads, list(self.kinds))
        items = source if isinstance(source, Items) else read_items(source, self.kinds)
        streams = items.streams()
        return self._apply(self._item_batches(items), readable_heads(self.heads, types, streams), streams)

    def decide(self, chunk: Chunk, top_k: int = 5) -> dict[str, list[dict[str, Any] | None]]:
        """The predictions in the outputs of classifiers and regressors, see `predict`."""
        found = {}
        for head, values in chunk.outputs.items():
            section = self.heads[head]
            if section["type"] in heads_lib.CLASSIFIERS:
                several = heads_lib.is_multi_label(head, self.config["objectives"])
                rows = heads_lib.classes(
                    values, self.class_names.get(section["label"]), top_k, several=several
                )
            else:
                rows = [{"values": row.tolist()} for row in values]
            reads = self.kinds if "fused" in entries(section) else entries(section)
            has = np.any([chunk.present[stream] for stream in reads], axis=0)
            found[head] = [row if ok else None for row, ok in zip(rows, has, strict=True)]
        return found

    def _item_batches(self, items: Items) -> Iterator[tuple[list[Any], dict[str, np.ndarray]]]:
        for start in range(0, len(items.names), self.batch_size):
            names = items.names[start : start + self.batch_size]
            examples = [
                self._example(name, items.values[start + i], start + i) for i, name in enumerate(names)
            ]
            examples += [self._preprocessor.blank()] * (self.batch_size - len(examples))
            yield names, {entry: np.stack([e[entry] for e in examples]) for entry in examples[0]}

    def _example(self, name, values, number):
        record: dict[str, Any] = {"example_id": number}
        try:
            for stream, value in values.items():
                value = read_value(value, self.kinds[stream])
                record[stream] = [value] if stream in self._from_list else value
            return self._preprocessor(record, number=number)
        except DataError as error:
            media = (value for stream, value in values.items() if self.kinds[stream] != "text")
            files = [str(value) for value in media if isinstance(value, str | pathlib.Path)]
            unnamed = [file for file in files if not file.endswith(str(name))]
            where = f" ({', '.join(unnamed)})" if unnamed else ""
            raise DataError(f"item {name}{where}: {error}") from error

    def _record_batches(self, name: str) -> Iterator[tuple[list[Any], dict[str, np.ndarray]]]:
        data = self.config["data"]
        section = data["eval"][name]["dataset"] if name in data["eval"] else data["train"]
        source = components.build("datasets", section).open(data_dir(data))
        pipeline = EvalPipeline(
            source,
            {**data, "labels": {}, "eval": {k: {**part, "labels": {}} for k, part in data["eval"].items()}},
            name=name,
            batch_size=self.batch_size,
            tokenizers=self.tokenizers,
            spec=self._spec,
        )
        for batch in pipeline.batches():
            yield batch["example_id"][batch["example_mask"]].tolist(), batch

    def _apply(
        self,
        batches: Iterable[tuple[list[Any], Mapping[str, np.ndarray]]],
        heads: Sequence[str],
        streams: Sequence[str],
    ) -> Iterator[Chunk]:
        needed = {entry for head in heads for entry in entries(self.heads[head])}
        whole = not needed <= set(streams)  # something reads the fused features, or a missing stream
        forward = self._forward(tuple(heads), None if whole else tuple(s for s in streams if s in needed))
        kept = [name for s in (self.kinds if whole else needed) for name in self.model.inputs(s)]
        for names, batch in batches:
            found = forward(self.variables, {name: batch[name] for name in kept if name in batch})
            rows = slice(len(names))  # the rest pads the batch
            yield Chunk(
                names,
                {head: np.asarray(values[rows]) for head, values in found.items()},
                {stream: batch[f"{stream}_present"][rows] for stream in self.kinds},
            )

    def _forward(self, heads: tuple[str, ...], streams: tuple[str, ...] | None):
        """The jitted function (variables, batch) -> outputs of `heads`, compiled once."""

        def forward(variables, batch):
            if streams is None:
                outputs = self.model.apply(variables, batch)
            else:
                outputs = self.model.apply(variables, batch, streams, method="encode")
            return {head: outputs[head] for head in heads}

        if (heads, streams) not in self._compiled:
            self._compiled[heads, streams] = jax.jit(forward)
        return self._compiled[heads, streams]
