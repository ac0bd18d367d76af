"""An epoch of augmented pictures: minifast beside torchvision picture by picture, kornia by batches, and fastai 2.

JPEG files, mirrored, turned, enlarged, seen from another side, with other brightness and contrast, in batches of 64.
The pictures: torchvision and kornia interpolate three times (resize, perspective, turn) and leave black corners;
kornia's perspective knows no reflection. minifast interpolates once and has no corners. To see it:
`python tests/bench/augmentation.py FOLDER` keeps a sheet of pictures of each.
"""
from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timing import Section, in_turn, table

__all__ = ["run", "make_pictures"]

BATCH, WORKERS = 64, 2
SIZES = {28: (2000, 30, 34, 2), 128: (1000, 350, 400, 20)}     # by size: how many, and of which size the files are
Epoch = Callable[[], Iterable[Any]]     # batches (x, y), x float (n, 3, size, size)


def make_pictures(folder: Path, n: int, height: int, width: int, spread: int) -> None:
    """`n` smooth pictures with some noise in two classes, a third of them upright; no side differs by over `spread`."""
    rng = np.random.default_rng(0)
    for i in range(n):
        h, w = (side + int(rng.integers(-spread, spread + 1)) for side in (height, width))
        size = (h, w) if i % 3 == 0 else (w, h)
        small = Image.fromarray(rng.integers(0, 256, (24, 28, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(int)
        path = folder / "ab"[i % 2] / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noisy = pixels + rng.integers(-12, 13, pixels.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=88)


def minifast(folder: Path, size: int, **kwargs: Any) -> Epoch:
    """Decoded once, when the data is made."""
    from minifast.vision import ImageDataBunch, get_transforms
    data = ImageDataBunch.from_folder(folder, valid_pct=0.01, size=size, ds_tfms=get_transforms(), bs=BATCH, seed=0,
                                      device="cpu", **kwargs)
    return lambda: data.train_dl


def minifast_from_disk(folder: Path, size: int) -> Epoch:
    """Decoded again in each epoch, by worker processes, as where there are more pictures than memory."""
    return minifast(folder, size, max_memory=0, num_workers=WORKERS)


def _torch_loader(folder: Path, tfms: list[Any]) -> Any:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2
    return DataLoader(ImageFolder(folder, v2.Compose(tfms)), BATCH, True, num_workers=WORKERS)


def torchvision(folder: Path, size: int) -> Epoch:
    """v2's transforms of each picture, in the workers of a DataLoader."""
    import torch
    from torchvision.transforms import InterpolationMode, v2
    smooth = InterpolationMode.BILINEAR
    dl = _torch_loader(folder, [
        v2.Resize(size), v2.RandomCrop(size), v2.RandomHorizontalFlip(), v2.RandomPerspective(0.2, 0.75, smooth),
        v2.RandomApply([v2.RandomAffine(10, scale=(1, 1.1), interpolation=smooth)], 0.75),
        v2.RandomApply([v2.ColorJitter(0.2, 0.2)], 0.75), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return lambda: dl


def kornia(folder: Path, size: int) -> Epoch:
    """The workers decode, resize and crop; the batch is augmented in the training process."""
    import torch
    from kornia import augmentation as ka
    from torchvision.transforms import v2
    dl = _torch_loader(folder, [v2.Resize(size), v2.RandomCrop(size), v2.ToImage(),
                                v2.ToDtype(torch.float32, scale=True)])
    change = torch.nn.Sequential(
        ka.RandomHorizontalFlip(), ka.RandomPerspective(0.2, p=0.75),
        ka.RandomAffine(10, scale=(1.0, 1.1), p=0.75, padding_mode="reflection"), ka.ColorJiggle(0.2, 0.2, p=0.75))
    return lambda: ((change(x), y) for x, y in dl)


def fastai(folder: Path, size: int) -> Epoch:
    """Resized by its workers, `aug_transforms` by batches."""
    import warnings

    from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms
    warnings.filterwarnings("ignore")
    dls = ImageDataLoaders.from_folder(folder, valid_pct=0.01, item_tfms=Resize(size), device="cpu", bs=BATCH,
                                       batch_tfms=aug_transforms(size=size), num_workers=WORKERS)
    return lambda: dls.train


CONTENDERS = {"minifast": minifast, "minifast, from disk": minifast_from_disk, "torchvision": torchvision,
              "kornia": kornia, "fastai 2": fastai}


def processor_time() -> float:
    """Seconds of this process and of its workers, those that have ended too."""
    import psutil
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    alive = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(u.ru_utime + u.ru_stime for u in used) + sum(t.user + t.system for t in alive)


def one(argument: tuple[str, Path, int]) -> Any:
    """An epoch of a contender: wall time, processor time, and how long the data took to make."""
    name, *what = argument
    import torch
    torch.set_num_threads(1)
    CONTENDERS[name](*what)     # imports
    begin = time.perf_counter()
    epoch = CONTENDERS[name](*what)
    made, n_files = time.perf_counter() - begin, SIZES[what[-1]][0]

    def turn() -> dict[str, float]:
        begin, used = time.perf_counter(), processor_time()
        n = sum(len(y) for _, y in epoch())
        per = n_files / n   # what is left out at the end of an epoch is counted too
        return {"s": per * (time.perf_counter() - begin), "cpu": per * (processor_time() - used), "made": made}
    return turn


def run(device: str, rounds: int = 3) -> list[Section]:
    """A table for each size."""
    if device != "cpu":
        return []
    sections = []
    for size, (n, height, width, spread) in SIZES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            make_pictures(folder, n, height, width, spread)
            measured = in_turn({name: ("augmentation.one", (name, folder, size)) for name in CONTENDERS}, rounds)
        rows = table(measured, "s", ["minifast", "torchvision"], "{:.2f}", cpu="{:.2f}", made="{:.2f}")
        columns = ["", "÷ minifast", "÷ torchvision", "s an epoch", "CPU s", "s to make the data"]
        sections.append(Section(f"Augmented pictures, {size} px", columns, rows, [
            f"{n:,} JPEG files of about {width}x{height}, at {size} px in batches of {BATCH}, nothing trained, one "
            f"thread; medians of {rounds} rounds in turn. minifast decodes once, when the data is made (last column); "
            f"all others, and minifast from disk, in each epoch, by {WORKERS} workers (in the CPU seconds)."]))
    return sections


def keep_sheets(to: Path, size: int = 128) -> None:
    """16 pictures of each contender's first batch, side by side."""
    with tempfile.TemporaryDirectory() as temporary:
        make_pictures(Path(temporary), BATCH * 2, *SIZES[size][1:])
        for name, contender in CONTENDERS.items():
            x = next(iter(contender(Path(temporary), size)()))[0][:16].clamp(0, 1)
            n, channels, h, w = x.shape
            sheet = x.view(4, n // 4, channels, h, w).permute(2, 0, 3, 1, 4).reshape(channels, 4 * h, n // 4 * w)
            Image.fromarray((sheet.permute(1, 2, 0) * 255).byte().numpy()).save(to / f"{name}.png")


if __name__ == "__main__":
    keep_sheets(Path(sys.argv[1]))
