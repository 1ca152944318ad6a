"""Every family against transformers: the same outputs in, and the same outputs back out."""

import json

import numpy as np
import pytest
import reference
import safetensors.numpy
from reference_cases import CASES

from mmjax import interop
from mmjax.interop import files
from mmjax.interop.families import FAMILIES


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_theirs_and_weights_go_back(name, hf, tmp_path):
    case = CASES[name](hf)
    model, variables, preprocess = reference.imported(case, tmp_path / "in")
    expected = reference.theirs(case)
    got = reference.ours(case, model, variables)
    assert expected
    for output in expected:
        assert reference.largest_difference(got, expected, output) <= case.atol, output

    interop.save_pretrained(model, variables, tmp_path / "out", preprocess=preprocess)
    kind = getattr(hf, json.loads((tmp_path / "out" / "config.json").read_text())["architectures"][0])
    back, info = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    if kind is type(case.model):
        again = reference.theirs(case, back.eval())
        for output in expected:
            if output.endswith("/tokens"):
                mask = got[output.replace("/tokens", "/mask")]
                again[output], expected[output] = again[output][mask], expected[output][mask]
            np.testing.assert_allclose(again[output], expected[output], atol=1e-6)
    # What was written is read again as the same numbers.
    _, reread, _ = interop.from_pretrained(tmp_path / "out")
    reference.jax.tree.map(np.testing.assert_array_equal, reread, variables)


def test_every_family_has_a_case(hf, tmp_path):
    families = set()
    for name, make in CASES.items():
        directory = reference.save(make(hf), tmp_path / name)
        kind = files.read_config(directory)["model_type"]
        families |= {family for family, value in FAMILIES.items() if kind in value.model_types}
    assert families == set(FAMILIES)


def test_sharded_files_and_half_precision(hf, tmp_path):
    case = CASES["bert"](hf)
    reference.save(case, tmp_path / "one")
    case.model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = (interop.from_pretrained(tmp_path / name).variables for name in ("one", "many"))
    reference.jax.tree.map(np.testing.assert_array_equal, one, many)
    case.model.bfloat16().save_pretrained(tmp_path / "half")
    half = interop.from_pretrained(tmp_path / "half").variables
    reference.jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-7), half, one)


def weight_norm_of_old(key):
    for i, letter in enumerate("gv"):
        key = key.replace(f"parametrizations.weight.original{i}", f"weight_{letter}")
    return key


@pytest.mark.parametrize(
    ("case", "rename"),
    [
        ("bert", lambda key: "bert." + key.replace("LayerNorm.weight", "LayerNorm.gamma")),
        ("clip_vision", lambda key: "vision_model." + key.removeprefix("vision_model.")),
        ("clip_vision", lambda key: key.removeprefix("vision_model.")),
        ("siglip_text", lambda key: key.removeprefix("text_model.")),
        ("wav2vec2", lambda key: "wav2vec2." + weight_norm_of_old(key)),
        ("resnet", lambda key: f"resnet.{key}"),
    ],
)
def test_older_names_are_read(case, rename, hf, tmp_path):
    case = CASES[case](hf)
    expected = reference.imported(case, tmp_path).variables
    path = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file({rename(key): value for key, value in tensors.items()}, path)
    got = interop.from_pretrained(tmp_path).variables
    reference.jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_scanned_layers_compute_the_same(hf, tmp_path):
    case = CASES["clip"](hf)
    model, variables, _ = reference.imported(case, tmp_path)
    scanned, stacked, _ = interop.from_pretrained(tmp_path, scan=True)
    assert "blocks" in stacked["params"]["text_encoder"]
    expected, got = reference.ours(case, model, variables), reference.ours(case, scanned, stacked)
    for name in ("image_embedding", "text_embedding"):
        np.testing.assert_allclose(got[name], expected[name], atol=1e-6)
    interop.save_pretrained(scanned, stacked, tmp_path / "out", family="clip")
    _, again, _ = interop.from_pretrained(tmp_path / "out")
    reference.jax.tree.map(np.testing.assert_array_equal, again, variables)
