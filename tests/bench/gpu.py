"""MNIST to 99 % on a GPU: seconds of training, beside a loop by hand and one that replays a CUDA graph.

    python tests/bench/gpu.py --mnist data/mnist [--rounds 5]

All train the same small network in bf16 by one cycle over the whole training set, which lies on the GPU, for so many
epochs that the test accuracy is at least 99 %; each ends with one pass over the test set. The first run of each, which
compiles and captures, is not counted.
"""
from __future__ import annotations

import argparse
import copy
import gzip
import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset

from minifast.data import DataBunch
from minifast.learner import Learner
from minifast.losses import CrossEntropyFlat
from minifast.metrics import accuracy

BS, LR, EPOCHS = 512, 1e-2, 3
Train = Callable[[int], float]      # of a seed: the accuracy


def idx(file: Path) -> Tensor:
    """A file of MNIST's format as bytes."""
    data = gzip.decompress(file.read_bytes())
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape).copy())


def pictures(folder: Path, part: str, n: int | None) -> tuple[Tensor, Tensor]:
    x = (idx(folder / f"{part}-images-idx3-ubyte.gz")[:n, None].float() / 255 - 0.1307) / 0.3081
    return x, idx(folder / f"{part}-labels-idx1-ubyte.gz")[:n].long()


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 9, 10)).to(memory_format=torch.channels_last)


def by_minifast(train: TensorDataset, valid: TensorDataset, device: str, compiled: bool) -> Train:
    start = network()

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        data = DataBunch.create(train, valid, bs=BS, val_bs=5000, device=device, seed=seed)
        learn = Learner(data, model, loss_func=CrossEntropyFlat(), metrics=[accuracy], silent=True)
        learn.model.load_state_dict(start.state_dict())
        learn.to_bf16()
        if compiled and seed == 0:  # in place, so that it holds for the learners after this one
            learn.compile(mode="reduce-overhead")
        learn.fit_one_cycle(EPOCHS, LR)
        return float(learn.recorder.metrics[-1][0])

    model = copy.deepcopy(start).to(device)
    return run


def by_hand(train: TensorDataset, valid: TensorDataset, device: str, graph: bool, compiled: bool = False) -> Train:
    start, loss_func = network(), nn.CrossEntropyLoss()
    x, y = (t.to(device) for t in train.tensors)
    x_valid, y_valid = (t.to(device) for t in valid.tensors)
    steps = len(x) // BS

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model.load_state_dict(start.state_dict())
        lr: Any = torch.tensor(LR / 25, device=device) if graph else LR / 25
        opt = torch.optim.Adam(model.parameters(), lr, betas=(0.95, 0.99), weight_decay=1e-2, fused=True,
                               capturable=graph, decoupled_weight_decay=True)
        # momentum stays where it is in a captured graph, which only reads a learning rate that is a tensor
        schedule = OneCycleLR(opt, LR, total_steps=EPOCHS * steps, cycle_momentum=not graph)
        batch_x, batch_y = x[:BS].clone(), y[:BS].clone()

        def step() -> None:
            with torch.autocast(device, torch.bfloat16):
                loss = loss_func(forward(batch_x), batch_y)
            loss.backward()
            opt.step()
            opt.zero_grad()

        model.train()
        if graph:
            warm = torch.cuda.Stream()
            warm.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(warm):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(warm)
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                step()
            model.load_state_dict(start.state_dict())
            for state in opt.state.values():
                for t in state.values():
                    t.zero_()
        began[0] = time.perf_counter()
        for _ in range(EPOCHS):
            order = torch.randperm(len(x), device=device)
            for i in range(steps):
                rows = order[i * BS:(i + 1) * BS]
                batch_x.copy_(x[rows])
                batch_y.copy_(y[rows])
                captured.replay() if graph else step()
                schedule.step()
        model.eval()
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            right = sum((forward(a).argmax(1) == b).sum()
                        for a, b in zip(x_valid.split(5000), y_valid.split(5000), strict=True))
        return float(right) / len(x_valid)

    model = copy.deepcopy(start).to(device)
    forward = torch.compile(model, mode="reduce-overhead") if compiled else model
    return run


began = [0.0]   # when the training proper began: a graph is captured before


def main() -> None:
    p = argparse.ArgumentParser("tests/bench/gpu.py", description=__doc__)
    p.add_argument("--mnist", type=Path, required=True, help="the folder with MNIST's four files")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--device", default="cuda")
    p.add_argument("--pictures", type=int, help="only the first so many, to try it without a GPU")
    args = p.parse_args()
    train, valid = (TensorDataset(*(t.to(args.device) for t in pictures(args.mnist, part, args.pictures)))
                    for part in ("train", "t10k"))
    gpu = args.device == "cuda"
    runs: dict[str, Train] = {"minifast": by_minifast(train, valid, args.device, False),
                              "by hand": by_hand(train, valid, args.device, False)}
    if gpu:
        runs |= {"minifast, compiled with CUDA graphs": by_minifast(train, valid, args.device, True),
                 "by hand, compiled with CUDA graphs": by_hand(train, valid, args.device, False, True),
                 "by hand, the whole step one CUDA graph": by_hand(train, valid, args.device, True)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    accuracies: dict[str, list[float]] = {name: [] for name in runs}
    for seed in range(-1, args.rounds):
        for name, run in runs.items():
            began[0] = time.perf_counter()
            reached = run(seed + 1)
            if gpu:
                torch.cuda.synchronize()
            if seed >= 0:
                seconds[name].append(time.perf_counter() - began[0])
                accuracies[name].append(reached)
    print(torch.cuda.get_device_name() if gpu else "CPU", "torch", torch.__version__)
    for name, took in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(took, seconds["by hand"], strict=True))
        print(f"{name}: {statistics.median(took):.3f} s ({min(took):.3f} to {max(took):.3f}), {ratio:.2f} of by hand, "
              f"accuracy {statistics.mean(accuracies[name]):.4f} (lowest {min(accuracies[name]):.4f})")


if __name__ == "__main__":
    main()
