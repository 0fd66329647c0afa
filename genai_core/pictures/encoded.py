"""Encoded pictures (PNG, JPEG, WebP, ...) to pixels and back: one size, grey or colour, and a reason where it fails"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

# Those that decode without starting another program: EPS, for one, is run by Ghostscript.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # a few hundred MB while it is decoded; more is a mistake, or a bomb
GREY, RGB = "L", "RGB"
PAPER = (255, 255, 255, 255)  # what shows through transparent pixels
WIDE = ("I;16", "I;16B", "I;16L", "I;16N")  # 16 bits a pixel


class Unreadable(Exception):
    """Why one picture cannot be read; the part before ':' is the category that is counted."""


@dataclass(frozen=True)
class Frame:
    """What all pictures of a data set are brought to."""

    channels: int
    height: int
    width: int
    other_sizes: Literal["resize", "pad", "skip"] = "resize"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Pillow's warning of a picture that is suspiciously large becomes an exception, which `read` explains."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read(data: bytes) -> Image.Image:
    """A picture of mode L or RGB, upright. Raises Unreadable, for whatever the bytes are."""
    if not data:
        raise Unreadable("empty: no bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_large(*image.size)
            _refuse_animated(image)
            image.load()
            return plain(ImageOps.exif_transpose(image))
    except Unreadable:
        raise
    except Image.UnidentifiedImageError:
        raise Unreadable(f"no picture: {len(data):,} bytes that begin with {data[:8]!r}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(f"too large: {error}") from None
    except Exception as error:  # decoders raise nearly anything at damaged bytes: OSError, struct.error, ...
        kind = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise Unreadable(f"{kind}: {error or type(error).__name__}") from None


def _refuse_large(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Unreadable(f"too large: {width:,} x {height:,} pixels; {MAX_PIXELS:,} are accepted")


def _refuse_animated(image: Image.Image) -> None:
    # MPO: a camera's JPEG, with a preview or a second view behind the picture
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        frames = image.n_frames  # type: ignore[attr-defined]
        raise Unreadable(f"animated: {frames} frames or pages; extract those that are meant")


def plain(image: Image.Image) -> Image.Image:
    """As grey or RGB: transparent pixels on white, CMYK converted, 16 bits scaled to 8. Raises Unreadable."""
    if image.mode in (GREY, RGB):
        return image
    if image.mode in WIDE:
        return Image.fromarray(np.rint(np.asarray(image).astype(np.float32) / 257).astype(np.uint8))
    if image.mode in ("F", "I"):
        raise Unreadable(f"unsupported pixels: mode {image.mode}, whose range is unknown; save 8 or 16 bits")
    if image.mode == "1":
        return image.convert(GREY)
    if image.has_transparency_data:
        grey, image = image.mode in ("LA", "La"), image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, PAPER), image).convert(RGB)
        return image.getchannel(0) if grey else image
    palette, image = image.mode == "P", image.convert(RGB)
    return image.getchannel(0) if palette and _is_grey(image) else image


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = (channel.tobytes() for channel in image.split())
    return red == green == blue


def placed(image: Image.Image, frame: Frame) -> np.ndarray:
    """uint8 (channels, height, width) of a grey or RGB picture. Raises Unreadable: another size, and those are skipped.

    resize stretches, so that no part is lost; pad keeps the proportions, with black at the sides.
    """
    size = (frame.width, frame.height)
    if image.size != size:
        if frame.other_sizes == "skip":
            raise Unreadable(
                f"other size: {image.height} x {image.width}, not {frame.height} x {frame.width}"
            )
        if frame.other_sizes == "pad":
            image = ImageOps.pad(image, size, Image.Resampling.BICUBIC)
        else:
            image = image.resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image.convert(GREY if frame.channels == 1 else RGB))
    return pixels[None] if frame.channels == 1 else pixels.transpose(2, 0, 1)


def image_of(pixels: np.ndarray) -> Image.Image:
    """Of uint8 (1 or 3, height, width)."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def png(image: Image.Image) -> bytes:
    """The same bytes for the same pixels."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
