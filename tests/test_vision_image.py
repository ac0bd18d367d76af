import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from pictures import COUNTS, fill, picture
from PIL import Image, ImageOps

from minifast.vision.data import ImageDataBunch
from minifast.vision.image import decode, open_image, picture_shape


def seen(im):
    return torch.from_numpy(np.array(ImageOps.exif_transpose(im).convert("RGB"))).permute(2, 0, 1)


def with_orientation(value):
    exif = Image.new("RGB", (1, 1)).getexif()
    exif[0x010F], exif[0x0112] = "a camera", value
    return exif


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("value", range(1, 9))
def test_exif_s_orientation_is_applied_in_pixels_and_shapes(tmp_path, suffix, value):
    file = tmp_path / f"x{suffix}"
    picture(0, "RGB", (8, 24)).save(file, exif=with_orientation(value))
    expected = seen(Image.open(file))
    assert expected.shape == ((3, 24, 8) if value > 4 else (3, 8, 24))
    assert torch.allclose(open_image(file) * 255, expected.float())
    assert torch.equal(decode([file])[0], expected) and picture_shape(file) == tuple(expected.shape[1:])
    assert torch.equal(open_image(Image.open(file)), open_image(file))
    if value > 4:   # the part that is left is cut from the picture as it is seen
        assert open_image(file, 8).shape == (3, 8, 8)
        assert torch.equal(open_image(file, (24, 4)), open_image(ImageOps.exif_transpose(Image.open(file)), (24, 4)))


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff",
                                  b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
                                  b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x99\0\0"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Possibly corrupt EXIF", "ignore:Truncated")   # PIL's own
def test_damaged_exif_is_no_matter(tmp_path, exif):
    picture(0, "RGB").save(tmp_path / "x.jpg", exif=exif)
    assert open_image(tmp_path / "x.jpg").shape == (3, 8, 6)


def test_pictures_that_lie_on_their_side_join_those_that_stand(tmp_path):
    root = fill(tmp_path, COUNTS, ".jpg")
    picture(1, "L", (6, 8)).save(root / "train/cat/0.jpg", exif=with_orientation(6))
    for max_memory in 2**30, 0:
        data = ImageDataBunch.from_folder(root, bs=4, max_memory=max_memory)
        assert data.size == (8, 6) and data.one_batch()[0].shape == (4, 3, 8, 6)


def png(color, depth=16):
    """A PNG of 4 x 3 pixels by hand: PIL writes none in colour with 16 bits."""
    n = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes(range(4 * n * depth // 8)) for _ in range(3))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, depth, color, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def tiff():
    """A TIFF of 4 x 3 pixels in colour with 16 bits."""
    tags = [(256, 3, 1, 4), (257, 3, 1, 3), (258, 3, 3, 122), (262, 3, 1, 2), (273, 4, 1, 128), (277, 3, 1, 3),
            (278, 3, 1, 3), (279, 4, 1, 72), (259, 3, 1, 1)]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    body = b"".join(struct.pack("<HHII" if kind == 4 or n > 1 else "<HHIHxx", tag, kind, n, value)
                    for tag, kind, n, value in sorted(tags))
    return head + body + bytes(4) + struct.pack("<HHH", 16, 16, 16) + bytes(72)


def saved(im, kind, **kwargs):
    out = io.BytesIO()
    im.save(out, kind, **kwargs)
    return out.getvalue()


@pytest.mark.parametrize("name, content", [
    ("rgb.png", png(2)), ("rgba.png", png(6)), ("la.png", png(4)), ("grey.png", png(0)), ("rgb.tif", tiff()),
    ("rgb.ppm", b"P6 4 3 65535\n" + bytes(72)), ("grey.pgm", b"P5 4 3 1023\n" + bytes(24)),
    ("rgb.sgi", saved(picture(0, "RGB"), "SGI", bpc=2)),
    ("float.tif", saved(Image.fromarray(np.ones((3, 4), np.float32)), "TIFF"))])
def test_more_than_eight_bits_are_refused_by_name_not_cut_off(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read as a picture: its channels have more than 8 bits"):
        open_image(tmp_path / name)


@pytest.mark.parametrize("name, content", [("rgb.png", png(2, 8)), ("few.ppm", b"P6 4 3 15\n" + bytes(36)),
                                           ("rgb.sgi", saved(picture(0, "RGB", (3, 4)), "SGI"))])
def test_eight_bits_are_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert open_image(tmp_path / name).shape == (3, 3, 4)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "PA"])
def test_transparent_pictures_keep_their_colours_and_pil_says_nothing(tmp_path, mode):
    im = picture(0, "RGB")
    if mode == "P":
        im = im.convert("P")
        im.info["transparency"] = bytes(range(256))
        colours = im.convert("RGBA").convert("RGB")
    else:
        im = im.convert("P").convert(mode) if mode == "PA" else im.convert(mode)
        colours = im.convert("RGB")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = open_image(im)
    assert torch.equal(x * 255, torch.from_numpy(np.array(colours)).permute(2, 0, 1).float())


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", saved(picture(0, "RGB", (64, 64)), "JPEG")[:900],
                                     saved(picture(0), "PNG")[:70], saved(picture(0), "GIF")[:40]])
def test_what_is_cut_or_damaged_is_named(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ValueError, match="broken.png cannot be read as a picture"):
        open_image(tmp_path / "broken.png")
