"""The artifact behind a report's attention maps: where in an image the fusion looks for each word."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from mmjax.data.transforms.text import special_ids
from mmjax.reports.pictures import from_array


def attention_artifact(
    config: Mapping[str, Any],
    model: nn.Module,
    variables: Mapping[str, Any],
    batch: Mapping[str, Any],
    tokenizers: Mapping[str, Any],
    *,
    examples: int = 8,
) -> dict[str, Any] | None:
    """The artifact of a run: the first text stream over the first image stream of its model.

    Args:
      config: the resolved config.
      model, variables: of the run.
      batch: of evaluation data, `[B, ...]`.
      tokenizers: of the run, by name.
      examples: how many of the batch's examples are shown, of those that have both streams.

    Returns:
      See `attention_examples`; None when the model has no two such streams, too.
    """
    text, image = (_first_of_kind(config, kind) for kind in ("text", "image"))
    if text is None or image is None:
        return None
    rows = np.flatnonzero(np.asarray(batch[f"{text}_present"]) & np.asarray(batch[f"{image}_present"]))
    few = {name: np.asarray(values)[rows[:examples]] for name, values in batch.items()}
    streams = config["data"]["streams"]
    name = next((t["tokenizer"] for t in streams[text]["eval"] if "tokenizer" in t), None)
    if name is None or not len(rows):
        return None
    words = words_of(few[text], few.get(f"{text}_mask"), tokenizers[name])
    pixels = shown_pixels(few[image], streams[image]["eval"])
    return attention_examples(model, variables, few, words, pixels, text=text, image=image)


def _first_of_kind(config, kind):
    streams = config["model"]["streams"].items()
    return next((name for name, stream in streams if stream["kind"] == kind), None)


def words_of(ids: np.ndarray, mask: np.ndarray | None, tokenizer: Any) -> list[list[tuple[str, list[int]]]]:
    """The words of each row of `[B, L]` token ids, with the positions of the tokens they are made of.

    Padding and special tokens belong to no word.
    """
    hidden = np.isin(ids, special_ids(tokenizer))
    hidden = hidden if mask is None else hidden | ~np.asarray(mask)
    return [_words(row, np.flatnonzero(~skip), tokenizer) for row, skip in zip(ids, hidden, strict=True)]


def _words(ids, positions, tokenizer):
    words: list[tuple[str, list[int]]] = []
    text = ""
    for i, position in enumerate(positions):
        # A token begins a word where it adds a space to the text of those before it.
        longer = tokenizer.decode(ids[positions[: i + 1]].tolist())
        added = longer[len(text) :] if longer.startswith(text) else ""
        if words and not added.startswith(" "):
            word, own = words[-1]
            words[-1] = (word + added, [*own, int(position)])
        else:
            words.append((added.strip(), [int(position)]))
        text = longer
    return words


def shown_pixels(images: np.ndarray, transforms: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """`[B, height, width, C]` in [0, 1], from images as the model gets them.

    Args:
      images: what the transforms end in.
      transforms: of the stream; a `normalise` among them is undone.
    """
    for transform in transforms:
        if transform["type"] == "normalise":
            mean, std = (np.asarray(transform[key], np.float32) for key in ("mean", "std"))
            return np.clip(images * std + mean, 0.0, 1.0)
    return images


def attention_examples(
    model: nn.Module,
    variables: Mapping[str, Any],
    batch: Mapping[str, Any],
    words: Sequence[Sequence[tuple[str, Sequence[int]]]],
    pixels: np.ndarray,
    *,
    text: str = "text",
    image: str = "image",
) -> dict[str, Any] | None:
    """Applies the model to a few examples and reads the attention from text to image.

    The weights are those of the last fusion layer that looks from `text` at `image`, averaged over
    its heads and over the tokens of each word.

    Args:
      model: an `mmjax.model.Model`.
      variables: its variables.
      batch: a few examples (`[B, ...]` each), with every stream of the model.
      words: for each example its words, with their positions in the text stream, see `words_of`.
      pixels: `[B, height, width, C]`, the images as they are to be shown, uint8 or in [0, 1].
      text, image: names of the streams.

    Returns:
      The artifact (`kind` 'attention', see `mmjax.reports.gallery.attention`), of the examples that
      have both streams; None when the fusion has no such attention, or its keys are no image grid.
    """
    weights = text_to_image_weights(model, variables, batch, text, image)
    if weights is None:
        return None
    maps = on_grid(weights, pixels.shape[1:3])
    if maps is None:
        return None
    present = np.asarray(batch[f"{text}_present"]) & np.asarray(batch[f"{image}_present"])
    examples = []
    for row in np.flatnonzero(present):
        if not words[row]:
            continue
        stored = io.BytesIO()
        from_array(np.asarray(pixels[row])).save(stored, "PNG")
        weights = np.stack([maps[row, list(positions)].mean(axis=0) for _, positions in words[row]])
        examples.append(
            {
                "image": base64.b64encode(stored.getvalue()).decode(),
                "tokens": [word for word, _ in words[row]],
                "weights": np.round(weights.astype(np.float64), 5).tolist(),
            }
        )
    return {"kind": "attention", "examples": examples} if examples else None


def text_to_image_weights(
    model: nn.Module, variables: Mapping[str, Any], batch: Mapping[str, Any], text: str, image: str
) -> np.ndarray | None:
    """`[B, L_text, L_image]`, averaged over heads; None when the fusion sows no such attention."""

    @jax.jit
    def sown(variables, batch):
        _, state = model.apply(variables, batch, mutable=["intermediates"])
        flat = flax.traverse_util.flatten_dict(dict(state.get("intermediates", {})))
        ends = (f"{text}_to_{image}", "attention")
        return {path[:-2]: value[0] for path, value in flat.items() if path[-2:] == ends}

    # Modules are not traversed in a promised order, but layers are numbered.
    layers = {_numbers(path): value for path, value in sown(variables, dict(batch)).items()}
    if not layers:
        return None
    return np.asarray(layers[max(layers)], np.float32).mean(axis=1)


def _numbers(path):
    digits = ("".join(c for c in part if c.isdigit()) for part in path)
    return tuple(int(d) for d in digits if d)


def on_grid(weights: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """`[B, L_text, L_image]` as maps `[B, L_text, h, w]` of the shape of an image.

    Args:
      weights: over the image's tokens, which are a grid row by row, perhaps after a class token.
      size: height and width of the image.

    Returns:
      The maps; None when neither all tokens nor all but the first make a grid of this shape.
    """
    tokens = weights.shape[-1]
    for skipped in (0, 1):
        count = tokens - skipped
        rows = round(math.sqrt(count * size[0] / size[1]))
        if rows and count % rows == 0 and rows * size[1] == (count // rows) * size[0]:
            return weights[..., skipped:].reshape(*weights.shape[:-1], rows, count // rows)
    return None
