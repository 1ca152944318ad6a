"""Images and texts become the batch that transformers makes of them, whatever their processor's settings."""

import json
import pickle

import numpy as np
import pytest
import tokenizers
from PIL import Image
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from mmjax import interop
from mmjax.data.tokenizers import Tokenizer
from mmjax.errors import ConfigError, DataError
from mmjax.interop.families import FAMILIES

# Their image processors that resize with Pillow. Those that use torchvision round within the filter
# elsewhere: there, resized pixels are within 1/255 of these.
IMAGE_PROCESSORS = {
    "clip": ("CLIPImageProcessorPil", "CLIPConfig"),
    "siglip": ("SiglipImageProcessorPil", "SiglipConfig"),
    "vit": ("ViTImageProcessorPil", "ViTConfig"),
    "vit_mae": ("ViTImageProcessorPil", "ViTMAEConfig"),
    "dinov2": ("BitImageProcessorPil", "Dinov2Config"),
}
SMALL = {"height": 20, "width": 12}
SETTINGS = {
    "square": {"size": {"height": 24, "width": 24}, "do_center_crop": False},
    "upright": {"size": SMALL, "resample": 0, "do_center_crop": False},
    "short_side": {"size": {"shortest_edge": 24}, "do_center_crop": True, "crop_size": SMALL, "resample": 1},
    "odd_crop": {
        "size": {"shortest_edge": 25},
        "do_center_crop": True,
        "crop_size": {"height": 18, "width": 18},
    },
    "border": {
        "size": {"shortest_edge": 16},
        "do_center_crop": True,
        "crop_size": {"height": 21, "width": 18},
    },
    "box": {"size": SMALL, "resample": 4, "do_center_crop": False},
    "hamming": {"size": SMALL, "resample": 5, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    "not_normalised": {"size": SMALL, "do_normalize": False, "do_center_crop": False},
    "not_rescaled": {"size": SMALL, "do_rescale": False, "image_mean": [9.0] * 3, "image_std": [80.0] * 3},
    "neither": {"size": SMALL, "do_rescale": False, "do_normalize": False},
    "other_factor": {"size": SMALL, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3},
}
SIZES = [(24, 24), (31, 50), (50, 31), (17, 19), (12, 97), (97, 12), (100, 63), (5, 8), (64, 64), (23, 24)]


def picture(height, width, mode="RGB", seed=0):
    """An image with smooth parts and sharp edges."""
    rng = np.random.default_rng([seed, height, width])
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    rows, columns = np.mgrid[:height, :width]
    smooth = 128 + 100 * np.sin(rows / 5 + np.arange(channels)[:, None, None]) * np.cos(columns / 7)
    noise = rng.integers(0, 256, (channels, height, width))
    values = np.where((rows // 9 + columns // 11) % 2, smooth, noise).astype(np.uint8)
    return Image.fromarray(np.moveaxis(values, 0, -1) if channels > 1 else values[0])


def image_preprocess(hf, directory, family, processor):
    """Ours, from a directory with their configuration and processor."""
    getattr(hf, IMAGE_PROCESSORS[family][1])().save_pretrained(directory)
    processor.save_pretrained(directory)
    return interop.Preprocess.read(directory, family, FAMILIES[family])


def assert_equal_pixels(preprocess, processor, images, atol=1e-5):
    for image in images:
        expected = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        got = preprocess(image=[image])["image"][0]
        assert got.shape == expected.shape and got.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=atol * max(1, np.abs(expected).max() / 10))


@pytest.mark.parametrize("family", IMAGE_PROCESSORS)
def test_images_by_default_are_theirs(family, hf, tmp_path):
    processor = getattr(hf, IMAGE_PROCESSORS[family][0])()
    preprocess = image_preprocess(hf, tmp_path, family, processor)
    images = [picture(*size) for size in [(240, 320), (333, 250), (300, 225), (224, 224)]]
    assert_equal_pixels(preprocess, processor, images)
    batch = preprocess(image=images)
    assert batch["image"].shape == (4, 224, 224, 3) and batch["image_present"].all()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("family", ["clip", "vit", "dinov2"])
def test_images_with_other_settings_are_theirs(family, settings, hf, tmp_path):
    processor = getattr(hf, IMAGE_PROCESSORS[family][0])(**SETTINGS[settings])
    preprocess = image_preprocess(hf, tmp_path, family, processor)
    assert_equal_pixels(preprocess, processor, [picture(*size) for size in SIZES])


@pytest.mark.parametrize("mode", ["L", "RGBA"])
@pytest.mark.parametrize("family", ["clip", "siglip", "dinov2"])
def test_grey_and_transparent_images_are_theirs(family, mode, hf, tmp_path):
    processor = getattr(hf, IMAGE_PROCESSORS[family][0])()
    preprocess = image_preprocess(hf, tmp_path, family, processor)
    images = [picture(*size, mode) for size in [(31, 50), (50, 31), (240, 300)]]
    images[0].save(tmp_path / "file.png")
    assert_equal_pixels(preprocess, processor, images)
    from_file = preprocess(image=[tmp_path / "file.png", (tmp_path / "file.png").read_bytes()])["image"]
    np.testing.assert_array_equal(from_file, preprocess(image=[images[0]] * 2)["image"])


@pytest.mark.parametrize("family", IMAGE_PROCESSORS)
@pytest.mark.parametrize("settings", [{"size": 30}, {"size": 30, "crop_size": 24}, {"do_resize": True}])
def test_files_of_old_mean_what_their_class_says(family, settings, hf, tmp_path):
    """Numbers for sizes, and keys that are missing."""
    name = IMAGE_PROCESSORS[family][0].removesuffix("Pil")
    getattr(hf, IMAGE_PROCESSORS[family][1])().save_pretrained(tmp_path)
    content = {"image_processor_type": name, **settings}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    processor = getattr(hf, IMAGE_PROCESSORS[family][0]).from_pretrained(tmp_path)
    preprocess = interop.Preprocess.read(tmp_path, family, FAMILIES[family])
    assert_equal_pixels(preprocess, processor, [picture(40, 60), picture(60, 40)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": {"longest_edge": 9}}, "image size {'longest_edge': 9} is not implemented"),
        ({"resample": 9}, "resample is 9, expected one of"),
        ({"do_pad": True}, "do_pad is True, expected False"),
    ],
)
def test_settings_that_are_not_implemented_are_named(settings, message, hf, tmp_path):
    hf.ViTConfig().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=message):
        interop.Preprocess.read(tmp_path, "vit", FAMILIES["vit"])


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_num_patches": 30, "patch_size": 4}, {"max_num_patches": 64, "patch_size": 14, "resample": 3}],
)
def test_patches_of_any_proportions_are_theirs(settings, hf, tmp_path):
    processor = hf.Siglip2ImageProcessorPil(**settings)
    hf.Siglip2Config().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    preprocess = interop.Preprocess.read(tmp_path, "siglip2", FAMILIES["siglip2"])
    images = [picture(*size) for size in [*SIZES, (240, 320), (333, 90), (1, 1), (3, 400), (256, 256)]]
    images += [picture(50, 31, "L").convert("RGB"), picture(64, 80, "RGBA").convert("RGB")]
    expected = processor(images, return_tensors="np")
    got = preprocess(image=images)
    np.testing.assert_array_equal(got["image_grid"], expected["spatial_shapes"])
    np.testing.assert_array_equal(got["image_mask"], expected["pixel_attention_mask"].astype(bool))
    np.testing.assert_allclose(got["image"], expected["pixel_values"], atol=1e-5)


SENTENCES = [
    "A photo of a cat sitting on the red mat.",
    "The dog chased the ball across the green park!",
    "Naïve café owners can't find the façade, they've said.",
    "1234 birds flew over 56 houses at 7 o'clock",
    "日本語のテキスト and some English — with dashes",
    "emoji 🙂🚀 in the middle of the sentence",
]
TEXTS = [
    *SENTENCES,
    "",
    " ",
    "   spaces   everywhere\tand\nnewlines  ",
    "ÅNGSTRÖM vs ångström vs a\u030angstro\u0308m",
    "zzz ω ψ ∑ \u200b zero width and 한국어 العربية",
    "[MASK] <mask> [SEP] </s> <|endoftext|> special tokens in a text",
    "a long text " * 40,
    "I'll we've don't it's THEY'RE",
]


def bert_tokenizer(hf, **settings):
    vocabulary = _trained(
        tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]")),
        trainers.WordPieceTrainer(
            vocab_size=260, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
        ),
        normalizers.BertNormalizer(lowercase=settings.get("do_lower_case", True)),
        pre_tokenizers.BertPreTokenizer(),
    ).get_vocab()
    return hf.BertTokenizer(vocab=vocabulary, **settings)


def roberta_tokenizer(hf, **settings):
    trained = _trained(
        tokenizers.Tokenizer(models.BPE()),
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
        None,
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    return hf.RobertaTokenizer(**_vocabulary_and_merges(trained), **settings)


def clip_tokenizer(hf, **settings):
    trained = _trained(
        tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>")),
        trainers.BpeTrainer(
            vocab_size=700,
            end_of_word_suffix="</w>",
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
        normalizers.Lowercase(),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
    )
    parts = _vocabulary_and_merges(trained)
    for token in ("<|startoftext|>", "<|endoftext|>"):
        parts["vocab"].setdefault(token, len(parts["vocab"]))
    return hf.CLIPTokenizer(**parts, **settings)


def siglip_tokenizer(hf, **settings):
    trained = _trained(
        tokenizers.Tokenizer(models.Unigram()),
        trainers.UnigramTrainer(
            vocab_size=150, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
        normalizers.Sequence(
            [
                normalizers.NFKC(),
                normalizers.Lowercase(),
                normalizers.Replace(tokenizers.Regex(r"[!-/:-@\[-`{-~]"), ""),
                normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
                normalizers.Strip(),
            ]
        ),
        pre_tokenizers.Metaspace(),
    )
    trained.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokens = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>", "model_max_length": 64}
    return hf.PreTrainedTokenizerFast(tokenizer_object=trained, **(tokens | settings))


def siglip2_tokenizer(hf, **settings):
    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=450, special_tokens=special, show_progress=False)
    normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    splits = pre_tokenizers.Split("▁", behavior="merged_with_previous")
    parts = _vocabulary_and_merges(_trained(trained, trainer, normalizer, splits))
    tokens = {"padding_side": "right", "model_max_length": 64}
    return hf.Siglip2Tokenizer(**parts, **(tokens | settings))


def _trained(tokenizer, trainer, normalizer, pre_tokenizer):
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return tokenizer


def _vocabulary_and_merges(tokenizer):
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


TOKENIZERS = {
    "bert": (bert_tokenizer, "BertConfig", {}),
    "roberta": (roberta_tokenizer, "RobertaConfig", {}),
    "clip": (clip_tokenizer, "CLIPTextConfig", {}),
    "siglip": (siglip_tokenizer, "SiglipTextConfig", {"padding": "max_length"}),
    "siglip2": (siglip2_tokenizer, "Siglip2TextConfig", {"padding": "max_length"}),
}


def text_preprocess(hf, directory, family, tokenizer, **config):
    """Ours, from a directory with their configuration and tokenizer."""
    getattr(hf, TOKENIZERS[family][1])(**config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return interop.Preprocess.read(directory, family, FAMILIES[family])


def assert_equal_ids(preprocess, tokenizer, texts, **how):
    arguments = {"padding": True, "truncation": True, "return_tensors": "np", "return_attention_mask": True}
    expected = tokenizer(texts, **(arguments | how))
    got = preprocess(text=texts)
    np.testing.assert_array_equal(got["text"], expected["input_ids"])
    np.testing.assert_array_equal(got["text_mask"], expected["attention_mask"].astype(bool))


@pytest.mark.parametrize("max_length", [8, 32, 77])
@pytest.mark.parametrize("family", TOKENIZERS)
def test_texts_are_theirs(family, max_length, hf, tmp_path):
    make, _, how = TOKENIZERS[family]
    tokenizer = make(hf, model_max_length=max_length)
    positions = max_length + 2 * (family == "roberta")
    preprocess = text_preprocess(hf, tmp_path, family, tokenizer, max_position_embeddings=positions)
    assert_equal_ids(preprocess, tokenizer, TEXTS, **how)
    for text in TEXTS:
        assert_equal_ids(preprocess, tokenizer, [text], **how)


@pytest.mark.parametrize("family", TOKENIZERS)
def test_sides_of_padding_and_truncation_are_theirs(family, hf, tmp_path):
    make, _, how = TOKENIZERS[family]
    tokenizer = make(hf, model_max_length=9, padding_side="left", truncation_side="left")
    preprocess = text_preprocess(hf, tmp_path, family, tokenizer)
    assert_equal_ids(preprocess, tokenizer, TEXTS, **how)


def test_the_tokenizer_without_a_limit_is_cut_at_the_positions(hf, tmp_path):
    tokenizer = bert_tokenizer(hf)
    assert tokenizer.model_max_length > 10**9
    preprocess = text_preprocess(hf, tmp_path, "bert", tokenizer, max_position_embeddings=16)
    assert_equal_ids(preprocess, tokenizer, TEXTS, max_length=16)


def test_cases_and_accents_are_kept_where_theirs_are(hf, tmp_path):
    tokenizer = bert_tokenizer(hf, do_lower_case=False, strip_accents=False, model_max_length=40)
    assert_equal_ids(text_preprocess(hf, tmp_path, "bert", tokenizer), tokenizer, TEXTS)


def test_padding_is_the_token_that_their_settings_name(hf, tmp_path):
    """SigLIP attends to its padding, which is the end of the text although there is a token '<pad>'."""
    tokenizer = siglip_tokenizer(hf)
    preprocess = text_preprocess(hf, tmp_path, "siglip", tokenizer)
    batch = preprocess(text=["a cat"])
    assert batch["text"].shape == (1, 64) and batch["text"][0, -1] == tokenizer.convert_tokens_to_ids("</s>")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": "<none>"}))
    with pytest.raises(DataError, match="pad_token is '<none>', which is not in tokenizer.json"):
        interop.Preprocess.read(tmp_path, "siglip", FAMILIES["siglip"])


def test_special_tokens_in_texts_are_read_as_such_also_by_a_copy(hf, tmp_path):
    tokenizer = bert_tokenizer(hf, model_max_length=16)
    ours = text_preprocess(hf, tmp_path, "bert", tokenizer).tokenizer
    for made in (ours, pickle.loads(pickle.dumps(ours))):
        assert made.encode("a [MASK] b") == tokenizer("a [MASK] b", add_special_tokens=False)["input_ids"]
    as_text = Tokenizer.load(tmp_path / "tokenizer.json")
    for made in (as_text, pickle.loads(pickle.dumps(as_text))):
        assert tokenizer.mask_token_id not in made.encode("a [MASK] b")


def test_without_a_tokenizer_texts_are_refused(hf, tmp_path):
    hf.BertConfig().save_pretrained(tmp_path)
    preprocess = interop.Preprocess.read(tmp_path, "bert", FAMILIES["bert"])
    with pytest.raises(DataError, match="has no tokenizer.json, so texts cannot be read; write one with"):
        preprocess(text=["a"])
