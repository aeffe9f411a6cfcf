"""Frames of a video file, where the package av is installed, and what is said where it or the file is missing."""

import sys

import numpy as np
import pytest

from cnnlib.data.video import frames
from cnnlib.errors import DataError, ValueRangeError


def write(path, pictures):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as video:
        stream = video.add_stream("ffv1", rate=10)  # without loss
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "bgr0"
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                video.mux(packet)
        for packet in stream.encode():
            video.mux(packet)


def test_frames_are_those_of_the_file(tmp_path):
    pictures = np.zeros((5, 16, 16, 3), np.uint8)
    pictures[:, :8, :, 0] = 50 * np.arange(5)[:, None, None]  # the upper half becomes red
    write(tmp_path / "red.mkv", pictures)
    x = frames(tmp_path / "red.mkv", size=16)
    assert x.shape == (5, 3, 16, 16) and x.dtype == np.float32
    np.testing.assert_allclose(x, pictures.transpose(0, 3, 1, 2) / 255, atol=0.01)
    small = frames(tmp_path / "red.mkv", size=8)
    assert small.shape == (5, 3, 8, 8) and small[4, 0, 0, 0] > 0.7 and small[4, 0, 7, 0] < 0.1


def test_what_is_no_video_is_an_error_with_its_name(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "text.avi").write_text("no video at all")
    with pytest.raises(DataError, match=r"text\.avi: not a video that can be read"):
        frames(tmp_path / "text.avi")


def test_missing_files_packages_and_wrong_sizes(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"none\.mp4: there is no such video file"):
        frames(tmp_path / "none.mp4")
    with pytest.raises(ValueRangeError, match="size must be at least 1 pixel, got 0"):
        frames(tmp_path / "none.mp4", size=0)
    (tmp_path / "some.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r'needs the package av: pip install "cnnlib\[video\]"'):
        frames(tmp_path / "some.mp4")
