"""Builds mnist_sample.tgz, the 3s and 7s of MNIST as PNG files: `python build_mnist_sample.py FOLDER [OUT]`.

FOLDER holds MNIST as published: {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz. The same input gives the same
bytes (with the same version of zlib).
"""
from __future__ import annotations

import gzip
import io
import struct
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["build"]

CLASSES = (3, 7)


def build(folder: Path) -> bytes:
    """The archive before it is compressed: labels.csv, then {train,valid}/{3,7}/<index in MNIST>.png."""
    rows, files = ["name,label"], []
    for ours, theirs in ("train", "train"), ("valid", "t10k"):
        images = read_idx(folder / f"{theirs}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{theirs}-labels-idx1-ubyte.gz")
        for label, digit in enumerate(CLASSES):
            for i in np.flatnonzero(labels == digit):
                name = f"{ours}/{digit}/{i}.png"
                rows.append(f"{name},{label}")
                files.append((name, png(images[i])))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in [("labels.csv", "\n".join([*rows, ""]).encode()), *files]:
            member = tarfile.TarInfo(f"mnist_sample/{name}")  # its owner and its time are 0
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def read_idx(file: Path) -> NDArray[np.uint8]:
    """The array of bytes in an IDX file."""
    data = gzip.decompress(file.read_bytes())
    n_axes = data[3]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * n_axes).reshape(struct.unpack_from(f">{n_axes}I", data, 4))


def png(image: NDArray[np.uint8]) -> bytes:
    """A grey PNG file that does not compress its pixels: the archive then is smaller (2.6 instead of 2.9 MB)."""
    h, w = image.shape
    rows = np.insert(image, 0, 0, axis=1).tobytes()  # each row begins with its filter, 0 for none
    length, check = struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF), struct.pack(">I", zlib.adler32(rows))
    stored = b"\x78\x01\x01" + length + rows + check  # zlib's form for bytes as they are
    header = struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", stored), (b"IEND", b"")))


if __name__ == "__main__":
    source, *out = map(Path, sys.argv[1:])
    target = out[0] if out else Path(__file__).with_name("mnist_sample.tgz")
    compress = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9)  # a gzip header without name and time
    print(target, target.write_bytes(compress.compress(build(source)) + compress.flush()), "bytes")
