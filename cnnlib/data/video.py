"""Frames of a video file as arrays. Needs the package av (FFmpeg): pip install "cnnlib[video]"."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnnlib.errors import DataError, ValueRangeError


def frames(path: str | Path, size: int = 32) -> np.ndarray:
    """All frames of a video, (T, 3, size, size) float32 in [0, 1], each squeezed to a square of ``size`` pixels.

    Raises DataError (no such file, not a video, av is not installed), ValueRangeError (size below 1).
    """
    path = Path(path)
    if size < 1:
        raise ValueRangeError(f"frames: size must be at least 1 pixel, got {size!r}.")
    if not path.is_file():
        raise DataError(f"{path}: there is no such video file.")
    av = _av()
    try:
        with av.open(str(path)) as video:
            pictures = [frame.reformat(width=size, height=size, format="rgb24").to_ndarray() for frame in video.decode(video=0)]
    except (av.error.FFmpegError, IndexError) as reason:  # IndexError: a file without a stream of pictures
        raise DataError(f"{path}: not a video that can be read ({reason}).") from None
    if not pictures:
        raise DataError(f"{path}: there is no frame in it.")
    return np.stack(pictures).transpose(0, 3, 1, 2) / np.float32(255)


def _av():
    try:
        import av
    except ImportError:
        raise DataError('reading a video needs the package av: pip install "cnnlib[video]".') from None
    return av
