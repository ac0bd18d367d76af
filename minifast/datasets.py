"""`untar_data`: a data set by its URL, from a folder that is there, the package itself, or the network."""
from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO

from .archives import unpack
from .checks import as_path

__all__ = ["URLs", "untar_data", "data_folder"]


class URLs:
    """Addresses of fast.ai's data sets, for `untar_data`. MNIST_SAMPLE comes with minifast and needs no network.

    >>> URLs.PETS.rsplit("/", 1)[1]
    'oxford-iiit-pet'
    """

    _FASTAI, _S3 = "http://files.fast.ai/data/examples/", "https://s3.amazonaws.com/fast-ai-"
    # pictures and their classes
    MNIST_SAMPLE = _FASTAI + "mnist_sample"
    MNIST_TINY = _FASTAI + "mnist_tiny"
    MNIST_VAR_SIZE_TINY = _S3 + "imageclas/mnist_var_size_tiny"
    MNIST = _S3 + "imageclas/mnist_png"
    CIFAR = _FASTAI + "cifar10"
    CIFAR_100 = _S3 + "imageclas/cifar100"
    DOGS = _FASTAI + "dogscats"
    PETS = _S3 + "imageclas/oxford-iiit-pet"
    CALTECH_101 = _S3 + "imageclas/caltech_101"
    CARS = _S3 + "imageclas/stanford-cars"
    CUB_200_2011 = _S3 + "imageclas/CUB_200_2011"
    FLOWERS = _S3 + "imageclas/oxford-102-flowers"
    FOOD = _S3 + "imageclas/food-101"
    IMAGENETTE = _S3 + "imageclas/imagenette2"
    IMAGENETTE_160 = _S3 + "imageclas/imagenette2-160"
    IMAGENETTE_320 = _S3 + "imageclas/imagenette2-320"
    IMAGEWOOF = _S3 + "imageclas/imagewoof2"
    IMAGEWOOF_160 = _S3 + "imageclas/imagewoof2-160"
    IMAGEWOOF_320 = _S3 + "imageclas/imagewoof2-320"
    PLANET_SAMPLE = _FASTAI + "planet_sample"
    PLANET_TINY = _FASTAI + "planet_tiny"
    # pictures with masks, points or boxes
    CAMVID = _S3 + "imagelocal/camvid"
    CAMVID_TINY = _FASTAI + "camvid_tiny"
    BIWI_SAMPLE = _FASTAI + "biwi_sample"
    BIWI_HEAD_POSE = _S3 + "imagelocal/biwi_head_pose"
    COCO_SAMPLE = _S3 + "coco/coco_sample"
    COCO_TINY = _S3 + "coco/coco_tiny"
    PASCAL_2007 = _S3 + "imagelocal/pascal_2007"
    # tables and texts
    ADULT_SAMPLE = _FASTAI + "adult_sample"
    ML_SAMPLE = _FASTAI + "movie_lens_sample"
    HUMAN_NUMBERS = _FASTAI + "human_numbers"
    IMDB_SAMPLE = _FASTAI + "imdb_sample"
    IMDB = _S3 + "nlp/imdb"


# size and md5 of the first MiB, as fastai v1 publishes them
CHECKS = {
    URLs.MNIST_SAMPLE: (3214948, "2dbc7ec6f9259b583af0072c55816a88"),
    URLs.MNIST_TINY: (342207, "56143e8f24db90d925d82a5a74141875"),
    URLs.MNIST: (15683414, "03639f83c4e3d19e0a3a53a8a997c487"),
    URLs.CIFAR: (168168549, "a5f8c31371b63a406b23368042812d3c"),
    URLs.CIFAR_100: (169168619, "e5e65dcb54b9d3913f7b8a9ad6607e62"),
    URLs.DOGS: (839285364, "3e483c8d6ef2175e9d395a6027eb92b7"),
    URLs.PETS: (811706944, "e4db5c768afd933bb91f5f594d7417a4"),
}
BUNDLED = {URLs.MNIST_SAMPLE: "mnist_sample.tgz"}
SUFFIXES = (".tgz", ".tar.gz")
STALLED = 30  # seconds without a byte, then the download is given up


def data_folder() -> Path:
    """Where data sets are kept: `$MINIFAST_HOME/data`, by default `~/.minifast/data`.

    RuntimeError if there is no home folder and MINIFAST_HOME is not set.

    >>> data_folder().name
    'data'
    """
    try:
        return Path(os.environ.get("MINIFAST_HOME") or "~/.minifast").expanduser() / "data"
    except RuntimeError as e:   # there is no HOME, and nothing in the list of users
        raise RuntimeError(f"it is not known where data sets should go: {e} Set the environment variable MINIFAST_HOME "
                           "to a folder that can be written, or give dest=") from e


def untar_data(url: str, dest: Path | str | None = None, force_download: bool = False,
               sha256: str | None = None) -> Path:
    """The folder of a data set, unpacked: taken from where it is already, else downloaded.

    url: of an archive that holds one folder of its name; the end `.tgz` may be left out.
    dest: the folder that it is unpacked into; default: `data_folder()`, after a look at `./data`.
    force_download: download it, and replace what is there.
    sha256: what the archive's must be, in hexadecimal; default: it is not compared.

    `URLs.MNIST_SAMPLE` comes with minifast and is not downloaded.

    The folder appears whole or not at all, whatever breaks off and however many processes want it at once.
    ConnectionError if the archive cannot be had, ValueError if it is not what it should be (it is damaged, or unpacks
    to far more than its size), OSError if it cannot be unpacked where it should be.

    >>> path = untar_data(URLs.MNIST_SAMPLE, dest="data")
    >>> path.name, sorted(p.name for p in path.iterdir())
    ('mnist_sample', ['labels.csv', 'train', 'valid'])
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a string, such as URLs.MNIST_SAMPLE, not {url!r}")
    name = url.rstrip("/").rsplit("/", 1)[-1]
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    if name in ("", ".", ".."):
        raise ValueError(f"{url!r} does not end in the name of a data set")
    if dest is None and not force_download and _has_data(Path("data", name)):
        return as_path("data", Path("data", name)).absolute()
    folder = as_path("dest", data_folder() if dest is None else dest).expanduser()
    target = folder / name
    if _has_data(target) and not force_download:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # beside the target, so that a rename is all that is left to do; hidden, so that it is not taken for data
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=f".{name}-"))
    except OSError as e:
        raise type(e)(f"data sets cannot be put into {folder} ({e.strerror or e}): set the environment variable "
                      "MINIFAST_HOME to a folder that can be written, or give dest=") from e
    try:
        archive = scratch / "archive"
        if url in BUNDLED and not force_download:
            archive = Path(__file__).parent / "bundled" / BUNDLED[url]
        else:
            _download(url if url.endswith(SUFFIXES) else url + SUFFIXES[0], archive, target)
            _check(archive, url, sha256)
        unpack(archive, scratch / "unpacked", url, target)
        if not _has_data(scratch / "unpacked" / name):
            raise ValueError(f"the archive of {url} does not hold a folder {name}")
        _put(scratch / "unpacked" / name, target, scratch / "old", force_download)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _has_data(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _put(new: Path, target: Path, old: Path, replace: bool) -> None:
    """Move the folder into place; if another process was first, theirs is as good."""
    if replace:
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        if not _has_data(target):
            raise


def _download(url: str, file: Path, target: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=STALLED) as response, open(file, "wb") as out:
            length = int(response.headers.get("Content-Length") or 0)
            _copy(response, out, length, f"Downloading {url}")
            if length and out.tell() != length:
                raise ConnectionError(f"it broke off after {out.tell()} of {length} bytes")
    except (OSError, http.client.HTTPException, ValueError) as e:  # ValueError: not a URL
        raise ConnectionError(f"{url} cannot be downloaded: {e}. Without a network, unpack the archive elsewhere and "
                              f"put its folder at {target}") from e


def _copy(source: Any, out: BinaryIO, length: int, title: str) -> None:
    """Copy with a line of progress, rewritten in a terminal, printed once elsewhere."""
    drawn, terminal = time.monotonic(), False
    with contextlib.suppress(AttributeError, ValueError):   # there is none, or it is closed
        terminal = sys.stderr.isatty()
    _tell(f"{title} ({length / 2**20:.1f} MiB)" if length else title, "" if terminal else "\n")
    while block := source.read(2**16):
        out.write(block)
        if terminal and time.monotonic() - drawn > 0.2:
            drawn = time.monotonic()
            done = f"{out.tell() / length:.0%}" if length else f"{out.tell() / 2**20:.1f} MiB"
            _tell(f"\r{title}: {done}   ", "")
    if terminal:
        _tell("", "\n")


def _tell(text: str, end: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # gone, full, closed: a download does not need it
            print(text, end=end, file=sys.stderr, flush=True)


def _check(archive: Path, url: str, sha256: str | None) -> None:
    with open(archive, "rb") as f:
        if sha256 and (found := hashlib.file_digest(f, "sha256").hexdigest()) != sha256.lower():
            raise ValueError(f"the archive of {url} has the SHA-256 {found}, not {sha256}: it is another file")
        f.seek(0)
        size, start = os.fstat(f.fileno()).st_size, hashlib.md5(f.read(2**20), usedforsecurity=False).hexdigest()
    if url in CHECKS and (size, start) != CHECKS[url]:
        raise ValueError(f"the archive of {url} has {size} bytes and begins with the MD5 {start}, not {CHECKS[url]}: "
                         "it is damaged or another file")
