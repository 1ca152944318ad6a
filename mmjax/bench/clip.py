"""CLIP ViT-B/32 with its real train step, beside the same model in PyTorch."""

from __future__ import annotations

import functools
import gc
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from mmjax import config as config_lib
from mmjax import interop
from mmjax.bench import torch_clip
from mmjax.bench.timing import Settings, markdown, ratio_text, summary, take_turns
from mmjax.errors import MmjaxError
from mmjax.model import assemble
from mmjax.parallel.mesh import batch_sharding
from mmjax.planning import stand_in
from mmjax.planning.compilation import make_setup
from mmjax.training.model_flops import count, model_flops
from mmjax.training.setup import Setup
from mmjax.training.speed import peak_flops
from mmjax.training.state import create_state, replace_params, shardings_of
from mmjax.training.step import make_eval_step

OURS = "mmjax"
BATCH, TOKENS, VOCABULARY, END_OF_TEXT = 16, 77, 49408, 49407
DTYPES = ("float32", "bfloat16")
SIZES: dict[str, str] = {}  # changes of the model's config, to try the benchmark with a small one
# Embeddings have length one; two float32 implementations of twelve layers differ by less than this.
_TOLERANCE = 1e-4
_CONFIG = str(pathlib.Path(__file__).parents[2] / "configs" / "clip.py") + ":img=B/32,data=pairs.jsonl"


def measure(settings: Settings) -> dict[str, Any]:
    """Seconds of a train step and of encoding a batch, by type and implementation.

    All have the same weights, whose embeddings are compared first; the same batch; AdamW with the same
    settings. PyTorch runs eagerly, with its fused AdamW, scaled dot-product attention, and autocast for
    bfloat16. Our step is that of `train`: it also checks for non-finite numbers and counts metrics.

    Raises:
      MmjaxError: PyTorch or transformers is not installed, or outputs differ.
    """
    batch = settings.batch or BATCH
    inputs = example(batch)
    with tempfile.TemporaryDirectory() as folder:
        theirs, variables = _load(pathlib.Path(folder), batch)
    result: dict[str, Any] = {"batch": batch, "implementations": {t.name: t.version for t in theirs}}
    result["largest_difference"] = _compare(batch, variables, theirs, inputs)
    for dtype in DTYPES:
        logging.info("CLIP ViT-B/32 in %s, batch %d", dtype, batch)
        result[dtype] = _measure(_setup(batch, dtype), variables, theirs, inputs, settings.rounds)
    return result


def table(result: Mapping[str, Any]) -> str:
    """What `measure` found, in words and a table."""
    theirs = [name for name in result["implementations"] if name != OURS]
    head = ["", "ms", *(f"time relative to {name}" for name in theirs), "roofline, ms", "of the roofline"]
    rows = []
    for dtype in DTYPES:
        for what, found in result[dtype].items():
            times = found["implementations"]
            row = [f"{what}, {dtype}", f"{1000 * times[OURS]['seconds']:.0f}"]
            row += [ratio_text(times[name]) for name in theirs]
            roofline = found["roofline_seconds"]
            rows.append([*row, f"{1000 * roofline:.0f}", f"{roofline / times[OURS]['seconds']:.0%}"])
    versions = ", ".join(f"{name} {version}" for name, version in result["implementations"].items())
    return (
        f"CLIP ViT-B/32, batch {result['batch']}, texts of {TOKENS} tokens, with {versions}. "
        f"Embeddings differ by {result['largest_difference']:.1g} at most. Ratios below 1 say that mmjax is "
        "faster: the median over the rounds, and their range. The roofline is the model's FLOPs at the rate "
        f"of a product of matrices of that type.\n\n{markdown(head, rows)}"
    )


def example(batch: int) -> dict[str, np.ndarray]:
    """Pixels and token ids; every text ends with the end of text."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 40000, (batch, TOKENS), dtype=np.int32)
    tokens[:, -1] = END_OF_TEXT
    return {"image": rng.normal(size=(batch, 224, 224, 3)).astype(np.float32), "text": tokens}


def _setup(batch: int, dtype: str) -> Setup:
    overrides = {"batch_size": str(batch), "dtype": dtype, "remat": "false"}
    overrides |= {"model.streams.text.encoder.vocab_size": str(VOCABULARY), **SIZES}
    config = config_lib.resolve(_CONFIG, overrides)
    return make_setup(config, stand_in.load(config), jax.devices()[:1])


def _load(folder: pathlib.Path, batch: int) -> tuple[list[torch_clip.Theirs], Any]:
    """The models of PyTorch, and their weights as ours."""
    theirs = []
    if torch_clip.has_open_clip():
        theirs.append(torch_clip.OpenClip(folder / "open_clip"))
        variables = interop.from_pretrained(str(folder / "open_clip")).variables
    else:
        setup = _setup(batch, "float32")
        state = create_state(setup.model, setup.batch, setup.tx, setup.abstract, seed=0)
        variables = {"params": jax.tree.map(np.asarray, state.params)}
    interop.save_pretrained(_setup(batch, "float32").model, variables, folder / "clip", family="clip")
    theirs.append(torch_clip.Transformers(folder / "clip"))
    return theirs, variables


def _compare(batch, variables, theirs, inputs) -> float:
    """The largest difference between embeddings of ours and theirs."""
    setup = _setup(batch, "float32")
    encode = {name: _encoder(setup, variables["params"], inputs, f"{name}_embedding") for name in inputs}
    largest = 0.0
    for other in theirs:
        for name, call in encode.items():
            difference = np.abs(np.asarray(call()) - other.embed(name, inputs[name])).max()
            if not difference < _TOLERANCE:
                raise MmjaxError(
                    f"{other.name}: its {name} embeddings differ by {difference:.2g}, expected less than "
                    f"{_TOLERANCE:g}; a time of another model says nothing"
                )
            largest = max(largest, float(difference))
    return largest


def _batch(setup: Setup, inputs: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """All that the pipeline gives, around the inputs."""
    arrays = {name: np.ones(x.shape, x.dtype) for name, x in setup.batch.items()} | dict(inputs)
    return jax.device_put(arrays, batch_sharding(setup.mesh))


def _encoder(setup, params, inputs, output) -> Callable[[], jax.Array]:
    step = make_eval_step(setup.model, [output], mesh=setup.mesh, shardings=shardings_of(setup.abstract))
    placed = jax.device_put(params, shardings_of(setup.abstract).params)
    batch = _batch(setup, inputs)
    return lambda: jax.block_until_ready(step(placed, {}, batch))[output]


def _trainer(setup: Setup, variables, inputs) -> Callable[[], Any]:
    step, batch = setup.compile_train_step(), _batch(setup, inputs)
    state = create_state(setup.model, setup.batch, setup.tx, setup.abstract, seed=0)
    state = replace_params(state, jax.device_put(variables["params"], shardings_of(setup.abstract).params))

    def train() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    return train


def _measure(setup, variables, theirs, inputs, rounds) -> dict[str, Any]:
    peak = peak_flops(jax.devices()[:1], setup.config.dtype)
    dtype = setup.config.dtype
    result = {}
    for name in inputs:
        calls = {OURS: _encoder(setup, variables["params"], inputs, f"{name}_embedding")}
        calls |= {t.name: functools.partial(t.encode, name, inputs[name], dtype) for t in theirs}
        result[f"encode {name}"] = _timed(calls, rounds, _encoder_flops(setup, name) / peak)
    calls = {OURS: _trainer(setup, variables, inputs)}
    calls |= {t.name: t.trainer(inputs, dtype) for t in theirs}
    result["train step"] = _timed(calls, rounds, model_flops(setup) / peak)
    del calls
    gc.collect()
    return result


def _timed(calls, rounds, roofline) -> dict[str, Any]:
    times = summary(take_turns(calls, rounds), OURS)
    return {"roofline_seconds": roofline, "implementations": times}


def _encoder_flops(setup: Setup, stream: str) -> int:
    """Forward FLOPs of one encoder with its projection."""
    section, output = config_lib.to_dict(setup.config)["model"], f"{stream}_embedding"
    alone = {"streams": {stream: section["streams"][stream]}, "fusion": None}
    model = assemble({**alone, "heads": {output: section["heads"][output]}})

    def run(params, batch):
        return model.apply({"params": params}, batch, train=False)[output]

    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (setup.abstract.params, setup.batch)
    )
    return count(jax.make_jaxpr(run)(*shapes).jaxpr)
