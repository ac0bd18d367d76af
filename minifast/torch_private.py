"""Every undocumented name of torch that minifast uses, once, each with a public way to go on without it.

The public way is slower or does less for speed; it is never wrong. `tests/test_torch_private.py` takes each away.
"""
from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader

__all__ = ["BATCH_NORMS", "FUSED_KERNELS", "NORM_LAYERS", "add_one_to_all_", "as_written", "can_step_fused",
           "compile_in_place", "exchange_workers", "has_step_hooks", "hooks_on", "is_compiled", "multiply_all_",
           "nll_total", "profiled", "running_workers", "schedulers_in", "scripted_attributes", "types_of",
           "uncompile", "uncompiled", "unguarded"]

# ---- classes of layers. Without the private base classes the public ones are listed.

BATCH_NORMS: tuple[type[nn.Module], ...]
_batch_norm = getattr(nn.modules.batchnorm, "_BatchNorm", None)
_instance_norm = getattr(nn.modules.instancenorm, "_InstanceNorm", None)
BATCH_NORMS = (_batch_norm,) if _batch_norm else (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS: tuple[type[nn.Module], ...] = (
    (_instance_norm,) if _instance_norm else (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d))
NORM_LAYERS: tuple[type[nn.Module], ...] = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, *_INSTANCE_NORMS)

# ---- the optimizer's step

_add = getattr(torch, "_foreach_add_", None)
_multiply = getattr(torch, "_foreach_mul_", None)
_ONE = torch.ones((), device="cpu")
# functions of lists of tensors; None where this torch has none
FUSED_KERNELS: dict[str, Any] = {name: getattr(torch, f"_fused_{name}_", None) for name in ("sgd", "adam", "adamw")}
_profile = getattr(optim.Optimizer, "profile_hook_step", None)
_global_hooks = [getattr(import_module("torch.optim.optimizer"), name, None)
                 for name in ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")]


def add_one_to_all_(tensors: list[Tensor]) -> None:
    """Add 1 to each tensor, in place: one call instead of one for each."""
    if _add is not None:    # of a plain 1 torch makes a tensor for each, which takes 8 µs instead of 3 for six of them
        _add(tensors, 1 if tensors[0].is_cuda else [_ONE] * len(tensors))
    else:
        for t in tensors:
            t.add_(1)


def multiply_all_(tensors: list[Tensor], factor: Any) -> None:
    """Multiply each tensor by a number (or a tensor of one number), in place."""
    if _multiply is not None and tensors:   # torch refuses an empty list
        _multiply(tensors, factor)
    else:
        for t in tensors:
            t.mul_(factor)


def can_step_fused(opt: Any) -> bool:
    """Whether all that surrounds a kernel is there; without it an optimizer steps as torch has it."""
    return None not in (_add, _profile, *_global_hooks) and all(
        hasattr(opt, name) for name in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"))


def has_step_hooks(opt: Any) -> bool:
    """Whether something is to be called around the optimizer's step."""
    return bool(opt._optimizer_step_pre_hooks or opt._optimizer_step_post_hooks or any(_global_hooks))


def profiled(step: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer's step with torch's profiler and hooks around it."""
    return step if _profile is None else _profile(step)


def unguarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer's method without torch's guard around it, which imports the compiler at its first use (2 s)."""
    return getattr(method, "__wrapped__", method)


# ---- compiled modules. Without torch's own place for compiled code it is put in place of the module's `forward`.

_IN_PLACE = hasattr(nn.Module, "_compiled_call_impl") and hasattr(nn.Module, "_call_impl")
_SLOT = "_compiled_call_impl" if _IN_PLACE else "forward"
_compiled_here: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def compile_in_place(model: nn.Module, **options: Any) -> None:
    """Run the model through `torch.compile` from now on; names, files and hooks of the model itself stay the same."""
    uncompile(model)
    run: Callable[..., Any] = model._call_impl if _IN_PLACE else model.forward

    def call(*args: Any, **kwargs: Any) -> Any:
        return run(*args, **kwargs)
    # `model.compile` compiles nothing of a container of torch's own such as nn.Sequential before torch 2.13, and of any
    # model after the eighth: torch keeps eight compiled things with a function, which is the same one for all models
    call.__code__ = call.__code__.replace()
    vars(model)[_SLOT] = torch.compile(call, **options)
    _compiled_here.add(model)


def uncompile(model: nn.Module) -> None:
    """Undo `compile_in_place`, for which torch has no public way: the model runs as written from now on."""
    if _code(model) is not None:
        del vars(model)[_SLOT]
    _compiled_here.discard(model)


def is_compiled(module: nn.Module) -> bool:
    """Whether the module runs compiled code, in place or as what `torch.compile(module)` returned."""
    return _code(module) is not None or hasattr(module, "_orig_mod")


@contextlib.contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Inside, the model runs as written, which compiled code would not: hooks on its layers are called."""
    compiled = [(m, code) for m in model.modules() if (code := _code(m)) is not None]
    try:
        for m, _ in compiled:
            del vars(m)[_SLOT]
        yield
    finally:
        for m, code in compiled:
            vars(m)[_SLOT] = code


def _code(module: nn.Module) -> Any:
    return vars(module).get(_SLOT) if _IN_PLACE or module in _compiled_here else None


# ---- hooks of modules. Without the names of where modules have them, none is left out.

def hooks_on(module: nn.Module) -> list[Any]:
    """The dicts, by number, of the functions that a module calls around its passes."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [hooks for name in names if isinstance(hooks := vars(module).get(name), dict)]


# ---- losses

def as_written(loss_func: Any) -> Any:
    """The loss that `torch.compile` was given, None if `loss_func` is not compiled (or that cannot be seen)."""
    held = getattr(loss_func, "__dict__", {})
    return held.get("_torchdynamo_orig_callable") or held.get("_modules", {}).get("_orig_mod")


_COUNTING = (torch.float32, torch.float64)     # ready here, and `is_cpu` for the device: a batch takes 4 µs less


def nll_total(loss: Any) -> Any:
    """What a cross-entropy or NLL that is a mean was divided by, which it keeps for its backward pass: a number, on a
    GPU a tensor. None where it does not, or in 16 bits, which cannot count so far."""
    total = getattr(getattr(loss, "grad_fn", None), "_saved_total_weight", None)
    if total is None or total.dtype not in _COUNTING:
        return None
    return total.numpy().item() if total.is_cpu else total


# ---- operations. Without their schemas those that a file may not name are known by their names alone.

def types_of(operation: Any) -> tuple[set[str], set[str]] | None:
    """The types of what one of torch's operations returns, and of its arguments; None where torch does not say."""
    schema = getattr(operation, "_schema", None)
    if schema is None:
        return None
    return {str(value.type) for value in schema.returns}, {str(value.type) for value in schema.arguments}


# ---- loaders with persistent workers. Without the name of where a loader has them, they stay where they are.

def exchange_workers(loader: Any, workers: Any = None) -> Any:
    """Take its running worker processes from a torch DataLoader that keeps them between passes, and give it others (or
    none: its next pass starts some); returns those taken, None where there are none."""
    before = vars(loader).get("_iterator") if isinstance(loader, DataLoader) else None
    if before is not workers:
        vars(loader)["_iterator"] = workers
    return before


def running_workers(loader: Any) -> bool:
    """Whether a torch DataLoader has worker processes that it keeps for its next pass."""
    return isinstance(loader, DataLoader) and vars(loader).get("_iterator") is not None


# ---- scripted modules. Without the name of their type, what they hold beside weights and buffers is left unchanged.

def scripted_attributes(module: nn.Module) -> dict[str, Any]:
    """What a scripted module holds in attributes, which are not among its `vars`; empty for another module."""
    if not isinstance(module, torch.jit.ScriptModule) or not hasattr(module, "_concrete_type"):
        return {}
    own = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    return {name: getattr(module, name) for name in module._concrete_type.get_attributes()
            if name not in own and name != "training" and hasattr(module, name)}


# ---- schedulers made of schedulers

def schedulers_in(scheduler: Any) -> list[Any]:
    """The schedulers that a composite one (SequentialLR, ChainedScheduler) holds, whatever attribute holds them."""
    held = [v for v in vars(scheduler).values() if isinstance(v, (list, tuple))]
    return [s for v in held for s in v if isinstance(s, optim.lr_scheduler.LRScheduler)]
