"""A callback with a hook on each of some layers."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..callback import LearnerCallback
from ..hooks import Hooks
from ..torch_private import is_compiled

__all__ = ["HookCallback"]


class HookCallback(LearnerCallback):
    """Has `self.hook(module, inputs, output)`, to be overridden, called at each forward pass of `modules` in a run.

    `modules`: default all with parameters of their own. What the calls returned last is in `self.hooks.stored`. The
    hooks come off when the run ends, however it ends. RuntimeError for a compiled model, which would not call them.

    >>> class Means(HookCallback):
    ...     def hook(self, module, inputs, output): return output.mean().item()
    ...     def on_epoch_end(self): self.means = self.hooks.stored
    >>> learn = fake_learner()
    >>> learn.fit(1, callbacks=[Means(learn)])
    >>> len(learn.means.means)
    1
    """

    hooks: Hooks | None = None

    def __init__(self, learn: Any, modules: Sequence[nn.Module] | None = None) -> None:
        super().__init__(learn)
        self.modules = modules or [m for m in learn.model.modules() if list(m.parameters(recurse=False))]

    def hook(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """What is done with a module's output (without its graph)."""

    def on_train_begin(self, **kwargs: Any) -> None:
        if any(is_compiled(m) for m in self.learn.model.modules()):
            raise RuntimeError(f"compiled code calls no hooks of a {type(self).__name__}: learn.compile(False) "
                               "turns it off; a model from torch.compile is to be replaced by the one it was made of")
        self.hooks = Hooks(self.modules, self.hook)

    def on_train_end(self, **kwargs: Any) -> None:
        if self.hooks is not None:
            self.hooks.remove()
        self.hooks = None
