"""All that a torch module holds: weights, buffers, gradients, flags, and what stands in plain attributes."""
from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .checks import flag
from .torch_private import scripted_attributes

__all__ = ["attributes", "module_state", "set_attributes", "set_module_state"]


def attributes(module: nn.Module) -> dict[str, Any]:
    """What a module holds in plain attributes: neither parameters, buffers and modules, nor what torch itself needs."""
    own = {name: value for name, value in vars(module).items() if name not in _of_torch()}
    return own if not isinstance(module, torch.jit.ScriptModule) else scripted_attributes(module)


def set_attributes(module: nn.Module, values: Mapping[str, Any]) -> None:
    """Take back what `attributes` returned."""
    if isinstance(module, torch.jit.ScriptModule):
        for name, value in values.items():
            setattr(module, name, value)
    else:
        vars(module).update(values)


@functools.cache
def _of_torch() -> frozenset[str]:
    return frozenset(vars(nn.Module()))


def module_state(module: nn.Module) -> dict[str, Any]:
    """All tensors of a module and how they are used: weights, buffers that files leave out, gradients, flags."""
    state = module.state_dict()
    params = list(module.parameters())
    versions = {name: dict(held) for name, held in getattr(state, "_metadata", {}).items()}
    return {"weights": dict(state), "versions": versions,
            "buffers": {name: b for name, b in module.named_buffers() if name not in state},
            "training": [m.training for m in module.modules()],
            "trainable": [p.requires_grad for p in params],
            "grads": {i: p.grad for i, p in enumerate(params) if p.grad is not None}}


def _fit_buffers(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Give buffers that a run makes when it first needs them, or that grow in it, the form that they had."""
    for path, m in module.named_modules():
        for name, buffer in m._buffers.items():
            value = saved.get(f"{path}.{name}" if path else name)
            if buffer is None and value is None or isinstance(m, torch.jit.ScriptModule):
                continue
            if value is None:
                setattr(m, name, None)
            elif buffer is None or buffer.shape != value.shape:
                device = next((t.device for t in (*module.parameters(), *module.buffers())), value.device)
                setattr(m, name, value.detach().to(device, copy=True))


def set_module_state(module: nn.Module, state: dict[str, Any]) -> None:
    """Take back what `module_state` returned; RuntimeError or ValueError if it is that of another module."""
    weights: Any = OrderedDict(state["weights"])
    weights._metadata = state["versions"]   # without it, some modules take the weights for those of an older torch
    _fit_buffers(module, {**weights, **state["buffers"]})
    module.load_state_dict(weights)
    buffers, params = dict(module.named_buffers()), list(module.parameters())
    with torch.no_grad():
        for name, value in state["buffers"].items():
            buffers[name].copy_(value)
    for p, trainable in zip(params, state["trainable"], strict=True):
        if p.requires_grad != flag("requires_grad", trainable):
            p.requires_grad_(trainable)
    for m, training in zip(module.modules(), state["training"], strict=True):
        m.training = flag("a module's training mode", training)
    for i, p in enumerate(params):
        grad = state["grads"].get(i)
        p.grad = None if grad is None else torch.empty_like(p).copy_(grad)  # laid out as the parameter is
