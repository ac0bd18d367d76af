"""Pictures on disk as tensors."""
from __future__ import annotations

import contextlib
import io
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..progress import OneBar
from .picture import Picture

__all__ = ["open_image"]

# for one of 28x28 two threads take 120 µs, one takes 34
PIXELS_WORTH_THREADS = 96 * 96

# what brings a picture upright, by its orientation
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
         8: "ROTATE_90"}

Size = tuple[int, int]
# what a picture comes to when it is decoded: a size; sides divided by a whole number, which is a function of height and
# width; or as it lies on the disk
Fit = Size | Callable[[int, int], int] | None


def open_image(item: Any, size: int | Size | None = None) -> Picture:
    """A picture as a float tensor (3, H, W) in [0, 1], a `Picture`, which a notebook shows; EXIF's orientation is
    applied, transparency is dropped.

    item: a path, a PIL image, or a tensor (1 or 3, H, W), uint8 or in [0, 1].
    size: height and width (one number: both) to scale and centre-crop paths and PIL images to; None: they keep theirs.

    ValueError that names the file for what is no picture or has more than 8 bits a channel.

    >>> from PIL import Image
    >>> open_image(Image.new("RGB", (40, 30), (255, 0, 0)), size=20).shape
    torch.Size([3, 20, 20])
    """
    return as_floats(pixels(item, as_size(size))[None])[0].as_subclass(Picture)


def pixels(item: Any, fit: Fit = None) -> Tensor:
    """A picture as a tensor (1 or 3, H, W), of uint8 where it comes from a file or PIL; a tensor is unchanged."""
    if not isinstance(item, Tensor):
        array = _decoded(item, fit)
        return torch.from_numpy(np.array(array[None] if array.ndim == 2 else array.transpose(2, 0, 1)))
    if item.ndim != 3 or item.shape[0] not in (1, 3):
        raise ValueError(f"a picture is a tensor (1 or 3, height, width), not {tuple(item.shape)}")
    return item


def as_floats(x: Tensor) -> Tensor:
    """Pictures (n, 1 or 3, H, W) as float (n, 3, H, W): bytes are divided by 255, grey is made three equal channels."""
    if x.dtype == torch.uint8:
        x = x.float().div_(255)
    # contiguous: in-place work on a view of one channel would be refused (15 µs for 64 small pictures)
    return x.expand(-1, 3, -1, -1).contiguous() if x.shape[1] == 1 else x


def as_size(size: Any) -> Size | None:
    """`size` as (height, width); ValueError if it is neither a whole number nor two of them."""
    if size is None:
        return None
    pair = list(size) if isinstance(size, (list, tuple)) else [size, size]
    whole = [int(n.__index__()) for n in pair if hasattr(n, "__index__") and not isinstance(n, bool)]
    if len(pair) != 2 or len(whole) != 2 or min(whole) < 1:
        raise ValueError(f"size must be a whole number or (height, width), not {size!r}")
    return whole[0], whole[1]


def picture_shape(path: Path | str) -> Size:
    """Height and width of a picture as shown, from its header."""
    from PIL import Image
    try:
        with Image.open(path) as im:
            h, w = im.height, im.width
            return (w, h) if orientation(im) > 4 else (h, w)
    except Exception as e:
        raise unreadable(path, e) from e


def decode(paths: Sequence[Path], size: Size | None = None) -> Tensor:
    """Pictures from disk as one uint8 tensor (n, 1 or 3, H, W), in parallel where that pays.

    One channel if all are grey. ValueError that names the file if one cannot be read or differs in size from the first.
    """
    h, w = size or picture_shape(paths[0])

    def one(path: Path) -> np.ndarray[Any, Any]:
        array = _decoded(path, size)
        if array.shape[:2] != (h, w):
            raise DifferentSizes(f"{path} is {array.shape[0]}x{array.shape[1]} (h x w), {paths[0]} is {h}x{w}: "
                                 "give size= to bring all to one size")
        return array

    # PIL holds Python's lock for nearly all of a small picture
    arrays = map(one, paths) if h * w < PIXELS_WORTH_THREADS else _in_threads(one, paths, "Decoding pictures")
    return _stacked(len(paths), arrays, h, w)


def decode_each(paths: Sequence[Path], fits: Sequence[Fit], max_memory: int) -> list[Tensor] | None:
    """Pictures from disk as uint8 tensors (1 or 3, H, W), in parallel; None if all of them, in colour, need more than
    `max_memory` bytes. ValueError that names the file if one cannot be read."""
    images = []
    for image in _in_threads(pixels, paths, "Decoding pictures", fits):
        images.append(image)
        max_memory -= 3 * image[0].numel()
        if max_memory < 0:
            return None
    return images


def in_threads(read: Callable[..., Any], paths: Sequence[Path], what: str) -> list[Any]:
    """What `read` makes of each path, in order, by as many threads as there are processors, under a bar."""
    return list(_in_threads(read, paths, what))


def _in_threads(read: Callable[..., Any], paths: Sequence[Path], what: str, *more: Sequence[Any]) -> Iterator[Any]:
    pool = ThreadPoolExecutor(os.cpu_count())
    bar = OneBar(len(paths))
    bar.comment = lambda: what
    try:
        with bar:
            yield from bar.track(pool.map(read, paths, *more), len(paths))
    finally:    # at once, also when Ctrl-C or a broken file ends it
        pool.shutdown(cancel_futures=True)


class DifferentSizes(ValueError):
    """Pictures do not have one size, so no tensor can hold them."""


def _stacked(n: int, arrays: Iterable[np.ndarray[Any, Any]], h: int, w: int) -> Tensor:
    out = torch.empty(n, 1, h, w, dtype=torch.uint8)
    view = out.numpy()
    for i, array in enumerate(arrays):
        if array.ndim == 3 and view.shape[1] == 1:  # the first in colour: what was grey until here gets three channels
            out = out.repeat(1, 3, 1, 1)
            view = out.numpy()
        view[i] = array if array.ndim == 2 else array.transpose(2, 0, 1)
    return out


def _decoded(item: Any, fit: Fit) -> np.ndarray[Any, Any]:
    """Bytes (H, W) of a grey picture or (H, W, 3) of one in colour, from a path or PIL. Transparency is dropped."""
    from PIL import Image, UnidentifiedImageError
    if not isinstance(item, (Image.Image, str, os.PathLike)):   # a number would be taken for an open file
        raise TypeError(f"a picture is a path, a PIL image or a tensor, not {type(item).__name__}")
    try:
        if isinstance(item, Image.Image):
            return _bytes(item, fit)
        with open(item, "rb", buffering=0) as f:    # PIL reads by small pieces: 47 µs a small picture, this way 34
            content = io.BytesIO(f.read())
        with Image.open(content) as im:
            return _bytes(im, fit)
    except UnidentifiedImageError:
        raise ValueError(f"{item} cannot be read as a picture: it has none of the formats that PIL knows") from None
    except Exception as e:
        raise unreadable(item, e) from e


def _bytes(im: Any, fit: Fit) -> np.ndarray[Any, Any]:
    from PIL import Image, ImageOps
    if _has_wide_channels(im):  # PIL would cut these off
        raise ValueError(f"its channels have more than 8 bits (mode {im.mode}), convert it first")
    h, w = im.height, im.width
    by = fit(h, w) if callable(fit) else 1
    if by > 1:  # JPEG files decode to a half, a quarter or an eighth in less time
        im.draft(im.mode, (w // by, h // by))
        by //= round(h / im.height)
    if im.mode not in ("L", "RGB"):
        if isinstance(im.info.get("transparency"), bytes):     # of a palette: PIL warns unless it goes this way
            im = im.convert("RGBA")
        im = im.convert("L" if im.mode in ("1", "LA") else "RGB")
    if turn := TURNS.get(orientation(im)):
        im = im.transpose(Image.Transpose[turn])
    if by > 1:
        im = im.reduce(by)
    if isinstance(fit, tuple) and fit != (im.height, im.width):
        im = ImageOps.fit(im, (fit[1], fit[0]), Image.Resampling.BILINEAR)
    channels = [] if im.mode == "L" else [3]
    # np.asarray(im) asks PIL for more than the bytes: that takes a tenth of a small picture's time
    return np.frombuffer(im.tobytes(), np.uint8).reshape(im.height, im.width, *channels)


def _has_wide_channels(im: Any) -> bool:
    """Whether the file has more than 8 bits a channel. Those in colour PIL opens as if they had 8."""
    if im.mode[0] in "IF":
        return True
    for codec, _, _, args in getattr(im, "tile", []):
        args = args if isinstance(args, tuple) else (args,)
        if (codec == "SGI16" or codec == "ppm" and isinstance(args[-1], int) and args[-1] > 255
                or any(isinstance(arg, str) and re.search(";16[BLN]", arg) for arg in args)):
            return True
    return False


def orientation(im: Any) -> int:
    """1 to 8 as EXIF has it (tag 0x0112); 1, upright, where it says nothing or is damaged.

    PIL reads all of EXIF for it, and warns of whatever is damaged in it. (TIFF files PIL turns itself.)
    """
    exif = im.info.get("exif")
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(b"Exif\0\0")
    order = "<" if tiff[:2] == b"II" else ">"
    with contextlib.suppress(struct.error):
        start: int = struct.unpack_from(order + "L", tiff, 4)[0]
        n: int = struct.unpack_from(order + "H", tiff, start)[0]
        for at in range(start + 2, start + 2 + 12 * n, 12):
            tag, _, _, value = struct.unpack_from(order + "HHLH", tiff, at)
            if tag == 0x0112:
                return int(value)
    return 1


def unreadable(item: Any, e: Exception) -> Exception:
    if isinstance(e, FileNotFoundError):
        return FileNotFoundError(f"there is no file {item}")
    return ValueError(f"{item} cannot be read as a picture: {e}")
