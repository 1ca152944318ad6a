"""What retrieval reaches without learning: word overlap and nearest pixels; and by chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from mmjax.errors import ConfigError
from mmjax.evaluation import ranking
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.evaluator import Evaluator, present
from mmjax.evaluation.retrieval import id_labels, side


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagOfWordsRetrieval(Evaluator):
    """The controls `baseline/bag_of_words/retrieval/<text>_to_<image>/R@k` and `baseline/chance/...`.

    A text is looked up among the training texts; the test images are ordered by how much they look
    like the images of the texts it found. With w_qt the cosine of the TF-IDF vectors (each word
    counted once) of query q and training text t, over the `neighbours` largest, and x the pixels,
    less the mean training image, at length one:

        score(q, j) = sum_t w_qt x_t . x_j

    A query that shares no word with any training text is answered at random. The chance level is
    the expected R@k of a random order.

    Attributes:
      train: name of the data set that texts are looked up in; its streams go through the `eval`
        transforms.
      image, text: streams; an example counts when it has both, and their names are in the metrics'.
      text_features: features of the record that hold the text, joined.
      positives, image_item, text_item: as in `Retrieval`, whose controls these are.
      neighbours: training texts that answer a query.
      seed: of the random answers.
    """

    text_features: list[str]
    train: str = "train"
    image: str = "image"
    text: str = "text"
    positives: list[str] = dataclasses.field(default_factory=list)
    image_item: str = ""
    text_item: str = ""
    neighbours: int = 10
    seed: int = 0

    def __post_init__(self):
        if self.neighbours < 1:
            raise ConfigError(
                f"bag_of_words_retrieval.neighbours: got {self.neighbours}, expected at least 1"
            )

    def needs(self) -> dict[str, set[str]]:
        entries = {self.image, *present(self.image, self.text)}
        labels = id_labels(self.positives, self.image_item, self.text_item)
        # One set of both where the control is measured on the data it looks texts up in.
        return {self.train: entries} | {self.data: entries | set(labels)}

    def groups(self) -> tuple[str, ...]:
        tail = f"retrieval/{self.text}_to_{self.image}"
        return (f"baseline/bag_of_words/{tail}", f"baseline/chance/{tail}")

    def _texts(self, context: EvalContext, data: str, rows: np.ndarray) -> list[str]:
        parts = [context.texts(data, rows, path) for path in self.text_features]
        return [" ".join(texts) for texts in zip(*parts, strict=True)]

    def evaluate(self, context: EvalContext) -> Iterator[tuple[str, float]]:
        streams = [self.image, self.text]
        train = context.collect(self.train, streams)
        test = context.collect(self.data, streams)
        labels = id_labels(self.positives, self.image_item, self.text_item)
        images, texts = side(test, self.image_item, labels), side(test, self.text_item, labels)

        weights = word_overlap(
            self._texts(context, self.data, test["example_row"][texts.rows]),
            self._texts(context, self.train, train["example_row"]),
            self.neighbours,
        )
        pixels, mean = _unit_pixels(train[self.image])
        scores = (weights @ pixels) @ _unit_pixels(test[self.image][images.rows], mean)[0].T
        unknown = ~weights.any(axis=1)
        scores[unknown] = np.random.default_rng(self.seed).random((unknown.sum(), len(images.rows)))

        positive = texts.belongs(slice(None), images, slice(None))
        bag_of_words, chance = self.groups()
        for name, value in ranking.rank_scores(ranking.ranks(scores, positive)).items():
            yield f"{bag_of_words}/{name}", value
        for name, value in ranking.chance_scores(positive.sum(axis=1), len(images.rows)).items():
            yield f"{chance}/{name}", value


def word_overlap(queries: list[str], texts: list[str], neighbours: int) -> np.ndarray:
    """Cosines of TF-IDF vectors, the largest of each query; the others, and those of no overlap, are 0.

    A word is a run of letters and digits, in lower case, counted once per text. Of equal overlaps
    the earlier text is kept.

    Returns:
      `[n queries, m texts]`.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(binary=True, token_pattern=r"(?u)\b\w+\b")
    vectors = vectorizer.fit_transform(texts)
    overlaps = (vectorizer.transform(queries) @ vectors.T).toarray()
    kept = np.argsort(-overlaps, axis=1, kind="stable")[:, :neighbours]
    weights = np.zeros_like(overlaps)
    np.put_along_axis(weights, kept, np.take_along_axis(overlaps, kept, axis=1), axis=1)
    return weights


def _unit_pixels(images, mean=None):
    """Images `[n, ...]` less `mean` (their own by default) as unit vectors `[n, D]`, and the mean."""
    pixels = images.reshape(len(images), -1).astype(np.float32)
    mean = pixels.mean(axis=0) if mean is None else mean
    pixels = pixels - mean
    return pixels / np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-12), mean
