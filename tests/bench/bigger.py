"""Bigger work: samples a second of a LeNet on MNIST-size pictures at batch 512, and of a small ResNet on 32x32."""
from __future__ import annotations

import time
from typing import Any

from timing import Section, in_turn, median, ratio

__all__ = ["run"]

# batches of a turn on the CPU and on a GPU, batch size, shape of a picture
WORK = {"LeNet": (6, 400, 512, (1, 28, 28)), "ResNet": (4, 200, 64, (3, 32, 32))}


def lenet() -> Any:
    """The convolutional net of Caffe's MNIST example, with ReLUs: 431,080 weights."""
    from torch import nn
    return nn.Sequential(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))


def resnet() -> Any:
    """ResNet-8 for 32x32 pictures: three stages of one block, 16 to 64 channels."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(i, o, 3, o // i, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
                                      nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o))
            self.short = nn.Identity() if i == o else nn.Conv2d(i, o, 1, o // i, bias=False)

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.short(x))
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 16),
                         Block(16, 32), Block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def train(argument: tuple[str, str, str | None, str]) -> Any:
    """A contender's training of one of the models on random pictures, already on the device."""
    who, what, amp, device = argument
    import torch
    from contenders import CONTENDERS, Job, finished

    torch.manual_seed(0)
    on_cpu, on_gpu, bs, shape = WORK[what]
    n = on_cpu if device == "cpu" else on_gpu
    some = [(torch.randn(bs, *shape).to(device), torch.randint(10, (bs,)).to(device)) for _ in range(min(n, 8))]
    batches = [some[i % len(some)] for i in range(n)]
    model = {"LeNet": lenet, "ResNet": resnet}[what]()

    def turn() -> dict[str, float]:
        go = CONTENDERS[who](Job(model, batches, lr=1e-3, device=device, amp=amp))
        start = time.perf_counter()
        go()
        finished(device)
        return {"s": (time.perf_counter() - start) / (n * bs)}
    return turn


def run(device: str, rounds: int = 5) -> list[Section]:
    """minifast's samples a second beside the bare loop's."""
    rows = []
    for what, (_, _, bs, _) in WORK.items():
        for amp in (None, "bf16", *(["fp16"] if device != "cpu" else [])):
            who = ("bare loop", "minifast")
            bare, ours = in_turn({w: ("bigger.train", (w, what, amp, device)) for w in who}, rounds).values()
            if isinstance(bare, str) or isinstance(ours, str):
                rows.append([f"{what}, {amp or 'fp32'}", "left out", "", ""])
            else:
                rows.append([f"{what}, batches of {bs}, {amp or 'fp32'}", f"{ratio(ours, bare, 's'):.2f}",
                             f"{1 / median(bare, 's'):,.0f}", f"{1 / median(ours, 's'):,.0f}"])
    return [Section("Bigger work", ["", "time ÷ bare", "bare loop, samples/s", "minifast, samples/s"], rows,
                    [f"Random pictures in memory; medians of {rounds} rounds in turn. minifast schedules, records and "
                     "shows its bar, the bare loop only trains."])]
