"""An epoch of the main job from memory at batch size 512, in one process and in two, each on one thread."""
from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from main_job import sample
from timing import Rounds, Section, median, ratio, version

__all__ = ["run"]

BS, EPOCHS = 512, 3
CONTENDERS = {"minifast": ["minifast"], "DDP by hand": ["torch"], "Lightning": ["lightning"],
              "accelerate": ["accelerate"]}


def batches(part: tuple[int, int] | None) -> list[Any]:
    """The training batches in memory, whole or one process's part of each."""
    import torch

    from minifast.vision import ImageDataBunch
    torch.manual_seed(0)
    data = ImageDataBunch.from_folder(os.environ["SAMPLE"], bs=BS, device="cpu")
    first, after = part or (0, BS)
    return [(x[first:after].clone(memory_format=torch.contiguous_format), y[first:after].clone())
            for x, y in data.train_dl]


def work(name: str) -> float:
    """Seconds of the quickest epoch of a contender in this process, one of `WORLD_SIZE`."""
    import torch
    import torch.nn.functional as F
    from contenders import Batches, small_cnn
    torch.set_num_threads(1)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    model: Any = small_cnn()
    mine = batches((rank * BS // world, (rank + 1) * BS // world) if world > 1 else None)
    seconds: list[float] = []
    if name == "minifast":
        from minifast.basics import AdamW, CrossEntropyFlat, DataBunch, Learner
        from minifast.callback import Callback

        class Clock(Callback):
            def on_epoch_begin(self) -> None: self.start = time.perf_counter()
            def on_epoch_end(self) -> None: seconds.append(time.perf_counter() - self.start)
        whole = batches(None)
        x, y = (torch.cat([batch[i] for batch in whole]) for i in (0, 1))
        data = DataBunch.create(torch.utils.data.TensorDataset(x, y), bs=BS, device="cpu", seed=0)
        learn = Learner(data, model, opt_func=AdamW, loss_func=CrossEntropyFlat(), silent=True).to_distributed()
        learn.fit(EPOCHS, 1e-2, callbacks=[Clock()])
        return min(seconds)
    if name == "Lightning":
        import lightning

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.net = model
            def training_step(self, batch: Any, i: int) -> Any: return F.cross_entropy(self.net(batch[0]), batch[1])
            def configure_optimizers(self) -> Any: return torch.optim.AdamW(self.net.parameters(), 1e-2)
            def on_train_epoch_start(self) -> None: self.start = time.perf_counter()
            def on_train_epoch_end(self) -> None: seconds.append(time.perf_counter() - self.start)
        trainer = lightning.Trainer(accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto",
                                    max_epochs=EPOCHS, logger=False, enable_checkpointing=False,
                                    use_distributed_sampler=False, enable_progress_bar=False,
                                    enable_model_summary=False)
        trainer.fit(Module(), Batches(mine))    # it takes a list for as many loaders
        return min(seconds)
    if name == "accelerate":
        from accelerate import Accelerator
        accelerator = Accelerator(cpu=True)
        opt = torch.optim.AdamW(model.parameters(), 1e-2, fused=True)
        model, opt = accelerator.prepare(model, opt)
        backward = accelerator.backward
    else:
        if world > 1:
            torch.distributed.init_process_group("gloo")
            model = torch.nn.parallel.DistributedDataParallel(model)
        opt = torch.optim.AdamW(model.parameters(), 1e-2, fused=True)
        backward = torch.Tensor.backward
    for _ in range(EPOCHS):
        start = time.perf_counter()
        for x, y in mine:
            backward(F.cross_entropy(model(x), y))
            opt.step()
            opt.zero_grad()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measured(name: str, nproc: int) -> float | str:
    """Seconds of an epoch of all processes together (the slowest one's), or why there is none."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    started = []
    for i in range(nproc):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "SAMPLE": sample()}
        if nproc > 1:
            env |= {"RANK": str(i), "LOCAL_RANK": str(i), "WORLD_SIZE": str(nproc), "LOCAL_WORLD_SIZE": str(nproc),
                    "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
                    "TORCHELASTIC_RUN_ID": "bench", "GROUP_RANK": "0"}
        started.append(subprocess.Popen([sys.executable, __file__, name], env=env, cwd=Path(__file__).parent,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    outs = [p.communicate() for p in started]
    if any(p.returncode for p in started):
        lines = outs[0][1].decode().strip().splitlines()
        why = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        print(f"  {name} is left out of {nproc}: {why}", file=sys.stderr)
        return why
    return float(max(pickle.loads(bytes.fromhex(out.decode().split()[-1])) for out, _ in outs))


def run(device: str, rounds: int = 3) -> list[Section]:
    """Two processes against one, as ratios in one run."""
    if device != "cpu":
        return []
    found: dict[tuple[str, int], Rounds | str] = {}
    for _ in range(rounds):
        for name in CONTENDERS:
            for nproc in (1, 2):
                value = measured(name, nproc)
                held = found.setdefault((name, nproc), [])
                if isinstance(value, str) or isinstance(held, str):
                    found[name, nproc] = str(value)
                else:
                    held.append({"s": value})
    rows = []
    for name, packages in CONTENDERS.items():
        one, two, ours = found[name, 1], found[name, 2], found["minifast", 2]
        if isinstance(one, str) or isinstance(two, str) or isinstance(ours, str):
            seconds = ["left out" if isinstance(r, str) else f"{median(r, 's'):.2f}" for r in (one, two)]
            cells = ["left out", "", *seconds]
        else:
            cells = [f"{ratio(one, two, 's'):.2f}", f"{ratio(two, ours, 's'):.2f}", f"{median(one, 's'):.2f}",
                     f"{median(two, 's'):.2f}"]
        rows.append([f"{name} {version(packages[0])}", *cells])
    columns = ["", "times as fast", "two ÷ minifast", "one, s an epoch", "two"]
    return [Section("One process and two, one thread each", columns, rows,
                    [f"An epoch of the main job from memory at batch size {BS}, no validation; the quickest of "
                     f"{EPOCHS} epochs, medians of {rounds} rounds in turn."])]


if __name__ == "__main__":
    print(pickle.dumps(work(sys.argv[1])).hex())
