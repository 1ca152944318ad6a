"""Image transforms: decoding, geometry, augmentation."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transform_cases import make, run

from mmjax.data.transforms import TRANSFORMS
from mmjax.data.transforms.base import transform_name
from mmjax.data.transforms.image_ops import random_box
from mmjax.errors import ConfigError, DataError


def encoded(array, format="PNG", **options):
    buffer = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(height=12, width=16, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def positions(height, width):
    """An image whose two channels (of three) hold the row and the column of each pixel."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows * 0], -1).astype(np.uint8)


def test_names_in_the_table_are_those_in_messages():
    assert {name: name for name in TRANSFORMS} == {
        name: transform_name(cls.__new__(cls)) for name, cls in TRANSFORMS.items()
    }


def test_decode_png_gives_its_pixels():
    image = picture()
    np.testing.assert_array_equal(run("decode_image", encoded(image)), image)


def test_decode_arrays_of_any_channels():
    image = picture(channels=1)
    np.testing.assert_array_equal(run("decode_image", image[..., 0], channels=1), image)
    np.testing.assert_array_equal(run("decode_image", image), np.repeat(image, 3, -1))


def test_decode_to_grey_is_the_luma_of_bt_601():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]], np.uint8)
    expected = np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(int)
    grey = run("decode_image", encoded(image), channels=1)
    assert grey.shape == (1, 4, 1)
    np.testing.assert_allclose(grey[..., 0], expected, atol=1)


def test_transparency_is_laid_on_white():
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], np.uint8)
    expected = [[[255, 255, 255], [10, 20, 30], [127, 127, 127]]]
    np.testing.assert_array_equal(run("decode_image", encoded(rgba)), expected)
    np.testing.assert_array_equal(run("decode_image", rgba), expected)


def test_transparent_palette_is_laid_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((1, 0), 1)
    decoded = run("decode_image", encoded(image, transparency=0))
    np.testing.assert_array_equal(decoded, [[[255, 255, 255], [200, 10, 10]]])


def test_sixteen_bit_grey_keeps_its_high_byte():
    deep = np.array([[0, 256, 65535]], np.uint16)
    np.testing.assert_array_equal(run("decode_image", encoded(deep), channels=1)[..., 0], [[0, 1, 255]])


def test_exif_orientation_is_applied():
    image = picture(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned a quarter to the left
    decoded = run("decode_image", encoded(image, exif=exif))
    np.testing.assert_array_equal(decoded, np.rot90(image, -1))


def test_too_many_pixels_are_refused_before_decoding():
    with pytest.raises(DataError, match="16 x 12 pixels, expected at most 100"):
        run("decode_image", encoded(picture()), max_pixels=100)


@pytest.mark.parametrize("damaged", [b"", b"no image", encoded(picture(40, 40))[:200], b"\x89PNG\r\n\x1a\n"])
def test_damaged_bytes_are_a_data_error(damaged):
    with pytest.raises(DataError, match=r"decode_image: \d+ bytes that are no readable image"):
        run("decode_image", damaged)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow says what it skips
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF"]), st.data())
def test_any_damage_is_a_data_error_or_still_an_image(format, data):
    good = bytearray(encoded(picture(24, 24), format))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = run("decode_image", bytes(good), max_pixels=2**20)
    except DataError:
        return
    assert image.ndim == 3 and image.shape[-1] == 3 and image.dtype == np.uint8


@pytest.mark.parametrize(
    "name", ["resize", "center_crop", "random_crop", "random_resized_crop", "resize_short_side"]
)
def test_geometry_refuses_what_is_no_decoded_image(name):
    with pytest.raises(DataError, match=rf"{name}: got bytes \(3\), expected uint8 .* after decode_image"):
        run(name, b"abc", size=4)
    with pytest.raises(DataError, match=rf"{name}: got an array \[4, 4, 3\] float32"):
        run(name, np.zeros((4, 4, 3), np.float32), size=4)


def test_resize_to_the_same_size_changes_nothing():
    image = picture()
    for resampler in ("nearest", "bilinear", "bicubic", "lanczos"):
        resized = run("resize", image, size=12, width=16, resampler=resampler)
        np.testing.assert_array_equal(resized, image)


def test_resize_averages_when_it_makes_smaller():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, ::2] = 200
    assert run("resize", image, size=4, width=8 // 8).shape == (4, 1, 3)
    # Antialiasing: each pixel is the mean of its surroundings, where taking samples gives 0 or 200.
    assert abs(int(run("resize", image, size=1, resampler="bilinear")[0, 0, 0]) - 100) <= 1


def test_resize_takes_frames_and_grey():
    frames = np.stack([picture(seed=i) for i in range(3)])
    resized = run("resize", frames, size=6)
    assert resized.shape == (3, 6, 6, 3)
    for frame, alone in zip(frames, resized, strict=True):
        np.testing.assert_array_equal(run("resize", frame, size=6), alone)
    assert run("resize", picture(channels=1), size=5).shape == (5, 5, 1)


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(10, 20, (5, 10)), (20, 10, (10, 5)), (9, 14, (5, 7)), (3, 3, (5, 5))]
)
def test_resize_short_side_keeps_proportions(height, width, expected):
    assert run("resize_short_side", picture(height, width), size=5).shape[:2] == expected


def test_center_crop_takes_the_middle():
    cropped = run("center_crop", positions(10, 20), size=4, width=6)
    np.testing.assert_array_equal(cropped, positions(10, 20)[3:7, 7:13])
    with pytest.raises(DataError, match="center_crop: .* expected at least 11 x 11 pixels; resize"):
        run("center_crop", positions(10, 20), size=11)


def test_center_crop_of_an_odd_rest_begins_where_it_is_told():
    for free, even, down in [(1, 0, 0), (3, 2, 1), (5, 2, 2)]:
        image = positions(4 + free, 4 + free)
        np.testing.assert_array_equal(run("center_crop", image, size=4)[0, 0, :2], [even, even])
        cropped = run("center_crop", image, size=4, rounding="down")
        np.testing.assert_array_equal(cropped[0, 0, :2], [down, down])


def test_center_crop_can_lay_a_border_around_small_images():
    image = positions(3, 8) + 1
    cropped = run("center_crop", image, size=6, pad=True)
    assert cropped.shape == (6, 6, 3)
    assert not cropped[:2].any() and not cropped[5:].any()
    np.testing.assert_array_equal(cropped[2:5], image[:, 1:7])


def test_images_of_pillow_are_read():
    image = picture()
    np.testing.assert_array_equal(run("decode_image", Image.fromarray(image)), image)
    transparent = Image.new("RGBA", (2, 1), (9, 9, 9, 0))
    np.testing.assert_array_equal(run("decode_image", transparent), np.full((1, 2, 3), 255))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 10), st.integers(0, 3))
def test_random_crop_stays_in_the_padded_image(seed, size, padding):
    image = positions(10, 12) + 1  # so that padding is the only 0
    cropped = run("random_crop", image, seed=seed, size=size, padding=padding)
    assert cropped.shape == (size, size, 3)
    rows, columns = cropped[..., 0].astype(int), cropped[..., 1].astype(int)
    inside = (rows > 0) & (columns > 0)
    if padding == 0:
        assert inside.all()
    # What lies inside is one unbroken rectangle of the image.
    if inside.any():
        top, left = rows[inside].min(), columns[inside].min()
        height, width = inside.any(1).sum(), inside.any(0).sum()
        expected = image[top - 1 : top - 1 + height, left - 1 : left - 1 + width]
        np.testing.assert_array_equal(cropped[inside], expected.reshape(-1, 3))


def test_random_crop_reaches_every_place():
    seen = {tuple(run("random_crop", positions(5, 6), seed=s, size=4)[0, 0, :2]) for s in range(200)}
    assert seen == {(row, column) for row in range(2) for column in range(3)}


def test_random_crop_mirrors_at_the_edge():
    image = positions(4, 4)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)], mode="reflect")
    cropped = run("random_crop", image, size=8, padding=2, padding_mode="reflect")
    np.testing.assert_array_equal(cropped, padded)


def test_random_boxes_have_areas_and_proportions_in_range():
    image, rng = np.zeros((100, 100, 1), np.uint8), np.random.default_rng(0)
    boxes = np.array([random_box(image, [0.2, 0.5], [3 / 4, 4 / 3], rng) for _ in range(2000)])
    top, left, height, width = boxes.T
    areas, logarithms = height * width / 10000, np.log(width / height)
    assert 0.19 < areas.min() < 0.21 and 0.49 < areas.max() < 0.51
    assert abs(areas.mean() - 0.35) < 0.008  # uniform: four standard errors
    assert abs(areas.std() - 0.3 / 12**0.5) < 0.005
    assert 0.73 < np.exp(logarithms.min()) < 0.77 and 1.3 < np.exp(logarithms.max()) < 1.37
    assert abs(logarithms.mean()) < 0.016
    assert (top >= 0).all() and (top + height <= 100).all() and top.min() == 0
    assert (left >= 0).all() and (left + width <= 100).all() and (left + width).max() == 100


def test_random_resized_crop_is_a_box_resized():
    image = picture(30, 40)
    top, left, height, width = random_box(image, [0.08, 1.0], [3 / 4, 4 / 3], np.random.default_rng(7))
    expected = run("resize", image[top : top + height, left : left + width], size=9)
    np.testing.assert_array_equal(run("random_resized_crop", image, seed=7, size=9), expected)


def test_random_resized_crop_falls_back_to_the_centre():
    # No rectangle of at least 90% of the area has nearly square proportions here.
    image = positions(10, 100)
    cropped = run("random_resized_crop", image, size=13, scale=[0.9, 1.0], resampler="nearest")
    columns = np.unique(cropped[..., 1])
    assert columns.min() == 43 and columns.max() == 55  # the middle 13 = 10 * 4 / 3 columns


def test_random_flip():
    image = picture()
    np.testing.assert_array_equal(run("random_flip", image, probability=1.0), image[:, ::-1])
    np.testing.assert_array_equal(run("random_flip", image, probability=0.0), image)
    np.testing.assert_array_equal(run("random_flip", image, probability=1.0, axis="vertical"), image[::-1])
    flipped = [np.array_equal(run("random_flip", image, seed=s), image) for s in range(400)]
    assert 0.4 < np.mean(flipped) < 0.6


AUGMENTATIONS = {
    "random_crop": {"size": 8, "padding": 2},
    "random_resized_crop": {"size": 8},
    "random_flip": {},
    "rand_augment": {},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
    "random_erasing": {"probability": 1.0},
    "occlude": {"fraction": 0.3},
    "gaussian_noise": {"std": 0.1},
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_depends_on_the_generator_alone_and_leaves_its_input(name, channels):
    image = picture(channels=channels)
    before = image.copy()
    results = [run(name, image, seed=seed, **AUGMENTATIONS[name]) for seed in [*range(8), *range(8)]]
    np.testing.assert_array_equal(image, before)
    for first, again in zip(results[:8], results[8:], strict=True):
        np.testing.assert_array_equal(first, again)
    assert any(not np.array_equal(results[0], other) for other in results[1:8])
    assert all(r.dtype == np.uint8 and r.ndim == 3 and r.shape[-1] == channels for r in results)


@pytest.mark.parametrize("name", [n for n in AUGMENTATIONS if n not in ("random_erasing", "gaussian_noise")])
def test_frames_of_a_video_are_changed_alike(name):
    image = picture()
    for seed in range(5):
        alone = run(name, image, seed=seed, **AUGMENTATIONS[name])
        frames = run(name, np.stack([image] * 3), seed=seed, **AUGMENTATIONS[name])
        for frame in frames:
            np.testing.assert_array_equal(frame, alone)


def test_random_erasing_takes_one_rectangle_of_the_asked_area():
    image = np.zeros((50, 40, 3), np.uint8)
    fractions = []
    for seed in range(50):
        erased = run("random_erasing", image, seed=seed, probability=1.0, scale=[0.1, 0.2]).any(-1)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        fractions.append((np.ptp(rows) + 1) * (np.ptp(columns) + 1) / 2000)
    assert 0.09 < min(fractions) and max(fractions) < 0.21
    np.testing.assert_array_equal(run("random_erasing", image, probability=0.0), image)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (10, 40), (40, 10)])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.6, 1.0])
def test_occlude_covers_the_fraction(height, width, fraction):
    image = np.full((height, width, 3), 9, np.uint8)
    for seed in range(10):
        covered = (run("occlude", image, seed=seed, fraction=fraction, value=77) == 77).all(-1)
        assert abs(covered.mean() - fraction) < 0.02


def test_rand_augment_does_each_operation_and_nothing_at_magnitude_zero_beyond_contrast():
    from mmjax.data.transforms.image_augment import _OPERATIONS

    image = Image.fromarray(picture(32, 32))
    assert len(_OPERATIONS) == 14
    pixels = np.asarray(image)
    for name, operation in _OPERATIONS.items():
        strong, none = np.asarray(operation(image, 1.0, 0)), np.asarray(operation(image, 0.0, 0))
        assert strong.shape == pixels.shape
        if name not in ("identity", "auto_contrast"):  # noise has the full contrast already
            assert not np.array_equal(strong, pixels), name
        if name not in ("auto_contrast", "equalize"):
            np.testing.assert_array_equal(none, pixels, err_msg=name)


def test_rand_augment_strengths_at_full_magnitude():
    from mmjax.data.transforms.image_augment import _OPERATIONS

    image = Image.fromarray(positions(33, 33) + 1)
    moved = np.asarray(_OPERATIONS["translate_x"](image, 1.0, 0))
    # 150 / 331 of 33 pixels are 14.95: nearest sampling moves by 15, and zeros come in.
    np.testing.assert_array_equal(moved[:, :18], np.asarray(image)[:, 15:])
    assert not moved[:, 18:].any()
    grey = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    assert len(np.unique(np.asarray(_OPERATIONS["posterize"](grey, 1.0, 0)))) == 16  # four bits
    np.testing.assert_array_equal(_OPERATIONS["solarize"](grey, 1.0, 0), 255 - np.asarray(grey))
    half = np.asarray(_OPERATIONS["solarize"](grey, 0.5, 0))
    np.testing.assert_array_equal(half[0, [127, 128, 255]], [127, 127, 0])  # inverted from 128 on


def test_color_jitter_of_no_strength_changes_nothing():
    image = picture()
    np.testing.assert_array_equal(run("color_jitter", image), image)
    jittered = run("color_jitter", np.full((4, 4, 3), 100, np.uint8), brightness=0.5, seed=3)
    assert len(np.unique(jittered)) == 1 and 50 <= jittered[0, 0, 0] <= 150


def test_random_grayscale_takes_the_colours_off_as_often_as_told():
    image = picture()
    grey = run("random_grayscale", image, probability=1.0)
    assert grey.shape == image.shape and (grey == grey[..., :1]).all()
    np.testing.assert_array_equal(run("random_grayscale", image, probability=0.0), image)
    changed = [(run("random_grayscale", image, seed=seed) != image).any() for seed in range(200)]
    assert 0.1 < np.mean(changed) < 0.3


def test_random_blur_keeps_the_mean_and_takes_contrast_off():
    image = picture(32, 32)
    blurred = run("random_blur", image, sigma=[2.0, 2.0], probability=1.0)
    assert blurred.shape == image.shape and blurred.std() < 0.5 * image.std()
    assert abs(blurred.mean() - image.mean()) < 3
    np.testing.assert_array_equal(run("random_blur", image, sigma=[2.0, 2.0], probability=0.0), image)
    weak = run("random_blur", image, sigma=[0.2, 0.2], probability=1.0)
    assert weak.std() > blurred.std()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("random_grayscale", {"probability": 2.0}, "random_grayscale.probability: got 2.0, expected 0 to 1"),
        ("random_blur", {"sigma": [2.0, 1.0]}, "random_blur.sigma"),
        ("resize", {"size": 0}, "resize.size: got 0, expected more than 0"),
        ("random_resized_crop", {"size": 4, "scale": [0.5]}, "random_resized_crop.scale"),
        ("random_resized_crop", {"size": 4, "scale": [0.5, 2.0]}, "random_resized_crop.scale"),
        ("rand_augment", {"magnitude": 31}, "rand_augment.magnitude: got 31, expected 0 to 30"),
        ("occlude", {"fraction": 1.5}, "occlude.fraction"),
        ("random_flip", {"probability": -0.1}, "random_flip.probability"),
        ("decode_image", {"channels": 4}, "channels"),
        ("normalise", {"mean": [0.5], "std": [0.0]}, "normalise.std"),
        ("normalise", {"mean": [0.5], "std": [1.0, 1.0]}, "normalise.mean"),
    ],
)
def test_settings_that_cannot_work_are_refused(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **fields)
