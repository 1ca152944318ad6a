"""The parts shown in the README work as written."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import outside
import pytest

from mmjax import components
from mmjax.data import published
from mmjax.errors import DataError
from mmjax.types import Features

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture
def snippet(tmp_path):
    """name -> the class of that name in the README's code."""

    def load(name: str) -> type:
        blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
        block = next(block for block in blocks if f"class {name}(" in block)
        assert len([line for line in block.splitlines() if line.strip()]) < 20
        file = tmp_path / f"readme_{name}.py"
        file.write_text(block)
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)

    return load


def test_the_encoder(snippet):
    encoder = snippet("PatchMean")(width=8)
    images = jax.random.normal(jax.random.key(0), (3, 16, 16, 3))
    features, _ = encoder.init_with_output(jax.random.key(1), images)
    assert features.tokens.shape == (3, 4, 8) and features.pooled.shape == (3, 8)
    assert set(components.fields(type(encoder))) == {"width", "patch_size"}


def test_the_fusion_masks_a_missing_stream(snippet):
    fusion = snippet("Maximum")(width=8)
    keys = jax.random.split(jax.random.key(0), 2)
    streams = {
        name: Features(
            tokens=jax.random.normal(key, (2, 3, 4)), mask=jnp.ones((2, 3), bool), pooled=jnp.ones((2, 4))
        )
        for name, key in zip(("image", "text"), keys, strict=True)
    }
    absent = streams["text"].replace(mask=jnp.array([[True] * 3, [False] * 3]))
    variables = fusion.init(jax.random.key(1), streams)
    fused = fusion.apply(variables, {**streams, "text": absent})
    other = fusion.apply(variables, {**streams, "text": absent.replace(tokens=absent.tokens.at[1].set(1e3))})
    assert fused.pooled.shape == (2, 8) and bool(jnp.isfinite(fused.pooled).all())
    assert jnp.array_equal(fused.pooled, other.pooled)


def test_the_objective(snippet):
    objective = snippet("Agreement")(a="x", b="y", streams=["image", "text"])
    outputs = {"x": jnp.eye(3), "y": jnp.eye(3).at[2].set(jnp.array([1.0, 0, 0]))}
    there = jnp.array([True, False, True])
    batch = {"example_mask": jnp.ones(3, bool), "image_present": there, "text_present": jnp.ones(3, bool)}
    loss, _ = objective(outputs, batch)
    assert float(loss) == pytest.approx(0.5)


def test_the_published_weights(tmp_path, monkeypatch):
    text = README.read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "from_pretrained" in b]
    monkeypatch.chdir(tmp_path)
    try:
        published.locate("package:all-MiniLM-L6-v2")
    except DataError as error:
        outside.missing(str(error))
    file = tmp_path / "readme_weights.py"
    file.write_text(block)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.outputs["text_embedding"].shape == (2, 384)
    assert (tmp_path / "my_minilm" / "model.safetensors").is_file()


def test_every_file_and_config_it_names_is_there():
    text = README.read_text(encoding="utf-8")
    for path in set(re.findall(r"(?:configs|mmjax|docs)/[\w/]+\.(?:py|md|png)", text)):
        if path not in (
            "mmjax/encoders/patch_mean.py",
            "mmjax/fusion/maximum.py",
            "mmjax/objectives/agreement.py",
        ):
            assert (README.parent / path).exists(), path
