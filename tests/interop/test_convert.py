"""`convert`: runs and published weights, written as transformers loads them."""

import json

import jax
import numpy as np
import pytest
import reference
import tiny
from PIL import Image
from reference_cases import CASES

import mmjax
from mmjax import interop
from mmjax.__main__ import dispatch
from mmjax.errors import ConfigError, DataError
from mmjax.interop import files
from mmjax.interop.convert import convert
from mmjax.training import workdir as workdir_lib
from mmjax.training.checkpoints import Checkpoints
from mmjax.training.state import create_state

SMALL = {"variant": "custom", "width": 16, "depth": 1, "heads": 2}
BERT = {"type": "text_transformer", "norm_position": "post", "segments": 1, "max_length": 8, **SMALL}
BERT_POOLED = {**BERT, "pooling": "cls", "pooler": "tanh"}
CLIP_TEXT = {
    "type": "text_transformer",
    "causal": True,
    "pooling": "eos",
    "eos_id": 6,
    "max_length": 8,
    **SMALL,
}
CLIP_IMAGE = {
    "type": "vit",
    "patch_size": 4,
    "pre_norm": True,
    "patch_bias": False,
    "final_norm": "pooled",
    **SMALL,
}
CLIP = {
    name: {**part, "activation": "quick_gelu"} for name, part in (("text", CLIP_TEXT), ("image", CLIP_IMAGE))
}
IMAGE = [
    {"type": "decode_image"},
    {"type": "resize_short_side", "size": 8},
    {"type": "center_crop", "size": 8, "rounding": "down"},
    {"type": "normalise", "mean": [0.5], "std": [0.25]},
]
TEXT = [
    {"type": "clean_text"},
    {"type": "tokenize", "max_length": 8, "start": "cls", "end": "eos"},
    {"type": "pad", "length": 8},
]
TEXTS = ["a red square, number 7", "blue", "a [MASK] or two", ""]


def save_run(root, encoders, steps=(2,), classifier=True, **changes):
    """A run of images and texts, in `root`/run; its parameters are as they were initialised."""
    manifest = root / "images" / "rows.jsonl"
    if not manifest.is_file():
        tiny.write_data(root / "images")
    plain = tiny.without_fusion(tiny.plain_config(manifest, root / "data"))
    plain["data"]["streams"] = {
        "image": {"features": ["image"], "train": IMAGE, "eval": IMAGE},
        "text": {"features": ["text"], "train": TEXT, "eval": TEXT},
    }
    plain["optimizer"]["ema"] = 0.0
    if not classifier:
        for section, name in (("heads", "colour_logits"), ("objectives", "colour"), ("evals", "colour")):
            del plain.get(section, plain["model"].get(section))[name]
    for stream, encoder in encoders.items():
        plain["model"]["streams"][stream]["encoder"] = encoder
    config = tiny.resolved(plain, **changes)
    with tiny.on_devices(1):
        setup = tiny.make_setup(config)
        data = tiny.load_data(config, None)
    filled = tiny.fill_sizes(config, data)
    workdir_lib.write_inputs(root / "run", filled, data.facts(), setup.pipeline.spec(), data.tokenizers)
    checkpoints = Checkpoints(root / "run" / "checkpoints")
    for step in steps:
        state = create_state(setup.model, setup.batch, setup.tx, setup.abstract, seed=step)
        checkpoints.save(step, jax.device_put(state, jax.devices()[0]), {})
    checkpoints.close()
    return root / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    encoders = {"image": {"type": "vit", "patch_size": 4, **SMALL}, "text": BERT}
    return save_run(tmp_path_factory.mktemp("run"), encoders, steps=(2, 4))


def encoded(workdir, stream, step=None, **values):
    """name -> output of one encoder of a run, and the batch it had."""
    run = mmjax.load(workdir, step)
    chains = {stream: run.config["data"]["streams"][stream]["eval"]}
    batch = interop.Preprocess(chains, run.tokenizers["default"])(**values)
    return batch, run.model.apply(run.variables, batch, [stream], method="encode")


def test_the_text_encoder_of_a_run_and_its_tokenizer_in_transformers(run, hf, tmp_path, capsys):
    assert dispatch(["convert", f"--from={run}", f"--to={tmp_path / 'out'}", "--stream=text"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'out'}: BertModel, ")
    assert "written: config.json, model.safetensors, tokenizer.json, tokenizer_config.json\n" in said
    assert "left out: colour_logits_head; image_embedding_head; image_encoder; scale_head; " in said
    assert "; clean_text, of the preprocessing of 'text'\n" in said

    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "out")
    given = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    batch, outputs = encoded(run, "text", text=TEXTS)
    width = batch["text"].shape[1]
    np.testing.assert_array_equal(given["input_ids"][:, :width], batch["text"])
    np.testing.assert_array_equal(given["attention_mask"][:, :width].bool(), batch["text_mask"])
    model, info = hf.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    theirs = model.eval()(**{key: given[key] for key in ("input_ids", "attention_mask")})
    tokens = theirs.last_hidden_state[:, :width].detach().numpy()[batch["text_mask"]]
    np.testing.assert_allclose(np.asarray(outputs["text/tokens"])[batch["text_mask"]], tokens, atol=1e-5)

    again = interop.from_pretrained(tmp_path / "out")
    same = again.model.apply(again.variables, again.preprocess(text=TEXTS))
    np.testing.assert_allclose(same["text/pooled"], outputs["text/pooled"], atol=1e-6)


def test_the_image_encoder_of_a_run_and_its_processor_in_transformers(run, hf, tmp_path):
    done = convert(run, tmp_path / "out", stream="image")
    assert done.architecture == "ViTModel"
    assert done.files == ["config.json", "model.safetensors", "preprocessor_config.json"]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (13, 18, 3), np.uint8))
    batch, outputs = encoded(run, "image", image=[picture])
    pixels = hf.CLIPImageProcessorPil.from_pretrained(tmp_path / "out")(picture, return_tensors="pt")
    np.testing.assert_allclose(pixels["pixel_values"].permute(0, 2, 3, 1), batch["image"], atol=1e-5)
    theirs = hf.AutoModel.from_pretrained(tmp_path / "out").eval()(**pixels).last_hidden_state[:, 1:]
    np.testing.assert_allclose(theirs.detach().numpy(), outputs["image/tokens"], atol=1e-5)


def test_a_step_is_chosen(run, tmp_path):
    for step, chosen in ((2, 2), (4, 4), (None, 4)):
        convert(run, tmp_path / str(step), stream="text", step=step)
        batch, outputs = encoded(run, "text", chosen, text=TEXTS)
        again = interop.from_pretrained(tmp_path / str(step))
        got = again.model.apply(again.variables, batch)["text/pooled"]
        np.testing.assert_allclose(got, outputs["text/pooled"], atol=1e-6)


def test_a_whole_model_of_two_towers(hf, tmp_path):
    """Scanned layers too."""
    workdir = save_run(tmp_path, CLIP, classifier=False, scan=True)
    done = convert(workdir, tmp_path / "out")
    assert done.architecture == "CLIPModel" and "tokenizer.json" in done.files
    loaded = mmjax.load(workdir)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8))
    expected = loaded.embed(image=[picture], text=["a red square"])
    again = interop.from_pretrained(tmp_path / "out")
    batch = again.preprocess(image=[picture], text=["a red square"])
    got = again.model.apply(again.variables, batch)
    for name in ("image_embedding", "text_embedding"):
        np.testing.assert_allclose(got[name], expected[name], atol=1e-5)
    assert (
        hf.CLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)[1]["missing_keys"] == set()
    )


def published(hf, directory):
    """A BERT with a head for masked words, by names of old, and a tokenizer."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    model = hf.BertForPreTraining(hf.BertConfig(vocab_size=9, max_position_embeddings=12, **sizes))
    model.save_pretrained(directory)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "red", "##s"]
    hf.BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}).save_pretrained(directory)
    return model


def test_published_weights_are_written_anew(hf, tmp_path):
    model = published(hf, tmp_path / "in").eval()
    done = convert(tmp_path / "in", tmp_path / "out")
    assert done.architecture == "BertModel"
    assert [text.split(" (")[0] for text in done.left_out] == ["7 tensors"]
    assert "cls.predictions.bias" in done.left_out[0]
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "out")
    given = tokenizer(["a cat", "red cats a"], padding=True, return_tensors="pt")
    back = hf.AutoModel.from_pretrained(tmp_path / "out").eval()
    expected = model.bert(**given)
    np.testing.assert_array_equal(
        back(**given).pooler_output.detach().numpy(), expected.pooler_output.detach().numpy()
    )


def test_one_tower_of_published_weights(hf, tmp_path):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = hf.SiglipConfig(
        text_config={"vocab_size": 9, "max_position_embeddings": 6, **small},
        vision_config={"image_size": 8, "patch_size": 4, **small},
    )
    model = hf.SiglipModel(config).eval()
    model.save_pretrained(tmp_path / "in")
    hf.SiglipImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "in")
    done = convert(tmp_path / "in", tmp_path / "out", stream="image")
    assert done.architecture == "SiglipVisionModel" and "preprocessor_config.json" in done.files
    assert done.left_out[-1] == "text_encoder"
    back = hf.AutoModel.from_pretrained(tmp_path / "out").eval()
    batch = interop.from_pretrained(tmp_path / "out").preprocess(image=[np.zeros((5, 9, 3), np.uint8)])
    pixels = hf.SiglipImageProcessorPil.from_pretrained(tmp_path / "out")(
        np.zeros((5, 9, 3), np.uint8), return_tensors="pt"
    )["pixel_values"]
    np.testing.assert_allclose(pixels.permute(0, 2, 3, 1), batch["image"], atol=1e-5)
    expected = model.vision_model(pixels).pooler_output.detach().numpy()
    np.testing.assert_array_equal(back(pixels).pooler_output.detach().numpy(), expected)


def test_an_image_size_that_patches_do_not_fill_is_kept(hf, tmp_path):
    reference.save(CASES["siglip_vision_pixels_left_over"](hf), tmp_path / "in")
    hf.SiglipImageProcessorPil(size={"height": 38, "width": 38}).save_pretrained(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out")
    assert files.read_config(tmp_path / "out")["image_size"] == 38
    first, again = (interop.from_pretrained(tmp_path / name) for name in ("in", "out"))
    pictures = [np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)]
    outputs = [m.apply(v, p(image=pictures))["image/pooled"] for m, v, p in (first, again)]
    np.testing.assert_array_equal(*outputs)


def test_what_cannot_be_converted_is_said_before_anything_is_written(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(DataError, match="full exists and is not empty; name a new directory"):
        convert(run, tmp_path / "full", stream="text")
    with pytest.raises(
        ConfigError,
        match=r"--stream=imge: no such stream \(did you mean 'image'\?\); the model has: image, text",
    ):
        convert(run, tmp_path / "out", stream="imge")
    with pytest.raises(DataError, match="weights: no directory .*nowhere"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--step=3: is for runs, but .*full is no run's directory"):
        convert(tmp_path / "full", tmp_path / "out", step=3)
    with pytest.raises(DataError, match="3"):
        convert(run, tmp_path / "out", stream="text", step=3)
    with pytest.raises(ConfigError, match="--config.seed: convert uses the run's own config"):
        dispatch(["convert", f"--from={run}", "--to=x", "--config.seed=1"])
    assert not (tmp_path / "out").exists()


def test_a_model_that_no_family_has(tmp_path):
    workdir = save_run(tmp_path, CLIP)  # and a classifier
    with pytest.raises(
        ConfigError, match="no family of transformers has this model .* --stream= one of: image"
    ):
        convert(workdir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_no_family_has(tmp_path):
    workdir = save_run(tmp_path, {"text": BERT_POOLED})
    with pytest.raises(ConfigError, match="no family of transformers has this model"):
        convert(workdir, tmp_path / "out", stream="image")
    assert convert(workdir, tmp_path / "bert", stream="text").architecture == "BertModel"


def test_preprocessing_that_has_no_place_in_theirs_is_named(tmp_path):
    workdir = save_run(tmp_path, {"image": {"type": "vit", "patch_size": 4, **SMALL}, "text": BERT})
    config = json.loads((workdir / "config.json").read_text())
    chain = config["data"]["streams"]["image"]["eval"]
    chain[2]["rounding"] = "even"
    chain.insert(3, {"type": "occlude", "fraction": 0.1, "value": 0})
    (workdir / "config.json").write_text(json.dumps(config))
    done = convert(workdir, tmp_path / "out", stream="image")
    assert "center_crop.rounding 'even' (theirs is 'down'), of the preprocessing of 'image'" in done.left_out
    assert "occlude, of the preprocessing of 'image'" in done.left_out


def test_open_clip_becomes_a_clip_of_transformers(hf, tmp_path):
    case = CASES["open_clip_quick_gelu"](hf)
    reference.save(case, tmp_path / "in")
    done = convert(tmp_path / "in", tmp_path / "out")
    assert done.architecture == "CLIPModel"
    assert done.files == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert done.left_out == [
        "center_crop.rounding 'even' (theirs is 'down'), of the preprocessing of 'image'"
    ]
    back, info = hf.CLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    expected, got = reference.theirs(case), reference.theirs(case, back.eval())
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], atol=1e-6)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    pixels = hf.CLIPImageProcessorPil.from_pretrained(tmp_path / "out")(picture, return_tensors="np")
    ours = interop.from_pretrained(tmp_path / "in").preprocess(image=[picture])["image"]
    np.testing.assert_allclose(pixels["pixel_values"].transpose(0, 2, 3, 1), ours, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vision_cfg": {"timm_model_name": "vit_b"}},
            "vision_cfg.timm_model_name is 'vit_b', which is not impl",
        ),
        (
            {"text_cfg": {"hf_model_name": "bert"}},
            "text_cfg.hf_model_name is 'bert', which is not implemented",
        ),
        ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, "vision_cfg.layers is a list, of a ResNet"),
        ({"vision_cfg": {"no_ln_pre": True}}, "vision_cfg.no_ln_pre is True, .* expected False"),
        (
            {"vision_cfg": {"pool_type": "avg"}},
            "pool_type is 'avg', which is not implemented; expected 'tok'",
        ),
        ({"text_cfg": {"pool_type": "last"}}, "pool_type is 'last', .* expected 'argmax', 'eos'"),
        ({"text_cfg": {"hf_tokenizer_name": "bert"}}, "hf_tokenizer_name is 'bert' with pool_type 'argmax'"),
        (
            {"multimodal_cfg": {"width": 8}},
            "model_cfg.multimodal_cfg is {'width': 8}, which is not implemented",
        ),
        ({"init_logit_bias": -10.0}, "model_cfg.init_logit_bias is -10.0, which is not implemented"),
    ],
)
def test_other_towers_of_open_clip_are_named(changes, message, hf, tmp_path):
    reference.save(CASES["open_clip"](hf), tmp_path / "in")
    path = tmp_path / "in" / "open_clip_config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        old = config["model_cfg"].get(key)
        config["model_cfg"][key] = {**old, **value} if isinstance(old, dict) else value
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        convert(tmp_path / "in", tmp_path / "out")


def test_weights_of_transformers_beside_those_of_open_clip_count(hf, tmp_path):
    reference.save(CASES["open_clip"](hf), tmp_path)
    config = files.read_config(tmp_path)
    assert config["model_type"] == "open_clip"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert files.read_config(tmp_path)["model_type"] == "open_clip"
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert files.read_config(tmp_path)["model_type"] == "clip"
