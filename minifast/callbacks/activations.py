"""What the layers give out while they are trained."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import plots
from ..utils import first_tensor
from .hook_callback import HookCallback

__all__ = ["ActivationStats"]


class ActivationStats(HookCallback):
    """Mean and standard deviation of each module's output, in each training batch: `stats` (2, modules, batches).

    NaN where a module did not run. They stay on their device during an epoch and are read at its end, in one go.

    learn: the learner of the run.
    modules: which modules (default: all that have parameters of their own).

    >>> learn = fake_learner(callback_fns=ActivationStats)
    >>> learn.fit(1)
    >>> learn.activation_stats.stats.shape
    torch.Size([2, 1, 2])
    """

    role = "watching"

    def __init__(self, learn: Any, modules: Sequence[nn.Module] | None = None) -> None:
        super().__init__(learn, modules)
        self.recording = False
        self.of_epoch: list[Tensor] = []  # (modules, 2) a batch
        self.measured = torch.empty(0, len(self.modules), 2)

    def on_train_begin(self, **kwargs: Any) -> None:
        super().on_train_begin()
        self.recording = False
        self.of_epoch = []
        self.measured = torch.empty(0, len(self.modules), 2)

    def hook(self, module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        """Mean and standard deviation."""
        if not self.recording or (x := first_tensor(output)) is None:
            return None
        return torch.stack(torch.std_mean(x.float(), correction=0)[::-1])

    def on_batch_begin(self, train: bool) -> None:
        self.recording = train
        for hook in self.hooks or ():
            hook.stored = None

    def on_batch_end(self, train: bool, last_loss: Tensor) -> None:
        self.recording = False
        if train and self.hooks is not None:
            nothing = last_loss.new_full((2,), float("nan"), dtype=torch.float32)
            self.of_epoch.append(torch.stack([nothing if s is None else s for s in self.hooks.stored]))

    def on_epoch_end(self) -> None:
        if self.of_epoch:
            self.measured = torch.cat([self.measured, torch.stack(self.of_epoch).cpu()])
            self.of_epoch = []

    def on_train_end(self, **kwargs: Any) -> None:
        super().on_train_end()
        self.on_epoch_end()

    @property
    def stats(self) -> Tensor:
        """(2, modules, batches): means, standard deviations."""
        return self.measured.permute(2, 1, 0)

    def plot_stats(self, ax: Any = None, return_fig: bool = False) -> Any:
        """Draw the means and the standard deviations over the batches, a line for each module; `ax` holds two axes."""
        import matplotlib.pyplot as plt
        axes = ax if ax is not None else plt.subplots(1, 2, figsize=(12, 4), layout="constrained")[1]
        for axis, name, lines in zip(axes, ("Mean", "Standard deviation"), self.stats.tolist(), strict=True):
            for i, (module, line) in enumerate(zip(self.modules, lines, strict=True)):
                axis.plot(line, label=f"{i} {type(module).__name__}")
            axis.set_xlabel("Batches processed")
            axis.set_ylabel(f"{name} of activations")
        axes[-1].legend(frameon=False)
        return plots.finished(axes[0].figure, ax, return_fig)
