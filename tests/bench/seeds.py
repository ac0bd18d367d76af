"""The main job over ten seeds: is one cycle better than a constant learning rate, and by how much?"""
from __future__ import annotations

import statistics
from typing import Any

from timing import Section, in_turn

__all__ = ["run"]

ARMS = {"fit_one_cycle(2, 5e-2)": ("fit_one_cycle", 5e-2), "fit(2, 5e-2)": ("fit", 5e-2), "fit(2, 5e-3)": ("fit", 5e-3)}


def arms(device: str) -> Any:
    """All arms from the same seed: same initial weights, same order of batches; a seed a turn, from 0 on."""
    import torch

    from minifast.vision import ImageDataBunch, Learner, URLs, accuracy, simple_cnn, untar_data

    path, seed = untar_data(URLs.MNIST_SAMPLE), -1

    def turn() -> dict[str, tuple[float, float]]:
        nonlocal seed
        seed += 1
        found = {}
        for arm, (method, lr) in ARMS.items():
            torch.manual_seed(seed)
            data = ImageDataBunch.from_folder(path, device=device)
            learn = Learner(data, simple_cnn((3, 16, 16, 2)), metrics=[accuracy], silent=True)
            getattr(learn, method)(2, lr)
            found[arm] = (float(learn.recorder.metrics[-1][0]), float(learn.recorder.val_losses[-1]))
        return found
    return turn


def run(device: str, n: int = 10) -> list[Section]:
    """Mean and standard deviation of accuracy and validation loss over the seeds."""
    turns = in_turn({"seeds": ("seeds.arms", device)}, n, warm_up=0)["seeds"]
    if isinstance(turns, str):
        raise RuntimeError(turns)
    rows = []
    for arm in ARMS:
        accuracies, losses = zip(*(turn[arm] for turn in turns), strict=True)
        both = (f"{statistics.mean(x):.4f} ± {statistics.stdev(x):.4f}" for x in (accuracies, losses))
        rows.append([f"`{arm}`", *both, f"{min(accuracies):.4f}"])
    return [Section("The main job over ten seeds", ["", "accuracy", "validation loss", "lowest accuracy"], rows,
                    [f"Seeds 0 to {n - 1}, mean ± standard deviation; `simple_cnn((3, 16, 16, 2))`, batch size 64."])]
