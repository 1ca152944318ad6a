"""Classification by the names of the classes."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from mmjax.errors import ConfigError
from mmjax.evaluation import prompts
from mmjax.evaluation.classification import accuracy_scores, save_confusion_matrix
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.evaluator import Evaluator, present
from mmjax.evaluation.frozen_features import labelled_features


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShot(Evaluator):
    """`zero_shot/<label>/accuracy`, with its 95% bootstrap interval `accuracy_low`, `accuracy_high`.

    Each class is the mean of the embeddings of its name in every template, each of length one, made
    of length one again; an example belongs to the class of the largest dot product (Radford et al.
    2021, arXiv:2103.00020, section 3.1.4).

    Artifact: `confusion_matrix`.

    Attributes:
      embedding: output `[B, D]` of the examples, in the same space as the texts'.
      text_embedding: output `[B, D]` of the texts.
      label: batch entry, a class index `[B]`; examples with -1 do not count.
      text_stream: stream that encodes the templates.
      templates: texts with `{}` where the name of the class goes.
      classes: names of the classes, in order; empty takes those of the data.
      benchmark: takes templates, and classes where it has some, from this entry of the package
        clip-benchmark, such as 'imagenet1k' or 'cifar10'. The classes of the data must be in the order of the
        benchmark, which is that of TFDS.
      streams: only examples that have all of these count.
    """

    embedding: str
    text_embedding: str
    label: str
    text_stream: str = "text"
    templates: list[str] = dataclasses.field(default_factory=lambda: ["{}"])
    classes: list[str] = dataclasses.field(default_factory=list)
    benchmark: str = ""
    streams: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if not self.templates or not all("{}" in template for template in self.templates):
            raise ConfigError(
                f"zero_shot.templates: got {self.templates}, expected texts with {{}} for the class's name"
            )
        if self.benchmark and (self.templates != ["{}"] or self.classes):
            raise ConfigError("zero_shot.benchmark: brings templates and classes; set it, or set them")

    def prepare(self, data_dir: pathlib.Path) -> None:
        if self.benchmark:
            prompts.published(self.benchmark, data_dir)

    def needs(self) -> dict[str, set[str]]:
        return {self.data: {self.embedding, self.label, *present(*self.streams)}}

    def groups(self) -> tuple[str, ...]:
        return (f"zero_shot/{self.label}",)

    def evaluate(self, context: EvalContext) -> Iterator[tuple[str, float]]:
        embeddings, labels = labelled_features(context, self.data, [self.embedding], self.label, self.streams)
        names, texts = self._prompts(context)
        if labels.max() >= len(names):
            raise ConfigError(
                f"zero_shot: '{self.label}' of '{self.data}' goes up to class {labels.max()}, but "
                f"{len(names)} names are known; set classes"
            )
        filled = [text.replace("{}", name) for name in names for text in texts]
        encoded = context.encode_texts(self.text_stream, filled, self.text_embedding)
        if encoded.shape[1:] != embeddings.shape[1:]:
            raise ConfigError(
                f"zero_shot: '{self.embedding}' has {embeddings.shape[1]} numbers, '{self.text_embedding}' "
                f"has {encoded.shape[1]}; expected the same space"
            )
        templates = _unit(encoded).reshape(len(names), len(texts), -1)
        predictions = (embeddings @ _unit(templates.mean(axis=1)).T).argmax(axis=1)
        (group,) = self.groups()
        save_confusion_matrix(context, self.full_name(group), list(names), labels, predictions)
        for name, value in accuracy_scores(predictions == labels).items():
            yield f"{group}/{name}", value

    def _prompts(self, context: EvalContext) -> tuple[list[str], list[str]]:
        """Names of the classes, and templates."""
        known = context.class_names(self.label)
        if not self.benchmark:
            return self.classes or known, self.templates
        names, templates = prompts.published(self.benchmark, context.data_dir)
        if names and known and len(names) != len(known):
            raise ConfigError(
                f"zero_shot.benchmark: '{self.benchmark}' has {len(names)} classes, '{self.label}' of "
                f"'{self.data}' has {len(known)}; set templates and classes instead"
            )
        return names or [name.replace("_", " ").replace("/", " ") for name in known], templates


def _unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
