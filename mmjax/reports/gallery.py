"""Sections of pictures: what a query retrieves, what a decoder rebuilds, where attention looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from mmjax.errors import DataError
from mmjax.reports import pictures
from mmjax.reports.format import cut, number
from mmjax.reports.html import Markup, element, join

# (data set's name in the config, example_id) -> its image (a file's bytes, or pixels), or None.
Images = Callable[[str, int], bytes | np.ndarray | None]


def retrieval(artifact: Mapping[str, Any], images: Images) -> Markup | None:
    """Queries, each with what it retrieved, best first, right ones marked.

    Args:
      artifact: `data` (name of the data set) and `queries`: a list of `{'text', 'example_id',
        'rank', 'results': [{'example_id', 'score', 'correct', 'text'}]}`. An entry may bring its own
        `image` (base64, or as `pictures.decode` takes it) and a `name` to stand under it; one
        without text and image is shown by the image of its example. `correct` is left out where
        nothing is known about it, and so is `rank`, that of the best right answer.
      images: where the other pictures come from.
    """
    data = str(artifact.get("data", ""))
    rows = []
    for query in artifact["queries"]:
        hits = [_hit(entry, data, images) for entry in query["results"]]
        text = query.get("text")
        asked = element("q", cut(text, 200)) if text else _picture(query, data, images)
        asked = element("div", asked, _wanted(query, data, images), class_="query")
        rows.append(element("div", asked, element("ol", *hits), class_="asked"))
    return element("div", *rows, class_="gallery") if rows else None


def _wanted(query, data, images):
    """The rank of the right answer where it is not shown, with its image where the query is a text."""
    if any(entry.get("correct", True) for entry in query["results"]):
        return None
    note = f"right answer at rank {query['rank']}" if query.get("rank") else "right answer not among them"
    image = _picture(query, data, images) if query.get("text") and "example_id" in query else None
    return element("div", element("span", note, class_="tail"), image, class_="wanted")


def _hit(entry, data, images):
    shown = element("span", cut(entry["text"], 80)) if entry.get("text") else _picture(entry, data, images)
    score = entry.get("score")
    score = None if score is None else f"{score:.3f}"
    name = element("span", cut(entry["name"], 40), class_="tail") if entry.get("name") else None
    correct = entry.get("correct")
    if correct is None:
        return element("li", shown, name, element("span", score, class_="tail"), class_="hit")
    mark = element("span", "✓" if correct else "✗", class_="mark", title="right" if correct else "wrong")
    kind = "hit good" if correct else "hit bad"
    return element("li", shown, name, element("span", mark, " ", score, class_="tail"), class_=kind)


def _picture(entry, data, images):
    example_id = entry.get("example_id")
    try:
        found = entry.get("image")
        if found is None and example_id is not None:
            found = images(data, example_id)
        if found is not None:
            return pictures.picture(pictures.decode(found), alt=f"example {example_id}")
    except DataError:
        pass  # a picture that cannot be read is told by its number, like one that is not there
    return element("span", f"example {example_id}", class_="nothing")


def reconstructions(artifact: Mapping[str, Any]) -> Markup | None:
    """Pairs of an original and what the model rebuilt.

    Args:
      artifact: `examples`: a list of `{'original', 'reconstruction'}`, base64 pictures, each
        optionally with `masked` (what the model saw) and `example_id`.
    """
    cards = []
    for example in artifact["examples"]:
        shown = []
        for key in ("original", "masked", "reconstruction"):
            if example.get(key):
                image = pictures.picture(pictures.decode(example[key]), alt=key, side=112)
                shown.append(element("span", image, element("span", key, class_="tail"), class_="pair"))
        cards.append(element("div", *shown, class_="pairs"))
    return element("div", *cards, class_="cards") if cards else None


def attention(artifact: Mapping[str, Any]) -> Markup | None:
    """Where in the image each word looks.

    Args:
      artifact: `examples`: a list of `{'image': base64, 'tokens': n words, 'weights': [n, h, w]}`,
        the attention of each word over the grid of image patches.

    Raises:
      ValueError: when there is not one map per token.
    """
    rows = []
    for example in artifact["examples"]:
        image = pictures.decode(example["image"])
        tokens, weights = example["tokens"], np.asarray(example["weights"], np.float32)
        if weights.ndim != 3 or len(weights) != len(tokens):
            raise ValueError(f"weights of shape {weights.shape} for {len(tokens)} tokens, expected [n, h, w]")
        maps = [_looked_at(image, token, w) for token, w in zip(tokens, weights, strict=True)]
        original = element("span", pictures.picture(image, alt="the image", side=112), class_="pair")
        rows.append(element("div", original, *maps, class_="pairs wide"))
    note = "Each word's attention over the image, brightest where it is largest; scaled for each word."
    return join((element("p", note, class_="note"), *rows)) if rows else None


def _looked_at(image: Image.Image, token: str, weights: np.ndarray) -> Markup:
    largest = f"largest weight {number(float(weights.max()))}"
    shown = pictures.picture(pictures.heat(image, weights, side=224), alt=f"attention of {token}", side=112)
    return element("span", shown, element("b", cut(token, 24)), class_="pair", title=largest)
