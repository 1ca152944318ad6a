"""Video transforms: decoding and sampling of frames."""

import io

import av
import numpy as np
import pytest
from transform_cases import make, run

from mmjax.errors import ConfigError, DataError


def video(frames=20, height=32, width=48, format="mp4"):
    """A video whose frame i is grey of level 10 i."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 10 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def numbers(decoded):
    """Which frame of `video` each frame is, from its grey level."""
    return np.rint(decoded.mean(axis=(1, 2, 3)) / 10).astype(int).tolist()


@pytest.mark.parametrize("format", ["mp4", "matroska", "avi"])
def test_uniform_sampling_takes_the_middle_of_each_part(format):
    decoded = run("decode_video", video(format=format), num_frames=4)
    assert decoded.shape == (4, 32, 48, 3) and decoded.dtype == np.uint8
    assert numbers(decoded) == [2, 7, 12, 17]


def test_all_frames_in_order():
    assert numbers(run("decode_video", video(), num_frames=20)) == list(range(20))


def test_short_videos_give_frames_again():
    assert numbers(run("decode_video", video(frames=3), num_frames=6)) == [0, 0, 1, 1, 2, 2]


def test_random_sampling_takes_one_frame_of_each_part():
    file, seen = video(), [set() for _ in range(4)]
    for seed in range(40):
        for k, number in enumerate(numbers(run("decode_video", file, seed, num_frames=4, sampling="random"))):
            assert 5 * k <= number < 5 * (k + 1)
            seen[k].add(number)
    assert all(len(part) == 5 for part in seen)
    first, again = (run("decode_video", file, 3, num_frames=4, sampling="random") for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_path_is_read(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(video())
    assert numbers(run("decode_video", str(path), num_frames=2)) == [5, 15]
    with pytest.raises(DataError, match=r"decode_video: cannot read '.*w.mp4' \(No such file"):
        run("decode_video", str(tmp_path / "w.mp4"), num_frames=2)


def test_an_array_of_frames_is_a_whole_video():
    frames = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.full((4, 5, 3), 10, np.uint8)
    np.testing.assert_array_equal(run("decode_video", frames, num_frames=6), frames)
    assert numbers(run("decode_video", frames, num_frames=2)) == [1, 4]
    for wrong in (frames[:0], frames[..., :1], frames[0], frames.astype(np.float32)):
        with pytest.raises(
            DataError, match=r"decode_video: .* expected the bytes of a video file, its path, or"
        ):
            run("decode_video", wrong, num_frames=2)


def test_limits():
    with pytest.raises(DataError, match=r"got more than 10 frames \(max_frames\)"):
        run("decode_video", video(), num_frames=2, max_frames=10)
    with pytest.raises(DataError, match="got frames of 1536 pixels, expected at most 1000"):
        run("decode_video", video(), num_frames=2, max_pixels=1000)


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("damaged", [b"", b"no video", video()[:300], PLAYLIST])
def test_damaged_bytes_are_a_data_error(damaged):
    with pytest.raises(DataError, match=r"decode_video: \d+ bytes that"):
        run("decode_video", damaged, num_frames=2)


def test_other_kinds_are_refused():
    with pytest.raises(DataError, match=r"decode_video: got an array \[2\] float64, expected the bytes"):
        run("decode_video", np.zeros(2), num_frames=2)
    with pytest.raises(ConfigError, match="decode_video.num_frames"):
        make("decode_video", num_frames=0)


def test_image_transforms_follow():
    decoded = run("decode_video", video(), num_frames=4)
    small = run("center_crop", run("resize_short_side", decoded, size=16), size=16)
    assert run("normalise", small, mean=[0.5], std=[0.5]).shape == (4, 16, 16, 3)
    assert numbers(small) == [2, 7, 12, 17]
