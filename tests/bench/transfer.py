"""Transfer learning: a resnet18 body with a new head, batches of 32, 128 px; the body frozen, then all trained."""
from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from augmentation import make_pictures
from timing import Section, in_turn, medians, table

__all__ = ["run"]

CONTENDERS = ["hand-written loop", "hand-written, fused", "minifast", "fastai 2", "Lightning"]
BS, SIZE, LR = 32, 128, 1e-3
PICTURES = {"train": 64, "valid": 32}
PHASES = {"frozen": "from the folder to the end of an epoch with a frozen body", "whole": "then an epoch of everything"}


def head() -> Any:
    """A new head for two classes, the same for all."""
    from torch import nn
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(512), nn.Dropout(0.25),
                         nn.Linear(512, 512), nn.ReLU(), nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, 2))


def learner(name: str, data: Any) -> Any:
    """minifast's, or fastai 2's. Both have the same methods."""
    if name == "minifast":
        from minifast.vision import accuracy, cnn_learner, models
        return cnn_learner(data, models.resnet18, pretrained=False, custom_head=head(), metrics=accuracy)
    import warnings
    warnings.filterwarnings("ignore")
    from fastai.vision.all import accuracy, resnet18, vision_learner
    return vision_learner(data, resnet18, pretrained=False, custom_head=head(), metrics=accuracy)


def phases(name: str, path: str, device: str) -> tuple[Any, Any]:
    """A contender's two phases, as functions."""
    from contenders import CONTENDERS, Job, from_pictures
    data = from_pictures(name, path, device, BS)
    if name in ("minifast", "fastai 2"):
        learn = learner(name, data["train"])
        learn.freeze()      # the batch norms of the body go on training: the default of both, and Lightning's
        return lambda: learn.fit_one_cycle(1, LR), lambda: (learn.unfreeze(), learn.fit_one_cycle(1, LR))
    from torch import nn
    from torchvision.models import resnet18
    body = nn.Sequential(*list(resnet18(weights=None).children())[:-2])
    model = nn.Sequential(body, head())

    def train(freeze: bool) -> Any:
        for module in body.modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(not freeze or isinstance(module, nn.BatchNorm2d))
        return CONTENDERS[name](Job(model, **data, lr=LR, device=device))()
    return lambda: train(True), lambda: train(False)


def one(argument: tuple[str, str, str]) -> Any:
    """Seconds of a contender's phases."""
    import torch
    from contenders import finished
    torch.set_num_threads(1)
    device = argument[2]

    def turn() -> dict[str, float]:
        torch.manual_seed(0)
        times = [time.perf_counter()]
        for phase in phases(*argument):
            phase()
            finished(device)
            times.append(time.perf_counter())
        return {"frozen": times[1] - times[0], "whole": times[2] - times[1]}
    return turn


def run(device: str, rounds: int = 2) -> list[Section]:
    """Both phases of every contender, a table each."""
    with tempfile.TemporaryDirectory() as folder:
        for part, n in PICTURES.items():
            make_pictures(Path(folder) / part, n, SIZE, SIZE, 0)
        measured = in_turn({name: ("transfer.one", (name, folder, device)) for name in CONTENDERS}, rounds)
    note = (f"{PICTURES['train']} JPEG files of {SIZE}x{SIZE} to train on, {PICTURES['valid']} to validate, batches of "
            f"{BS}, one thread, one cycle a phase; medians of {rounds} rounds in turn. The weights are random, since "
            "pretrained ones would have to be downloaded: the work is the same, and only the time is compared. In the "
            "frozen body the batch norms are trained, as by default in minifast, fastai 2 and Lightning.")
    return [Section(f"Transfer learning, {what}", ["", "÷ minifast", "÷ hand-written", "s"],
                    table(measured, key, ["minifast", "hand-written loop"], "{:.2f}"),
                    [note] if key == "frozen" else [], medians(measured, key), f"s, resnet18, {key}")
            for key, what in PHASES.items()]
