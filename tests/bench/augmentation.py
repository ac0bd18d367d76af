"""An epoch of augmented pictures: minifast beside torchvision picture by picture, kornia by batches, and fastai 2.

    python tests/bench/augmentation.py [--pictures 2000] [--size 128] [--rounds 5] [--threads 1] [--sheet FOLDER]

JPEG files of about 400x350, mirrored, turned, enlarged, seen from another side, with other brightness and contrast, at
`size`, in batches of 64. Every contender in turn, so many rounds; the median, the worst, and the processor time of this
process and of workers that have ended. What is not installed is left out. `--sheet` keeps a sheet of pictures of each.

What was seen (2026-11-26, two cores, otherwise idle; torch 2.14.1, torchvision 0.29, kornia 0.9.0, fastai 2.8.12),
2,000 pictures at 128, one thread, medians of three, seconds an epoch, the worst, and processor time:

    minifast                0.71   0.72   0.70      decoded once, 0.8 s before the first epoch
    minifast_from_disk      1.95   2.05   0.96      decoded in each epoch by kept workers (whose time is not counted)
    torchvision             3.53   3.59   4.72
    kornia                  3.33   3.44   4.78
    fastai                  4.14   4.18   6.00

The pictures: torchvision and kornia interpolate three times (resize, perspective, turn) and leave black corners;
kornia's perspective knows no reflection. minifast interpolates once and has no corners.
"""
from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

BATCH, WORKERS = 64, 2
Epoch = Callable[[], Iterable[Any]]     # batches (x, y), x float (n, 3, size, size)


def make_pictures(folder: Path, n: int) -> None:
    """`n` smooth pictures with some noise, of about 400x350, some upright."""
    rng = np.random.default_rng(0)
    for i in range(n):
        h, w = 350 + int(rng.integers(-20, 21)), 400 + int(rng.integers(-20, 21))
        size = (h, w) if i % 3 == 0 else (w, h)
        small = Image.fromarray(rng.integers(0, 256, (24, 28, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(int)
        path = folder / "ab"[i % 2] / f"{i:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        noisy = pixels + rng.integers(-12, 13, pixels.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=88)


def minifast(folder: Path, size: int) -> Epoch:
    """Decoded once, when the data is made."""
    from minifast.vision import ImageDataBunch, get_transforms
    data = ImageDataBunch.from_folder(folder, valid_pct=0.01, size=size, ds_tfms=get_transforms(), bs=BATCH, seed=0,
                                      device="cpu")
    return lambda: data.train_dl


def minifast_from_disk(folder: Path, size: int) -> Epoch:
    """Decoded again in each epoch, by worker processes, as where there are more pictures than memory."""
    from minifast.vision import ImageDataBunch, get_transforms
    data = ImageDataBunch.from_folder(folder, valid_pct=0.01, size=size, ds_tfms=get_transforms(), bs=BATCH, seed=0,
                                      device="cpu", max_memory=0, num_workers=WORKERS)
    return lambda: data.train_dl


def _torch_loader(folder: Path, tfms: list[Any]) -> Any:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2
    return torch.utils.data.DataLoader(ImageFolder(folder, v2.Compose(tfms)), BATCH, True, num_workers=WORKERS)


def torchvision(folder: Path, size: int) -> Epoch:
    """v2's transforms of each picture, in the workers of a DataLoader."""
    from torchvision.transforms import InterpolationMode, v2
    smooth = InterpolationMode.BILINEAR
    dl = _torch_loader(folder, [
        v2.Resize(size), v2.RandomCrop(size), v2.RandomHorizontalFlip(), v2.RandomPerspective(0.2, 0.75, smooth),
        v2.RandomApply([v2.RandomAffine(10, scale=(1, 1.1), interpolation=smooth)], 0.75),
        v2.RandomApply([v2.ColorJitter(0.2, 0.2)], 0.75), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return lambda: dl


def kornia(folder: Path, size: int) -> Epoch:
    """The workers decode, resize and crop; the batch is augmented in the training process."""
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
    from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms
    dls = ImageDataLoaders.from_folder(folder, valid_pct=0.01, item_tfms=Resize(size), device="cpu", bs=BATCH,
                                       batch_tfms=aug_transforms(size=size), num_workers=WORKERS)
    return lambda: dls.train


CONTENDERS = (minifast, minifast_from_disk, torchvision, kornia, fastai)


def processor_time() -> float:
    """Of this process and of the workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def keep_sheet(name: str, epoch: Epoch, folder: Path) -> None:
    """16 pictures of the first batch, side by side."""
    x = next(iter(epoch()))[0][:16].clamp(0, 1)
    n, channels, h, w = x.shape
    sheet = x.view(4, n // 4, channels, h, w).permute(2, 0, 3, 1, 4).reshape(channels, 4 * h, n // 4 * w)
    Image.fromarray((sheet.permute(1, 2, 0) * 255).byte().numpy()).save(folder / f"{name}.png")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in ("pictures", 2000), ("size", 128), ("rounds", 5), ("threads", 1):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_pictures(folder, args.pictures)
        epochs = {}
        for contender in CONTENDERS:
            begin = time.perf_counter()
            try:
                epochs[contender.__name__] = contender(folder, args.size)
            except ImportError as e:
                print(f"{contender.__name__}: left out, {e}")
                continue
            print(f"{contender.__name__}: made in {time.perf_counter() - begin:.1f} s", flush=True)
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
        for _ in range(args.rounds):
            for name, epoch in epochs.items():
                begin, used = time.perf_counter(), processor_time()
                n = sum(len(y) for _, y in epoch())
                per = args.pictures / n     # what is left out at the end of an epoch is counted too
                seconds[name].append((per * (time.perf_counter() - begin), per * (processor_time() - used)))
        for name, rows in seconds.items():
            wall, used = (sorted(column) for column in zip(*rows, strict=True))
            print(f"{name:20} median {wall[len(wall) // 2]:6.2f} s, worst {wall[-1]:6.2f} s, "
                  f"processor {used[len(used) // 2]:6.2f} s")
            if args.sheet:
                args.sheet.mkdir(parents=True, exist_ok=True)
                keep_sheet(name, epochs[name], args.sheet)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {args.pictures} pictures at {args.size}, "
          f"{args.threads} thread(s)")


if __name__ == "__main__":
    main()
