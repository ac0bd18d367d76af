"""Looking inside a model: hooks on its layers, and the shapes that go through it."""
from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .kinds import behind
from .layers import flatten_model
from .torch_private import hooks_on, uncompiled
from .utils import first_tensor, to_detach

__all__ = ["Hook", "Hooks", "hook_output", "hook_outputs", "dummy_eval", "model_sizes", "without_hooks_of"]

HookFunc = Callable[[nn.Module, Any, Any], Any]


class Hook:
    """Keeps what `hook_func(module, inputs, output)` returned last in `stored`.

    It is called at each forward pass of `module`, or with `is_forward=False` at each backward pass, with the gradients
    of both. Removed by `remove`, or at the end of a `with` block. `detach`: it gets tensors without their graph.

    >>> layer = nn.Linear(3, 2)
    >>> with Hook(layer, lambda module, inputs, output: output.mean().item()) as hook:
    ...     _ = layer(torch.ones(4, 3))
    >>> isinstance(hook.stored, float)
    True
    """

    def __init__(self, module: nn.Module, hook_func: HookFunc, is_forward: bool = True, detach: bool = True) -> None:
        self.hook_func, self.detach, self.stored = hook_func, detach, None
        register = module.register_forward_hook if is_forward else module.register_full_backward_hook
        self._handle: Any = register(self._call)

    def _call(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.detach:
            inputs, output = to_detach((inputs, output), cpu=False)
        self.stored = self.hook_func(module, inputs, output)

    def remove(self) -> None:
        """Take the hook off; `stored` stays. A second time does nothing."""
        self._handle.remove()

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Hooks:
    """A `Hook` on each of the modules, together: `hooks[i]`, `hooks.stored` (a list), `remove`, `with`.

    >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    >>> with Hooks(model, lambda module, inputs, output: output.shape) as hooks:
    ...     _ = model(torch.ones(4, 3))
    >>> hooks.stored
    [torch.Size([4, 2]), torch.Size([4, 2])]
    """

    def __init__(self, modules: Iterable[nn.Module], hook_func: HookFunc, is_forward: bool = True,
                 detach: bool = True) -> None:
        self.hooks: list[Hook] = []
        try:
            for module in modules:
                self.hooks.append(Hook(module, hook_func, is_forward, detach))
        except BaseException:
            self.remove()
            raise

    @property
    def stored(self) -> list[Any]:
        """What each hook keeps."""
        return [hook.stored for hook in self.hooks]

    def remove(self) -> None:
        """Take them all off."""
        for hook in self.hooks:
            hook.remove()

    def __getitem__(self, i: int) -> Hook:
        return self.hooks[i]

    def __len__(self) -> int:
        return len(self.hooks)

    def __iter__(self) -> Iterator[Hook]:
        return iter(self.hooks)

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@contextlib.contextmanager
def without_hooks_of(model: nn.Module, owners: Collection[Any]) -> Iterator[None]:
    """Inside, the model's layers do not call the hooks that are methods of `owners`, `Hook`s of such, or functions that
    hold one of them.

    >>> class Watcher:
    ...     def hook(self, *args): print("called")
    >>> layer, watcher = nn.Linear(1, 1), Watcher()
    >>> handle = layer.register_forward_hook(watcher.hook)
    >>> with without_hooks_of(layer, [watcher]): _ = layer(torch.ones(1))
    >>> _ = layer(torch.ones(1))
    called
    """
    ids = {id(x) for x in owners}
    kept = [(hooks, dict(hooks)) for m in model.modules() for hooks in hooks_on(m)]
    try:
        for hooks, before in kept:
            for number, hook in before.items():
                if _is_of(hook, ids):
                    del hooks[number]
        yield
    finally:
        for hooks, before in kept:
            if len(hooks) != len(before):
                hooks.clear()
                hooks.update(before)


def _is_of(hook: Any, ids: set[int], depth: int = 4) -> bool:
    if id(hook) in ids:
        return True
    of = behind(hook)
    parts = [of.hook_func] if isinstance(of, Hook) else [] if of is None else [of]
    if isinstance(hook, functools.partial):
        parts = [hook.func, *hook.args, *hook.keywords.values()]
    elif isinstance(hook, types.FunctionType):
        parts = inspect.getclosurevars(hook).nonlocals.values()     # type: ignore[assignment]
    return depth > 0 and any(_is_of(part, ids, depth - 1) for part in parts)


def _output(module: nn.Module, inputs: Any, output: Any) -> Any:
    return output


def hook_output(module: nn.Module, detach: bool = True, grad: bool = False) -> Hook:
    """A hook that stores the module's output, or with `grad` the gradients of its outputs (a tuple).

    >>> layer = nn.Linear(3, 2)
    >>> with hook_output(layer) as hook:
    ...     output = layer(torch.ones(4, 3))
    >>> torch.equal(hook.stored, output)
    True
    """
    return Hook(module, _output, is_forward=not grad, detach=detach)


def hook_outputs(modules: Iterable[nn.Module], detach: bool = True, grad: bool = False) -> Hooks:
    """`hook_output` for each of the modules.

    >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    >>> with hook_outputs(model) as hooks:
    ...     _ = model(torch.ones(4, 3))
    >>> len(hooks)
    2
    """
    return Hooks(modules, _output, is_forward=not grad, detach=detach)


def dummy_eval(model: nn.Module, size: tuple[int, ...] = (64, 64)) -> Any:
    """The model's output, in eval mode, for one random sample (1, channels, *size), with as many channels as its first
    layer takes. Modes are as before afterwards. ValueError for a model without such a layer.

    >>> dummy_eval(simple_cnn((3, 8, 2)), size=(16, 16)).shape
    torch.Size([1, 2])
    """
    weights = (getattr(m, "weight", None) for m in flatten_model(model))
    weight: Any = next((w for w in weights if isinstance(w, Tensor) and w.ndim > 1), None)
    if weight is None:
        raise ValueError(f"this {type(model).__name__} has no layer with weights that shows how many channels it takes")
    flags = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return model(torch.rand(1, weight.shape[1], *size, device=weight.device, dtype=weight.dtype))
    finally:
        for m, training in flags:
            m.training = training


def model_sizes(model: nn.Module, size: tuple[int, ...] = (64, 64)) -> list[torch.Size | None]:
    """The output shape of each child of `model` for one random sample of that size; None where it is no tensor.

    >>> model_sizes(simple_cnn((3, 8, 2)), size=(16, 16))
    [torch.Size([1, 8, 8, 8]), torch.Size([1, 2, 4, 4]), torch.Size([1, 2])]
    """
    with uncompiled(model), hook_outputs(model.children()) as hooks:
        dummy_eval(model, size)
        outputs = [first_tensor(output) for output in hooks.stored]
    return [None if x is None else x.shape for x in outputs]
