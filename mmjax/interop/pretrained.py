"""Published models in, and models of ours out."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from mmjax import components, schema
from mmjax.data.published import locate
from mmjax.errors import ConfigError, DataError
from mmjax.interop import files
from mmjax.interop.families import FAMILIES
from mmjax.interop.family import Family, Section
from mmjax.interop.preprocess import Preprocess
from mmjax.layers.stacking import stack_blocks, unstack_blocks
from mmjax.model import Model, assemble, init_model
from mmjax.parallel.placement import named_leaves

Variables = dict[str, Any]


class Pretrained(NamedTuple):
    """A published model: `model.apply(variables, preprocess(text=[...]))`.

    Attributes:
      model: a `mmjax.model.Model`; its streams are called image, text, audio or video.
      variables: 'params', and 'batch_stats' where the model has BatchNorm; numpy arrays, float32.
      preprocess: from images, texts, sounds to a batch, see `Preprocess`.
    """

    model: Model
    variables: Variables
    preprocess: Preprocess


class Weights(NamedTuple):
    """What was read from a checkpoint.

    Attributes:
      family: its name in `FAMILIES`.
      section: our `model` section, every default filled.
      variables: as in `Pretrained`.
      unused: names of tensors that are no part of the model (a classifier, a decoder).
    """

    family: str
    section: Section
    variables: Variables
    unused: list[str]


def from_pretrained(
    source: str | os.PathLike,
    *,
    revision: str | None = None,
    dtype: Any = jnp.float32,
    remat: bool | str = False,
    scan: bool = False,
) -> Pretrained:
    """A published model, ready to be applied or trained.

    Args:
      source: a directory in the layout of Hugging Face transformers (config.json, safetensors in one
        file or several, tokenizer and preprocessor), the id of one on the hub, or 'package:NAME', see
        `mmjax.data.published`.
      revision: branch, tag or commit on the hub.
      dtype: what the model computes in; the variables are float32.
      remat, scan: see `mmjax.schema.Config`.

    Raises:
      DataError: files are missing or damaged, or there are only pickles, which are never opened.
      ConfigError: the architecture is not one of `mmjax.interop.FAMILIES`, or uses what is not
        implemented; the message names the field.
    """
    directory = locate(source, revision)
    weights = read_weights(directory)
    logging.info(
        "%s: a model of the family '%s', %d tensors not used%s",
        source,
        weights.family,
        len(weights.unused),
        f" ({first_of(weights.unused)})" if weights.unused else "",
    )
    model = assemble(weights.section, dtype=dtype, remat=remat, scan=scan)
    variables = stack_blocks(weights.variables) if scan else weights.variables
    return Pretrained(model, variables, Preprocess.read(directory, weights.family, FAMILIES[weights.family]))


def first_of(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names, and dots where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def read_weights(directory: pathlib.Path) -> Weights:
    """The weights of a checkpoint as variables of our model; see `from_pretrained` for the errors."""
    name, config, tensors, on_disk = _open(directory)
    family = FAMILIES[name]
    section = normalise_section(family.section(config, on_disk.keys()))
    expected = _shapes(section, family.inputs(config))

    arrays, used = {}, set()
    for entry in family.entries(section):
        lacking = [key for key in entry.keys if key not in on_disk]
        if lacking:
            raise DataError(f"weights: {directory} has no tensor '{lacking[0]}' ({name})")
        unknown = [path for path in entry.paths if path not in expected]
        if unknown:
            raise ValueError(f"family '{name}': the model has no parameter {unknown[0]}")
        theirs = [tensors[on_disk[key]] for key in entry.keys]
        shapes = [expected[path] for path in entry.paths]
        try:
            ours = entry.layout.read(theirs, shapes)
        except ValueError:
            got, want = (str([list(s) for s in group])[1:-1] for group in (map(np.shape, theirs), shapes))
            raise ConfigError(
                f"weights: {', '.join(entry.keys)} of shape {got} does not fit {entry.paths[0]} of shape "
                f"{want}; config.json and the weights belong to different models"
            ) from None
        arrays |= dict(zip(entry.paths, ours, strict=True))
        used |= set(entry.keys)
    empty = sorted(set(expected) - set(arrays))
    if empty:
        raise ValueError(f"family '{name}': nothing was read into {empty[0]}")
    nested = flax.traverse_util.unflatten_dict(arrays, sep="/")
    unused = sorted(set(tensors) - {on_disk[key] for key in used})
    return Weights(name, section, {"params": {}, **nested}, unused)


def read_section(directory: pathlib.Path) -> Section:
    """The `model` section of a checkpoint, without reading its weights; errors as `from_pretrained`."""
    name, config, _, on_disk = _open(directory)
    return normalise_section(FAMILIES[name].section(config, on_disk.keys()))


def _open(directory):
    """(family, config.json, tensors, canonical name -> name on disk)."""
    config = files.read_config(directory)
    name, family = _find_family(config, directory)
    tensors = files.Tensors(directory)
    names = ((family.canonical(key, config), key) for key in tensors)
    return name, config, tensors, {canonical: key for canonical, key in names if canonical is not None}


def save_pretrained(
    model: Model,
    variables: Mapping[str, Any],
    directory: str | os.PathLike,
    *,
    family: str | None = None,
    preprocess: Preprocess | None = None,
) -> str:
    """Writes a directory that transformers loads, strictly: every tensor it wants and none it does not.

    Args:
      model: of an architecture that some family has.
      variables: its 'params' and other collections.
      directory: a new or empty one.
      family: which of `FAMILIES`; by default the one `preprocess` came with, else the first that can
        express the model.
      preprocess: of `from_pretrained`; the files of its tokenizer and image or audio processor are
        written too.

    Returns:
      The name of the family.

    Raises:
      ConfigError: no family can express the model; says for each why not.
      DataError: the directory holds something already.
    """
    section = describe_model(model)
    ours = {name: np.asarray(leaf, np.float32) for name, leaf in named_leaves(unstack_blocks(variables))}
    shapes = {name: leaf.shape for name, leaf in ours.items()}
    if family is not None and family not in FAMILIES:
        near = components.suggestion(family, FAMILIES)
        raise ConfigError(f"family: got '{family}'{near}, expected one of: {', '.join(FAMILIES)}")
    family = family or (preprocess.family if preprocess else None)
    candidates = [family] if family else [name for name in FAMILIES if not FAMILIES[name].written_as]
    reasons = []
    for name in candidates:
        name = FAMILIES[name].written_as or name
        try:
            config = FAMILIES[name].export(section, shapes)
        except ConfigError as error:
            reasons.append(f"{name}: {error}")
            continue
        tensors = _their_tensors(FAMILIES[name], section, ours)
        files.write(pathlib.Path(directory), config, tensors, preprocess.files if preprocess else {})
        return name
    raise ConfigError(f"weights: no family of transformers has this model ({'; '.join(reasons)})")


def normalise_section(section: Section) -> Section:
    """A `model` section with every default, and the sizes of named variants spelled out."""
    section = components.normalise({"fusion": None, **section}, schema.Model, "model")
    for stream in section["streams"].values():
        if stream["encoder"]:
            stream["encoder"] = _sized(stream["encoder"])
    return section


def describe_model(model: Model) -> Section:
    """The `model` section that `assemble` would make `model` from; kinds of streams are not in it."""
    streams = {}
    for name, owner in model.streams.items():
        share = "" if owner == name else owner
        encoder = None if share else _sized(components.describe("encoders", model.encoders[name]))
        streams[name] = {"encoder": encoder, "share": share}
    heads = {name: components.describe("heads", head) for name, head in model.heads.items()}
    fusion = None if model.fusion is None else components.describe("fusions", model.fusion)
    return {"streams": streams, "fusion": fusion, "heads": heads}


def _sized(encoder: Section) -> Section:
    part = components.build("encoders", encoder)
    if not hasattr(part, "size"):
        return encoder
    sizes = dataclasses.asdict(part.size)
    sizes = {key: list(value) if isinstance(value, tuple) else value for key, value in sizes.items()}
    return {**encoder, "variant": "custom", **sizes}


def _shapes(section, inputs):
    """'params/...' -> shape, of every variable of the model."""
    spec = {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in inputs.items()}
    model = assemble(section)
    shapes = jax.eval_shape(lambda key: init_model(model, spec, key), jax.random.key(0))
    return {name: tuple(leaf.shape) for name, leaf in named_leaves(shapes)}


def _their_tensors(family: Family, section: Section, ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    tensors, written = {}, set()
    for entry in family.entries(section):
        theirs = entry.layout.write([ours[path] for path in entry.paths])
        tensors |= {key: np.require(x, requirements="C") for key, x in zip(entry.keys, theirs, strict=True)}
        written |= set(entry.paths)
    left = sorted(set(ours) - written)
    if left:
        raise ConfigError(f"weights: {left[0]} has no place in their layout")
    return tensors | {key: np.asarray(value) for key, value in family.constants(section).items()}


def _find_family(config: Mapping[str, Any], directory: pathlib.Path) -> tuple[str, Family]:
    kind = config.get("model_type")
    for name, family in FAMILIES.items():
        if kind in family.model_types:
            return name, family
    known = sorted({kind for family in FAMILIES.values() for kind in family.model_types})
    near = components.suggestion(str(kind), known)
    raise ConfigError(
        f"weights: {directory} holds a model of type '{kind}'{near}, expected one of: {', '.join(known)}"
    )
