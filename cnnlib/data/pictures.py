"""One picture file as an array, whatever Pillow can read: palettes, transparency, 16 bits, CMYK, turned by EXIF."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from cnnlib.errors import DataError, ValueRangeError

MAX_PIXELS = 89_478_485  # as in Pillow: a picture of more would take over 256 MB; a small file can claim to be one

FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # not EPS and others that start programs


def image(path: str | Path, size: int | tuple[int, int] | None = None, channels: int = 3) -> np.ndarray:
    """One picture for ``predict``: (1, channels, H, W) float32 in [0, 1]; a network sees it as a batch of one.

    size      the side, or (height, width). The picture is scaled to cover it, keeping its proportions, and its middle
              is cut out. None keeps the picture as it is.
    channels  1 (grey) or 3 (red, green, blue).

    It is turned as its EXIF orientation says; transparent parts become white; of an animation the first frame counts.
    A picture that cannot be read is a `DataError` that names it.
    """
    path = Path(path)
    shape = check_settings("image", size, channels)
    if not path.is_file():
        raise DataError(f"{path}: there is no such picture file.")
    try:
        return read_picture(path, shape, channels)[None] / np.float32(255)
    except PictureProblem as problem:
        raise DataError(f"{path}: {problem}.") from None


class PictureProblem(Exception):
    """Why a file cannot be used as a picture."""


def check_settings(who: str, size, channels: int) -> tuple[int, int] | None:
    """``size`` as (height, width), or an error."""
    if channels not in (1, 3):
        raise ValueRangeError(f"{who}: channels must be 1 (grey) or 3 (colour), got {channels!r}.")
    if size is None:
        return None
    height_width = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    whole = all(isinstance(s, (int, np.integer)) and not isinstance(s, bool) and s >= 1 for s in height_width)
    if len(height_width) != 2 or not whole:
        raise ValueRangeError(f"{who}: size must be a number of pixels or (height, width), got {size!r}.")
    return int(height_width[0]), int(height_width[1])


def read_picture(path: Path, shape: tuple[int, int] | None, channels: int) -> np.ndarray:
    """(channels, H, W) uint8, or `PictureProblem`."""
    image_module = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own warning about large pictures: ours is an error
            picture = image_module.open(path, formats=_formats(image_module))
        with picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise PictureProblem(_bomb(f"{width} × {height}"))
            return _pixels(picture, shape, channels)
    except PictureProblem:
        raise
    except image_module.DecompressionBombError:
        raise PictureProblem(_bomb(f"over {2 * MAX_PIXELS:,}")) from None
    except image_module.UnidentifiedImageError:
        raise PictureProblem(f"not a picture in a format that is read ({', '.join(FORMATS)})") from None
    except MemoryError:
        raise PictureProblem("too large for the memory") from None
    except Exception as error:  # damaged files make Pillow's readers raise almost anything
        raise PictureProblem(f"cannot be read: {str(error) or type(error).__name__}") from None


def _formats(image_module) -> list[str]:
    image_module.init()
    return [f for f in FORMATS if f in image_module.OPEN]


def _bomb(claim: str) -> str:
    return f"it claims {claim} pixels, over the limit of {MAX_PIXELS:,} (a decompression bomb?): scale it down first"


def _pixels(picture, shape: tuple[int, int] | None, channels: int) -> np.ndarray:
    from PIL import ImageOps

    image_module = pillow()
    picture.load()
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        picture = _from_16_bits(picture)
    elif picture.mode == "F":
        raise PictureProblem("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = image_module.alpha_composite(image_module.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("L" if channels == 1 else "RGB")
    if shape is not None:
        picture = ImageOps.fit(picture, (shape[1], shape[0]), image_module.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.uint8)
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1))


def _from_16_bits(picture):
    """16-bit grey to 8-bit grey. Pillow would cut everything above 255 off."""
    values = np.asarray(picture).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise PictureProblem(f"its pixels run from {values.min()} to {values.max()}, outside 16 bits")
    return pillow().fromarray((values // 257).astype(np.uint8))


def pillow():
    """Pillow's Image module, or what to install."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError("reading pictures needs the package Pillow: pip install pillow.") from None
    return Image
