"""Runs of ours as published models, and published models of any layout that is read as ones of today's."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmjax import components
from mmjax.data.published import locate
from mmjax.errors import ConfigError
from mmjax.interop import files
from mmjax.interop.families import FAMILIES
from mmjax.interop.preprocess import Preprocess
from mmjax.interop.pretrained import (
    Variables,
    describe_model,
    first_of,
    normalise_section,
    read_weights,
    save_pretrained,
)
from mmjax.interop.processors import processor_files
from mmjax.layers.stacking import unstack_blocks
from mmjax.model import assemble
from mmjax.parallel.placement import named_leaves

# Families call their streams after these; a waveform is audio to them.
_STREAMS = {"image": "image", "text": "text", "audio": "audio", "waveform": "audio", "video": "video"}


class Converted(NamedTuple):
    """What was written.

    Attributes:
      architecture: the class of transformers that loads it.
      parameters: how many numbers its tensors hold.
      files: what lies in the directory now.
      left_out: what of the source has no place in it, each in a few words.
    """

    architecture: str
    parameters: int
    files: list[str]
    left_out: list[str]


class _Source(NamedTuple):
    """A model with all that belongs to it."""

    section: dict[str, Any]
    kinds: Mapping[str, str]
    variables: Variables
    preprocess: Preprocess
    left_out: list[str]


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    stream: str | None = None,
    step: int | None = None,
) -> Converted:
    """Writes a directory that transformers loads.

    Args:
      source: the directory of a run; or a published checkpoint, see `mmjax.data.published.locate`.
      target: a new or empty directory.
      stream: write the encoder of this stream alone, with its preprocessing; None is the whole model.
      step: of a run, which checkpoint; None takes the best where the run chose one, else the newest.

    Raises:
      ConfigError: there is no such stream, or no family can express the model; says why.
      DataError: the source cannot be read, or `target` holds something already.
    """
    target = pathlib.Path(target)
    files.check_new(target)
    directory = pathlib.Path(source).expanduser()
    if (directory / "spec.json").is_file():
        found = _read_run(directory, step)
    elif step is not None:
        raise ConfigError(f"--step={step}: is for runs, but {source} is no run's directory; leave it out")
    else:
        found = _read_published(source)
    if stream is not None:
        found = _one_stream(found, stream)
    model = assemble(found.section)
    try:
        save_pretrained(model, found.variables, target, preprocess=found.preprocess)
    except ConfigError as error:
        if stream is None and found.preprocess.family is None:
            names = ", ".join(found.kinds)
            raise ConfigError(
                f"{error}; or write one encoder alone, with --stream= one of: {names}"
            ) from None
        raise
    config = files.read_json(target, "config.json")
    parameters = sum(array.size for array in files.Tensors(target).values())
    written = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    return Converted(config["architectures"][0], parameters, written, found.left_out)


def _read_published(source) -> _Source:
    directory = locate(source)
    weights = read_weights(directory)
    kinds = {name: section["kind"] for name, section in weights.section["streams"].items()}
    family = FAMILIES[weights.family]
    preprocess = Preprocess.read(directory, weights.family, family)
    left_out = _named(weights.unused)
    if family.written_as:  # whose loader knows no other files than these
        made, lacking = _processors(preprocess.transforms, {"default": preprocess.tokenizer}, ["image"])
        preprocess.files |= made
        left_out += lacking
    return _Source(weights.section, kinds, weights.variables, preprocess, left_out)


def _read_run(directory, step) -> _Source:
    from mmjax.inference.run import load  # imported late: it needs Orbax, which published models do not

    run = load(directory, step)
    section = describe_model(run.model)
    variables = unstack_blocks(run.variables)
    chains = {name: run.config["data"]["streams"][name]["eval"] for name in run.kinds}
    written, left_out = _processors(chains, run.tokenizers, chains)
    return _Source(section, run.kinds, variables, Preprocess(chains, None, written), left_out)


def _processors(chains, tokenizers, streams):
    """(files of processors for some streams, what of their transforms is not in them).

    Transformers has one image processor and one tokenizer per model: those of the first stream count.
    """
    written, left_out = {}, []
    for name in streams:
        chain = [
            components.normalise(t, components.component("transforms"), f"transforms.{name}")
            for t in chains[name]
        ]
        made, lacking = processor_files(chain, tokenizers)
        written = {**made, **written}
        left_out += [f"{what}, of the preprocessing of '{name}'" for what in lacking]
    return written, left_out


def _one_stream(found: _Source, stream: str) -> _Source:
    """The encoder of one stream, which families call by its kind, without anything else."""
    streams = found.section["streams"]
    if stream not in streams:
        near = components.suggestion(stream, streams)
        raise ConfigError(f"--stream={stream}: no such stream{near}; the model has: {', '.join(streams)}")
    owner, kind = streams[stream]["share"] or stream, found.kinds[stream]
    name = _STREAMS[kind]
    part = {"kind": kind, "encoder": streams[owner]["encoder"]}
    section = normalise_section({"streams": {name: part}, "heads": {}})
    theirs = f"{owner}_encoder"
    kept = {
        collection: {f"{name}_encoder": tree[theirs]}
        for collection, tree in found.variables.items()
        if theirs in tree
    }
    others = {path.split("/")[1] for path, _ in named_leaves(found.variables)} - {theirs}
    given = found.preprocess
    written = {file: text for file, text in given.files.items() if ("processor" in file) == (kind != "text")}
    preprocess = Preprocess({name: given.transforms[stream]}, None, written, family=given.family)
    left_out = [*sorted(others), *found.left_out]
    return _Source(section, {name: kind}, {"params": {}, **kept}, preprocess, left_out)


def _named(tensors) -> list[str]:
    if not tensors:
        return []
    return [f"{len(tensors)} tensors ({first_of(tensors, 3)})"]
